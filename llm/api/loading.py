"""From whatever names a model to the model, its tokenizer and how it is judged."""

from __future__ import annotations

from typing import Any, cast

import torch

from ..judging.margins import MarginOf, likelihood_margins, policy_margins, reward_margins
from ..kinds.registry import task_of
from ..models.loading import ModelError, check_vocabulary, is_policy, load_policy, load_reward_model
from .runs import Run

NO_REFERENCE = "none"


def judge_of(
    model: Any, *, reference: str | None, beta: float, dtype: str, trust_remote_code: bool
) -> tuple[Any, Any, MarginOf]:
    """The model on the device, its tokenizer, and the margins of its pairs.

    Raises:
        ModelError: It cannot be loaded, or it is a policy and there is no reference.
    """
    loading: Any = {"trust_remote_code": trust_remote_code, "dtype": dtype}
    if isinstance(model, Run):
        loaded, tokenizer = model.loaded
        if reference is None and not model.config.own_answers:
            return _placed(loaded), tokenizer, task_of(model.config).margin_of(model.folder)
        policy, name = model.kind != "reward", str(model.folder)
    elif isinstance(model, tuple):
        loaded, tokenizer = model
        policy, name = loaded.can_generate(), type(loaded).__name__
    else:
        name = str(model)
        policy = is_policy(name, trust_remote_code=trust_remote_code)
        loaded, tokenizer = (
            load_policy(name, **loading) if policy else load_reward_model(name, new_head=False, **loading)
        )
    return _placed(loaded), tokenizer, _margins(name, tokenizer, reference, beta, loading) if policy else reward_margins


def _margins(name: str, tokenizer: Any, reference: str | None, beta: float, loading: Any) -> MarginOf:
    if not reference:
        raise ModelError(
            f"{name} is a policy, whose margins are relative to the one it started from: give --reference, or "
            f"--reference {NO_REFERENCE} to rank by log pi(chosen) - log pi(rejected) alone"
        )
    if reference == NO_REFERENCE:
        return likelihood_margins
    against, its_tokenizer = load_policy(reference, **loading)
    check_vocabulary(tokenizer, its_tokenizer)
    return policy_margins(against, beta=beta)


def _placed(model: Any) -> Any:
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    return cast(Any, model).to(device)
