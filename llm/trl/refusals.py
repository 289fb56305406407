"""What can be refused before TRL loads a model, tokenises, or computes the reference of every pair."""

from __future__ import annotations

from collections.abc import Mapping

from datasets import Dataset
from transformers import TrainingArguments

from ..adversary.inaction import bound
from ..adversary.rules import Reweighting, names_in
from ..data.grouping.named import unknown
from .columns import OF_GAPS, Columns
from .datasets import PROCESSED

_MADE = {"prompt", *PROCESSED}  # columns that TRL makes while it prepares the data
_MIXING = {  # DPO losses of one pair that are another loss than theirs in a batch
    "aot": "sorts log-ratios across the batch",
    "aot_unpaired": "sorts log-ratios across the batch",
    "sft": "is normalised by the tokens of the batch",
}


def check_columns(rule: Reweighting, data: Dataset, *, batch: int, remedy: str) -> None:
    """Refuse groups that the columns do not give; columns that TRL is still to make are not missed.

    Args:
        rule: The set or rule, its groups named.
        data: The training set as it was given.
        batch: How many examples are weighed together.
        remedy: What makes that number larger.

    Raises:
        ValueError: One sentence with the columns, or the remedy.
    """
    columns = Columns(data)
    lacking = {name for named in names_in(rule) for name in unknown(named, columns)}
    measured = sorted(lacking & OF_GAPS.keys())
    if measured and "chosen" not in columns:
        raise ValueError(
            f"{rule} names {' and '.join(measured)}, and train_dataset has no answers to measure: where trl_dataset "
            f"made it, carry the columns along, by={sorted(lacking)}"
        )
    if not lacking or not lacking <= _MADE:
        bound(rule, columns, batch=max(min(batch, len(data)), 2), remedy=remedy)


def check_layout(data: object) -> None:
    """Refuse pairs whose prompt is turns and whose answers are texts, or the reverse, which TRL cannot join.

    Raises:
        ValueError: One sentence with what reads such pairs.
    """
    first: Mapping[str, object] = data[0] if isinstance(data, Dataset) and len(data) else {}
    names = [name for name in ("prompt", "chosen", "rejected") if first.get(name) is not None]
    if len({isinstance(first[name], str) for name in names}) > 1:
        told = ", ".join(f"{name} is {'a text' if isinstance(first[name], str) else 'turns'}" for name in names)
        raise ValueError(
            f"train_dataset mixes layouts ({told}), and TRL joins texts with texts, or turns with turns: make them "
            "alike, or read the file with llm.read_pairs and give trl_dataset(encode_pairs(pairs, tokenizer, "
            "max_length=...), kind), which takes both"
        )


def check_arguments(arguments: TrainingArguments, processes: int) -> None:
    """Refuse settings of a trainer of pairs under which the loss of a pair cannot be told, or nothing is to choose.

    Raises:
        ValueError: One sentence with the remedy.
    """
    size, steps = arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps
    if size != 1:
        raise ValueError(
            f"per_device_train_batch_size is {size}, and TRL tells the loss of an example only where it is alone: set "
            f"per_device_train_batch_size=1 and gradient_accumulation_steps={size * steps} (the same effective batch)"
        )
    if steps * processes < 2:
        raise ValueError(
            "an effective batch of one example leaves the adversary nothing to choose: raise "
            "gradient_accumulation_steps"
        )
    for name in getattr(arguments, "loss_type", None) or []:
        if name in _MIXING:
            raise ValueError(
                f"loss_type {name!r} {_MIXING[name]}, so a pair alone has another loss than in its batch: choose one "
                "that treats pairs one by one, such as 'sigmoid' or 'ipo', or ambiguity=None"
            )
