"""What the model of a run will see of its pairs: counted while they are read, said, and kept in the record."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import TrainingArguments

from ..audit.audit import Audit
from ..audit.auditor import Auditor
from ..audit.verdicts import Concern, check_learnable, concerns
from ..data.overview import overview
from ..data.pairs import Pair
from .config import TrainConfig

Suites = Mapping[str, Sequence[Pair]]
_log = logging.getLogger(__name__)
_SAID = ("token_identical", "system_lost", "thoughts_lost", "tool_calls_lost")  # by whoever encodes them


class RunAudit:
    """The audit of a run, on the main process with its suites.

    Args:
        config: The settings of the run.
        arguments: Those of transformers.
        tokenizer: Of its model.
        suites: What it will be judged by.
    """

    def __init__(self, config: TrainConfig, arguments: TrainingArguments, tokenizer: Any, suites: Suites) -> None:
        self._config, self._main = config, arguments.process_index == 0
        self._suites = suites if self._main else {}
        self.auditor = Auditor(tokenizer, max_length=config.max_length, suites=bool(self._suites))

    def conclude(self, pairs: Sequence[Pair], train: Mapping[str, Any], *, batch: int) -> tuple[Audit, list[Concern]]:
        """Say what is of concern.

        Args:
            pairs: The training pairs, which ``auditor`` has seen.
            train: The record of their file.
            batch: The effective batch.

        Raises:
            DataError: There is little to learn from.
        """
        for name, judged in self._suites.items():
            self.auditor.suite(name, judged)
        audit = self.auditor.audit(overview(pairs), file=train["file"], ignored=train.get("ignored"), batch=batch)
        check_learnable(audit, self._config)
        found = concerns(audit, self._config)
        for concern in found if self._main else ():
            if concern.subject not in _SAID:
                _log.warning("%s", concern)
        return audit, found
