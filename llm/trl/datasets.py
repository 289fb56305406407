"""Our tokens for TRL's trainers: pairs as ``encode_pairs`` reads them, in the columns that TRL makes of texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from ..data.grouping.columns import PairColumns
from ..text.batches import SIDES
from ..text.encoding import EncodedPairs

if TYPE_CHECKING:
    from datasets import Dataset

PROCESSED = {"prompt_ids", "chosen_ids", "rejected_ids"}


def trl_dataset(encoded: EncodedPairs, kind: Literal["reward", "dpo"], *, by: Sequence[str] = ()) -> Dataset:
    """Encoded pairs as a data set that the robust trainers of this room take as it is.

    TRL tokenises texts by itself, cuts each answer for itself and keeps pairs whose answers have the same tokens. With
    these columns it trains on one window of the prompt for both answers, and on no pair that cannot be told apart.

    Args:
        encoded: As from ``llm.text.encoding.encode_pairs``.
        kind: ``reward``: ``chosen_ids`` and ``rejected_ids``, whole conversations; ``dpo``: ``prompt_ids`` beside them,
            and the answers alone, with the token that ends them.
        by: Columns of ``llm.data.grouping.columns.PairColumns`` to carry along, for sets that name them after ``by=``.
    """
    from datasets import Dataset

    data, columns = Dataset.from_list(_rows(encoded, kind)), PairColumns(encoded.pairs)
    for name in by:
        data = data.add_column(name, columns[name])  # type: ignore[arg-type]
    return data


def _rows(encoded: EncodedPairs, kind: Literal["reward", "dpo"]) -> list[dict[str, list[int]]]:
    if kind == "reward":
        return [{f"{side}_ids": item[side] for side in SIDES} for item in encoded]
    rows = []
    for item in encoded:
        start, (chosen, rejected) = item["chosen_span"][0], (item["chosen_span"][1], item["rejected_span"][1])
        answers = {"chosen_ids": item["chosen"][start:chosen], "rejected_ids": item["rejected"][start:rejected]}
        rows.append({"prompt_ids": item["chosen"][:start], **answers})
    return rows
