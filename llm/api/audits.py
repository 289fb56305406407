"""What a model will see of pairs, from Python."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..audit.audit import Audit
from ..audit.limits import AuditLimits, check_limits
from ..audit.verdicts import Concern, check_learnable, concerns
from ..data.columns import ColumnMap, columns_of
from ..data.objects import pairs_of
from ..data.pairs import DataError, PairSet, PairStream, stream_pairs
from ..data.suites import suite_files
from ..results.audits import summary
from .frames import Shown, frame
from .runs import Run

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase

    from .judged import Model

Source = PairStream | PairSet
BATCH = 32
"""Pairs that are compared in a step, where nothing is said."""


@dataclass(frozen=True, repr=False)
class PairAudit(Shown):
    """What a model will see of pairs: ``table`` has a row per count.

    Attributes:
        audit: All that was counted.
        concerns: What a person must know before training.
        refusal: Why a run would not begin; "" where it would.
    """

    audit: Audit
    concerns: list[Concern]
    refusal: str

    @property
    def table(self) -> pd.DataFrame:
        """Pairs, their share, and the ids of the first ones, of every count."""
        from ..audit.table import rows

        names = ("what the model sees", "pairs", "share", "first")
        return frame(dict(zip(names, row, strict=True)) for row in rows(self.audit))

    def caption(self) -> str:
        """Of which file, and what is of concern."""
        return ". ".join([f"{self.audit.file}: {summary(self.audit.as_json())}", *map(str, self.concerns)]) + "."


def audit_pairs(
    data: object,
    suites: object = None,
    *,
    model: Model | PreTrainedTokenizerBase,
    max_length: int | None = None,
    batch_size: int = BATCH,
    max_records: int | None = None,
    columns: str | Mapping[str, str] | None = None,
    fold_system: bool = False,
    trust_remote_code: bool = False,
    limits: AuditLimits | None = None,
) -> PairAudit:
    """Count what a model will see of pairs; files are read a thousand pairs at a time.

    Args:
        data: A path, or pairs, a data frame, a data set, mappings.
        suites: A path, several, or name -> path or pairs: training pairs are looked for in them.
        model: Alias, folder or hub name, a ``Run``, a model with its tokenizer, or a tokenizer; ``tiny`` learns its
            tokenizer from the pairs.
        max_length: Tokens per answer with its prompt; None: as the tokenizer says.
        batch_size: Pairs that are compared in a step, to say which groups a set can compare.
        max_records: Read no more than this many records of the data.
        columns: Which column of the data, and of the suites that have it, holds what.
        fold_system: Read a system turn as the beginning of the first user turn.
        trust_remote_code: Let a hub repository run its own code.
        limits: From which shares on something is of concern.

    Raises:
        DataError: Data or a suite cannot be read.
        ModelError: There is no such tokenizer, or the model reads less than ``max_length``.
        ValueError: A number makes no sense.
    """
    from ..audit.auditor import audit_of
    from ..models.architectures import check_limit
    from ..models.tokenizers import LONGEST, length_of

    mapping, limits = columns_of(columns), limits or AuditLimits()
    check_limits(limits)
    if batch_size < 1 or (max_length is not None and max_length < 1):
        raise ValueError("batch_size and max_length must be at least 1")
    if isinstance(model, str | Path) and str(model) == "tiny":
        tokenizer = _tiny(_stream(data, mapping, max_records), max_length or LONGEST)
    else:
        tokenizer = _tokenizer(model, fold_system=fold_system, trust_remote_code=trust_remote_code)
    reads = _limit(model, trust_remote_code=trust_remote_code)
    check_limit(reads, max_length or 1)
    found = audit_of(
        _stream(data, mapping, max_records),
        tokenizer,
        max_length=max_length or length_of(tokenizer),
        suites={name: _stream(suite, mapping, shared=True) for name, suite in _named(suites).items()},
        batch=batch_size,
    )
    try:
        check_learnable(found, limits, reads=reads)
        refusal = ""
    except DataError as reason:
        refusal = str(reason)
    return PairAudit(found, concerns(found, limits, reads=reads), refusal)


def _stream(
    source: object, columns: ColumnMap | None, max_records: int | None = None, *, shared: bool = False
) -> Source:
    """Pairs one by one, of a file; of objects, all of them."""
    if isinstance(source, str | Path):
        return stream_pairs(source, max_records=max_records, columns=columns, shared=shared)
    return pairs_of(source, columns=columns, shared=shared)


def _named(suites: object) -> dict[str, object]:
    if suites is None:
        return {}
    if isinstance(suites, Mapping):
        return {str(name): suite for name, suite in suites.items()}
    paths = [suites] if isinstance(suites, str | Path) else suites
    if isinstance(paths, Iterable) and all(isinstance(path, str | Path) for path in paths):
        return dict(suite_files([str(path) for path in paths]))
    return {"suite": suites}


def _tokenizer(model: Model | PreTrainedTokenizerBase, **loading: bool) -> PreTrainedTokenizerBase:
    from ..models.tokenizers import load_tokenizer

    if isinstance(model, Run):
        return load_tokenizer(str(model.folder), **loading)
    if isinstance(model, str | Path):
        return load_tokenizer(str(model), **loading)
    return model[1] if isinstance(model, tuple) else model


def _limit(model: object, *, trust_remote_code: bool) -> int | None:
    """The most tokens that the model reads; None of a tokenizer alone."""
    from ..models.architectures import position_limit
    from ..models.tokenizers import limit_of

    if isinstance(model, Run | str | Path):
        name = str(model.folder if isinstance(model, Run) else model)
        return None if name == "tiny" else limit_of(name, trust_remote_code=trust_remote_code)
    return position_limit(model[0]) if isinstance(model, tuple) else None


def _tiny(source: Source, max_length: int) -> PreTrainedTokenizerBase:
    from ..models.loading import tiny_reward_model
    from ..training.pair_trainer import texts_of

    return tiny_reward_model(texts_of(source.pairs if isinstance(source, PairSet) else source), max_length=max_length)[
        1
    ]
