"""Estimators by name, as the setting ``estimator`` has them: how the answers to one prompt are compared."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from dro_core.spec import Form, read

from .groups import GroupAdvantage, group_mean, group_standardised, max_of_k, maximum_likelihood, risk_seeking
from .tokens import leave_one_out


def _best_of(k: float) -> GroupAdvantage:
    if not 2 <= k < float("inf") or k != int(k):
        raise ValueError(f"pass_at_k:{k:g} takes a whole k, from 2 to the number of samples: pass_at_k:1 is rloo")
    return partial(max_of_k, k=int(k))


def _risk_seeking(beta: float) -> GroupAdvantage:
    if not 0 < beta < float("inf"):
        raise ValueError(f"rs_grpo takes a positive number per unit of reward, got {beta:g}: near 0 it is dr_grpo")
    return partial(risk_seeking, beta=beta)


def _always(what: GroupAdvantage | None) -> Callable[..., GroupAdvantage | None]:
    return lambda: what


ESTIMATORS: dict[str, Form[GroupAdvantage | None]] = {
    "rloo": Form(_always(leave_one_out), "rloo"),
    "ppo": Form(_always(None), "ppo"),
    "grpo": Form(_always(group_standardised), "grpo"),
    "dr_grpo": Form(_always(group_mean), "dr_grpo"),
    "maxrl": Form(_always(maximum_likelihood), "maxrl"),
    "pass_at_k": Form(_best_of, "pass_at_k:8", "k"),
    "rs_grpo": Form(_risk_seeking, "rs_grpo:2", "beta"),
}
LINEAR = frozenset({"rloo", "ppo", "dr_grpo"})
"""Those that a factor on all returns of a prompt passes through."""


def name_of(estimator: str) -> str:
    """The name alone: pass_at_k of pass_at_k:8."""
    return estimator.partition(":")[0].strip()


def group_advantage(estimator: str) -> GroupAdvantage | None:
    """Advantages of the answers to one prompt, by the name of the estimator; None of ppo, which compares tokens.

    Raises:
        ValueError: In one sentence: an unknown name, or a number that is missing or makes no sense.

    >>> import torch
    >>> advantage = group_advantage("pass_at_k:2")
    >>> advantage and advantage(torch.tensor([0.0, 0.0, 1.0]))
    tensor([0., 0., 2.])
    """
    return read(estimator, ESTIMATORS, "estimator")


def least_samples(estimator: str) -> int:
    """How many answers to a prompt it needs."""
    found: object = group_advantage(estimator)
    if isinstance(found, partial) and "k" in found.keywords:
        return int(found.keywords["k"])
    return 2 if name_of(estimator) in ("rloo", "grpo", "dr_grpo", "maxrl", "rs_grpo") else 1
