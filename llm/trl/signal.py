"""Groups of completions that all earned the same, which teach nothing: told from others, and replaced by other prompts.

The groups of a batch lie across the ranks as TRL deals them; what is put together here is the batch of all ranks, the
same on each.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..adversary.effective_batch import gather

if TYPE_CHECKING:
    from accelerate import Accelerator

    from .online import RobustOnline

SilentGroups = Literal["keep", "leave_out", "draw_again"]
PER_SEQUENCE = ("grpo", "dr_grpo", "luspo")  # losses that are a mean over completions
PER_TOKEN = ("dapo", "cispo")  # over the tokens of the generation batch
_TIED = 1e-8
_LEFT = ("prompt_ids", "prompt_mask")  # padded on the left, the others on the right
_WIDE = {
    "prompt_mask": 0, "completion_mask": 0, "tool_mask": 1, "importance_sampling_ratio": 1.0,
    "old_per_token_logps": 0.0, "ref_per_token_logps": 0.0, "sampling_per_token_logps": 0.0,
}  # fmt: skip
_LONG = ("advantages", "old_logps")
_COUNT = "num_items_in_batch"


class Signals(NamedTuple):
    """What the rewards of every prompt say, boolean ``(prompts,)`` each.

    Attributes:
        signal: Some completion earned more than another.
        right: None did, and all earned at least 1.
        wrong: None did, and all earned at most 0.
    """

    signal: Tensor
    right: Tensor
    wrong: Tensor

    @classmethod
    def of(cls, rewards: Tensor) -> Self:
        """From rewards ``(prompts, samples)``, nan where a completion could not be judged."""
        least, most = rewards.nan_to_num(torch.inf).amin(1), rewards.nan_to_num(-torch.inf).amax(1)
        tied = (most - least <= _TIED) & most.isfinite()
        return cls(most - least > _TIED, tied & (least >= 1), tied & (most <= 0))


@dataclass(frozen=True)
class Batch:
    """A generation batch of all ranks.

    Attributes:
        tensors: What TRL made of it, by name, one entry per completion.
        rewards: ``(completions, functions)``.
        index: Positions of the prompts in the training set, ``(prompts,)``.
    """

    tensors: Mapping[str, Tensor]
    rewards: Tensor
    index: Tensor

    @classmethod
    def gathered(
        cls, accelerator: Accelerator, output: Mapping[str, Tensor], rewards: Tensor, index: Tensor, blank: int
    ) -> Self:
        """Collect what TRL made on every rank.

        Args:
            accelerator: Knows the ranks.
            output: Of this rank.
            rewards: Of all ranks.
            index: Of the prompts of all ranks.
            blank: The token that pads.

        Raises:
            ValueError: There is something in it that is no text.
        """
        tensors: dict[str, Tensor] = {}
        for name, own in output.items():
            if name == _COUNT:
                continue
            if name not in (*_WIDE, *_LONG, "prompt_ids", "completion_ids"):
                raise ValueError(
                    f"silent_groups='draw_again' puts batches of text together, and these have {name}: use 'leave_out'"
                )
            if name not in _LONG:
                filler, left = _WIDE.get(name, blank), name in _LEFT
                own = accelerator.pad_across_processes(own, dim=1, pad_index=filler, pad_first=left)
            tensors[name] = gather(accelerator, torch.as_tensor(own))
        return cls(tensors, rewards, index)

    def mine(self, output: Mapping[str, Tensor], *, start: int, size: int) -> dict[str, Tensor]:
        """The part of one rank, with what else TRL said of it; tokens are counted over all ranks."""
        found = dict(output) | {name: x[start : start + size] for name, x in self.tensors.items()}
        if _COUNT in found:
            found[_COUNT] = tokens_of(self.tensors).sum().to(found[_COUNT])
        return found


def tokens_of(tensors: Mapping[str, Tensor]) -> Tensor:
    """How many tokens of each completion are trained on, ``(completions,)``."""
    mask = tensors["completion_mask"]
    return (mask * tensors["tool_mask"] if "tool_mask" in tensors else mask).sum(1)


def put_together(batches: Sequence[Batch], chosen: Sequence[tuple[int, int]], *, samples: int, blank: int) -> Batch:
    """The groups ``chosen``, each as (which batch, which of its prompts), as one batch in that order.

    Args:
        batches: With the same entries.
        chosen: One per prompt.
        samples: Completions to a prompt.
        blank: The token that pads.
    """
    begin = np.cumsum([0, *(len(batch.index) for batch in batches)])
    prompts = torch.tensor([int(begin[which]) + group for which, group in chosen], device=batches[0].index.device)
    rows = (prompts[:, None] * samples + torch.arange(samples, device=prompts.device)).flatten()
    tensors = {}
    for name in batches[0].tensors:
        parts = [batch.tensors[name] for batch in batches]
        if name not in _LONG:
            width, filler = max(part.shape[1] for part in parts), _WIDE.get(name, blank)
            short = [width - part.shape[1] for part in parts]
            sides = [(less, 0) if name in _LEFT else (0, less) for less in short]
            parts = [pad(part, side, value=filler) for part, side in zip(parts, sides, strict=True)]
        tensors[name] = torch.cat(parts)[rows]
    rewards, index = (torch.cat([getattr(batch, name) for batch in batches]) for name in ("rewards", "index"))
    return Batch(tensors, rewards[rows], index[prompts])


def further_rows(size: int, taken: Iterable[int], key: Sequence[int]) -> list[int]:
    """The rows of a training set of ``size`` that are not ``taken``, in an order that the key alone decides.

    >>> further_rows(5, [1, 3], [7]) == further_rows(5, [3, 1], [7]), sorted(further_rows(5, [1, 3], [7]))
    (True, [0, 2, 4])
    """
    order = np.random.default_rng(list(key)).permutation(size)
    return order[~np.isin(order, list(taken))].tolist()


def drawn_together(lacking: int, left: int, *, samples: int, ranks: int) -> int:
    """How many prompts to draw for those that lack a signal: completions must divide among the ranks; 0: too few left.

    >>> drawn_together(3, 100, samples=4, ranks=2), drawn_together(3, 100, samples=3, ranks=2)
    (3, 4)
    """
    unit = ranks // math.gcd(samples, ranks)
    return min(-(-lacking // unit), left // unit) * unit


class SkipsDullSteps(TrainerCallback):
    """Takes no optimizer step where no group of the step had a signal: not even momentum and weight decay move then."""

    def __init__(self, trainer: RobustOnline) -> None:
        self.trainer = trainer

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Leave parameters without gradients, which optimizers pass over."""
        del args, state, control, kwargs
        skipped = not self.trainer.lively
        if skipped:
            self.trainer.model.zero_grad(set_to_none=True)
        self.trainer.lively = False
        self.trainer._metrics["train"]["groups/skipped_step"].append(float(skipped))
