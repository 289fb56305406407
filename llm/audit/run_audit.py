"""The audit of a training run: counted while its pairs are read, said, and kept in its record."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..data.overview import overview
from ..data.pairs import Pair
from .audit import Audit
from .auditor import Auditor
from .limits import AuditLimits
from .verdicts import Concern, check_learnable, concerns

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Suites = Mapping[str, Sequence[Pair]]
_log = logging.getLogger(__name__)
_SAID = ("token_identical", "system_lost", "thoughts_lost", "tool_calls_lost")  # by whoever encodes them


class RunAudit:
    """The audit of a run.

    Args:
        tokenizer: Of its model.
        max_length: Tokens per sequence.
        suites: What it will be judged by; none on processes that keep no record.
        says: Whether this process says what is of concern.
        reads: The most tokens that the model reads of a sequence; None: any number.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int,
        suites: Suites,
        says: bool,
        reads: int | None = None,
    ) -> None:
        self._suites, self._says, self._reads = suites, says, reads
        self.auditor = Auditor(tokenizer, max_length=max_length, suites=bool(suites))

    def conclude(
        self, pairs: Sequence[Pair], file: Mapping[str, Any], limits: AuditLimits, *, batch: int
    ) -> tuple[Audit, list[Concern]]:
        """Say what is of concern.

        Args:
            pairs: The training pairs, which ``auditor`` has seen.
            file: The record of their file.
            limits: What is too much.
            batch: The effective batch.

        Raises:
            DataError: There is little to learn from.
        """
        for name, judged in self._suites.items():
            self.auditor.suite(name, judged)
        audit = self.auditor.audit(overview(pairs), file=file["file"], ignored=file.get("ignored"), batch=batch)
        check_learnable(audit, limits, reads=self._reads)
        found = concerns(audit, limits, reads=self._reads)
        for concern in found if self._says else ():
            if concern.subject not in _SAID:
                _log.warning("%s", concern)
        return audit, found
