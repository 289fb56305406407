"""From whatever names a model to the model, its tokenizer and how it is judged."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import torch

from ..judging.margins import MarginOf, likelihood_margins, policy_margins, reward_margins
from ..kinds.registry import task_of
from ..models.architectures import placed
from ..models.loading import ModelError, is_policy, load_policy, load_reward_model
from ..models.settings import Loading
from ..models.tokenizers import check_vocabulary
from ..run.finished import RunError
from ..training.config import TrainConfig
from .runs import Run

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

NO_REFERENCE = "none"


def judge_of(
    model: object, *, reference: str | None, beta: float, dtype: str, trust_remote_code: bool
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, MarginOf]:
    """The model on the device, its tokenizer, and the margins of its pairs.

    Raises:
        ModelError: It cannot be loaded, or it is a policy and there is no reference.
    """
    loading: Loading = {"trust_remote_code": trust_remote_code, "dtype": dtype}
    if reference is None and isinstance(model, str | Path):
        model = _with_own_reference(model) or model
    if isinstance(model, Run):
        run = Run(model.folder, trust_remote_code=True) if trust_remote_code and not model.trusted else model
        policy, name = run.kind != "reward", str(run.folder)
        found, tokenizer = run.loaded if dtype == "float32" else loaded(name, policy=policy, **loading)
        if reference is None and isinstance(run.config, TrainConfig):
            return _placed(found), tokenizer, task_of(run.config).margin_of(run.folder)
    elif isinstance(model, tuple):
        found, tokenizer = model
        policy, name = found.can_generate(), type(found).__name__
    else:
        name = str(model)
        policy = is_policy(name, trust_remote_code=trust_remote_code)
        found, tokenizer = loaded(name, policy=policy, **loading)
    return _placed(found), tokenizer, _margins(name, tokenizer, reference, beta, loading) if policy else reward_margins


def _with_own_reference(name: str | Path) -> Run | None:
    """The run of a model in its folder, where it knows by itself how its policy is judged."""
    try:
        run = Run(name)
    except RunError:
        return None
    return run if run.kind == "dpo" else None


def loaded(name: str, *, policy: bool, **loading: Unpack[Loading]) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A policy, or a reward model that has its head, and its tokenizer."""
    return load_policy(name, **loading) if policy else load_reward_model(name, new_head=False, **loading)


def _margins(
    name: str, tokenizer: PreTrainedTokenizerBase, reference: str | None, beta: float, loading: Loading
) -> MarginOf:
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


def _placed(model: PreTrainedModel) -> PreTrainedModel:
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    return placed(model, device)
