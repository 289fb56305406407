"""What is checked of scores before anything is learned from them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..data.prompts import Prompt
from .bench import BadScores

Scores: TypeAlias = NDArray[np.float64]
_log = logging.getLogger(__name__)


def checked_shape(scores: object, answers: int) -> Scores:
    """The scores as float64, one for each of so many answers.

    Raises:
        BadScores: They are not.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.shape != (answers,):
        raise BadScores(f"one score per answer is needed: got shape {scores.shape} for {answers} answers")
    return scores


def checked_scores(scores: Scores, prompts: Sequence[Prompt], *, step: int) -> Scores:
    """The scores, float64 ``(n,)``; a warning where all are the same.

    Raises:
        BadScores: The shape is wrong, or a score is nan or infinite.
    """
    scores = checked_shape(scores, len(prompts))
    bad = [prompts[i].id for i in np.flatnonzero(~np.isfinite(scores))[:5]]
    if bad:
        raise BadScores(
            f"the reward model gave {np.sum(~np.isfinite(scores))} of {len(scores)} scores that are nan or infinite at "
            f"step {step + 1} (prompts {', '.join(bad)}), and the policy was not updated: check its weights and dtype "
            "with `robust-rlhf evaluate` on pairs"
        )
    if len(scores) > 1 and np.ptp(scores) == 0:
        _log.warning(
            "all %d answers of step %d have the same score %g, which teaches nothing: look at the sampled answers, "
            "and whether the reward model tells answers apart",
            len(scores), step + 1, scores[0],
        )  # fmt: skip
    return scores
