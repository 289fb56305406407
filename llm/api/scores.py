"""Rewards from Python: what a reward model says of pairs, or of answers to chats."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..serving.items import items_of
from .frames import Shown, frame
from .judged import Model, name_of

if TYPE_CHECKING:
    import pandas as pd

    from ..serving.reading import RewardReader
    from ..serving.scoring import Row


@dataclass(frozen=True, repr=False)
class Scored(Shown):
    """Rewards of a model: ``table`` has a row per answer, or per pair of answers.

    Attributes:
        name: Of the model.
        rows: As from ``llm.serving.scoring.score_stream``.
    """

    name: str
    rows: list[Row]

    @property
    def table(self) -> pd.DataFrame:
        """Rewards, margins of pairs, tokens that were read, and whether anything was cut."""
        return frame(self.rows)

    def caption(self) -> str:
        """Whose rewards these are."""
        return f"Rewards of {self.name}."


def score(
    model: Model,
    data: object,
    *,
    columns: str | Mapping[str, str] | None = None,
    max_length: int | None = None,
    batch_size: int = 32,
    dtype: str = "float32",
    trust_remote_code: bool = False,
) -> Scored:
    """Ask a reward model for its rewards of pairs, or of answers; margins are those that ``evaluate`` judges by.

    Args:
        model: A ``Run``, a folder, hub name or alias, or a model with its tokenizer.
        data: A path, or rows: pairs in any layout, or chats with answers (see ``llm.serving.items``).
        columns: Which column holds what; ``prompt`` and ``answer`` are enough for answers.
        max_length: Tokens per answer with its prompt; None: as in training.
        batch_size: Pairs per forward pass, or twice as many answers.
        dtype: Precision that the weights are read in; of a model that is loaded, its own.
        trust_remote_code: Let a hub repository run its own code.

    Raises:
        DataError: The data cannot be read.
        ModelError: The model cannot be loaded, or is none of rewards.
        ValueError: A number makes no sense.
    """
    rows = scores_of(
        model,
        data,
        columns=columns,
        trust_remote_code=trust_remote_code,
        max_length=max_length,
        batch_size=batch_size,
        dtype=dtype,
    )
    return Scored(name_of(model), list(rows))


def scores_of(
    model: Model,
    data: object,
    *,
    columns: str | Mapping[str, str] | None = None,
    stdin: Iterable[bytes] = (),
    slow: bool = False,
    **how: Any,
) -> Iterator[Row]:
    """The same row by row. ``stdin`` is what ``-`` names; ``slow`` is for data that may take long to come.

    Data are opened before the model, which takes longer, unless it is they that may take long.
    """
    from ..serving.scoring import score_stream

    if slow:
        reader = reward_reader(model, **how)
        return score_stream(reader, items_of(data, columns, stdin=stdin), slow=True)
    items = items_of(data, columns, stdin=stdin)
    return score_stream(reward_reader(model, **how), items)


def reward_reader(
    model: Model, *, max_length: int | None, dtype: str = "float32", trust_remote_code: bool = False, **batches: Any
) -> RewardReader:
    """What reads and scores for a reward model, on the device.

    Raises:
        ModelError: The model cannot be loaded, or is none of rewards.
        ValueError: A number makes no sense.
    """
    from ..judging.margins import reward_margins
    from ..models.loading import ModelError
    from ..serving.reading import check_numbers, reader_of
    from .loading import NO_REFERENCE, judge_of

    check_numbers(max_length=max_length, **batches)
    loaded, tokenizer, margin_of = judge_of(
        model, reference=NO_REFERENCE, beta=1.0, dtype=dtype, trust_remote_code=trust_remote_code
    )
    if margin_of is not reward_margins:
        raise ModelError(f"{name_of(model)} is a policy, which has no rewards: name a reward model, or use evaluate")
    return reader_of(loaded, tokenizer, max_length=max_length, **batches)
