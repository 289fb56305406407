"""Scorers: what turns answers into numbers, whatever is behind it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Unpack

import numpy as np
from numpy.typing import NDArray

from ..data.corpus.corpus import check
from ..data.prompts import Prompt
from .bench import BadScores, Bench, bench_of
from .names import BUILTIN, SECONDS, RewardError, RewardPart, labels_of, parts_of

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from ..models.settings import Loading

_AT_ONCE = 1024  # answers of a batch
Scores = NDArray[np.float64]


class Scorer(Protocol):
    """Anything that scores answers; higher is better, in any unit.

    Attributes:
        verifiable: Whether every score lies in [0, 1] and the same answer is always scored the same, so that the mean
            of a prompt is a pass rate; None where that is not known yet.
    """

    @property
    def verifiable(self) -> bool | None:
        """Whether scores are those of a check."""
        ...

    def __call__(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Scores:
        """Scores of one answer to each prompt, shape ``(n,)``."""
        ...


class ExactChecker:
    """1 for a right answer to a prompt of the built-in corpus, 0 for a wrong one."""

    verifiable = True

    def __call__(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> NDArray[np.float64]:
        """Scores, shape ``(n,)``.

        Raises:
            RewardError: A prompt is not from the built-in corpus.
        """
        return np.array([self._score(prompt, text) for prompt, text in zip(prompts, answers, strict=True)])

    def _score(self, prompt: Prompt, answer: str) -> float:
        try:
            return float(check(prompt.answered(answer, answer), answer))
        except (KeyError, IndexError) as error:
            raise RewardError(
                f"the exact checker knows the categories of the built-in corpus, not {prompt.category!r} "
                f"(prompt {prompt.id}): name a reward model instead"
            ) from error


class CheckScorer:
    """A checker by name or a function, asked in a process of its own.

    Args:
        part: Its name.
        seconds: Within which a batch must be scored.
    """

    def __init__(self, part: RewardPart, *, seconds: float = SECONDS) -> None:
        self.part, self.seconds = part, seconds
        self._bench: Bench = bench_of(part)
        self.verifiable: bool | None = True if part.kind == "checker" else None

    def __call__(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Scores:
        """Scores, shape ``(n,)``; nan where an answer is not scored.

        Raises:
            BadScores: There are none; the sentence names function and prompt.
        """
        asked = [text_or_chat(prompt) for prompt in prompts]
        pairs = zip(asked, answers, strict=True)
        completions = [
            text if isinstance(one, str) else [{"role": "assistant", "content": text}] for one, text in pairs
        ]
        rows, found = [columns_of(prompt) for prompt in prompts], list[float | None]()
        for start in range(0, len(rows), _AT_ONCE):
            here = slice(start, start + _AT_ONCE)
            found += self._bench.scores(asked[here], completions[here], rows[here], self.seconds)
        scores = np.array([np.nan if score is None else score for score in found], dtype=np.float64)
        if self.verifiable is not False and self.part.kind == "function":
            self.verifiable = _is_verdict(
                scores, [(prompt.id, text) for prompt, text in zip(prompts, answers, strict=True)]
            )
        return scores

    def check(self, prompts: Sequence[Prompt], name: str) -> None:
        """Refuse prompts that lack what is asked of them, ``name`` being what they are called.

        Raises:
            RewardError: How many lack what, and the first of them.
        """
        if lacking := self._bench.lacks([columns_of(prompt) for prompt in prompts], self.seconds):
            counted = [
                f"{count} of {len(prompts)} have {why}, {prompts[first].id!r} first"
                for why, (count, first) in lacking.items()
            ]
            raise RewardError(
                f"{self.part.name} cannot check the prompts of {name}: {'; '.join(counted)}: add the column, "
                "say which it is (--columns answer=COLUMN), or leave these prompts out"
            )


def _is_verdict(scores: Scores, asked: Sequence[tuple[str, str]]) -> bool:
    """Whether the scores seen lie in [0, 1], and are the same where answers to the same prompt are."""
    seen: dict[tuple[str, str], float] = {}
    same = all(seen.setdefault(key, score) == score for key, score in zip(asked, scores.tolist(), strict=True))
    return same and bool(np.all((scores >= 0) & (scores <= 1)))


def text_or_chat(prompt: Prompt) -> object:
    """The prompt as TRL gives it to a reward function: a text where the file has a text, else messages."""
    return prompt.messages[0]["content"] if prompt.as_text else [dict(message) for message in prompt.messages]


def columns_of(prompt: Prompt) -> dict[str, object]:
    """The columns that a checker may ask for, by name."""
    known = {"id": prompt.id, "source": prompt.source, "category": prompt.category}
    answer = {} if prompt.answer is None else {"answer": prompt.answer}
    return known | answer | dict(prompt.beside)


class _Weighed(NamedTuple):
    label: str
    weight: float
    scorer: Scorer


class WeightedRewards:
    """A weighted sum of scores; an answer that a part does not score has nothing of it.

    An answer that no part scores gets the mean of the other answers to its prompt, so that it teaches nothing.

    It keeps what a log should say of the batches since it was asked last, for :func:`told_by`: the mean of each part
    where there are several, and the share of answers that a function did not score.
    """

    def __init__(self, parts: Sequence[RewardPart], scorers: Sequence[Scorer]) -> None:
        named = zip(labels_of(parts), parts, scorers, strict=True)
        self.parts = [_Weighed(label, part.weight, scorer) for label, part, scorer in named]
        self._told: defaultdict[str, list[float]] = defaultdict(list)  # one number for each answer

    @property
    def verifiable(self) -> bool | None:
        """True where all parts are and the weighted sum stays in [0, 1]."""
        weights = np.array([part.weight for part in self.parts])
        known = [part.scorer.verifiable for part in self.parts]
        if False in known or weights[weights < 0].sum() < 0 or weights[weights > 0].sum() > 1 + 1e-9:
            return False
        return None if None in known else True

    def __call__(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Scores:
        """Scores, shape ``(n,)``.

        Raises:
            BadScores: A part gives none, or no answer to a prompt is scored by any.
        """
        total, scored = np.zeros(len(prompts)), np.zeros(len(prompts), dtype=bool)
        for label, weight, scorer in self.parts:
            scores = scorer(prompts, answers)
            here = ~np.isnan(scores) if isinstance(scorer, CheckScorer) else np.ones(len(prompts), dtype=bool)
            total[here] += weight * scores[here]
            scored |= here
            if len(self.parts) > 1:
                self._told[f"reward/{label}"] += scores[here].tolist()
            if isinstance(scorer, CheckScorer) and scorer.part.kind == "function":
                self._told[f"unscored/{label}"] += (~here).astype(float).tolist()
        return total if scored.all() else self._filled(total, scored, prompts)

    def told(self) -> dict[str, float]:
        """What a log should say of the batches since the last call; nan for a part that scored nothing."""
        said = {name: float(np.mean(numbers)) if numbers else float("nan") for name, numbers in self._told.items()}
        self._told.clear()
        return said

    def _filled(self, total: Scores, scored: NDArray[np.bool_], prompts: Sequence[Prompt]) -> Scores:
        asked = np.unique([f"{prompt.id} {prompt.messages}" for prompt in prompts], return_inverse=True)[1]
        for first in dict.fromkeys(asked[~scored].tolist()):
            mine = asked == first
            if not (mine & scored).any():
                names, ident = ", ".join(part.label for part in self.parts), prompts[int(mine.argmax())].id
                raise BadScores(
                    f"{names}: no answer to prompt {ident} was scored (all are None), and the policy was not updated: "
                    "leave such prompts out, or add a reward that scores them"
                )
            total[mine & ~scored] = total[mine & scored].mean()
        return total


def load_scorer(
    given: object,
    *,
    batch_size: int,
    device: torch.device | str,
    seconds: float = SECONDS,
    **loading: Unpack[Loading],
) -> Scorer:
    """What scores answers under these names: one, or several with weights.

    Args:
        given: See ``llm.rewards.names``.
        batch_size: Answers per forward pass of a reward model.
        device: Where reward models are put.
        seconds: Within which a checker or function must score a batch.
        loading: How reward models are loaded.

    Raises:
        ModelError: There is no trained reward model under a name.
        RewardError: A name makes no sense, or a function cannot be loaded.
    """
    parts = parts_of(given)
    scorers = [_scorer(part, batch_size=batch_size, device=device, seconds=seconds, **loading) for part in parts]
    alone = len(parts) == 1 and parts[0].weight == 1 and not isinstance(scorers[0], CheckScorer)
    return scorers[0] if alone else WeightedRewards(parts, scorers)


def _scorer(
    part: RewardPart, *, batch_size: int, device: torch.device | str, seconds: float, **loading: Unpack[Loading]
) -> Scorer:
    if part.name == BUILTIN:
        return ExactChecker()
    if part.kind == "model":
        from .model import load_model

        return load_model(part.name, batch_size=batch_size, device=device, **loading)
    return CheckScorer(part, seconds=seconds)


def check_prompts(given: Sequence[object], prompts: Sequence[Prompt], name: str, *, seconds: float = SECONDS) -> None:
    """Refuse prompts that lack what a checker or function among the given settings asks of them.

    Raises:
        RewardError: One sentence with counts.
    """
    for part in (part for setting in given for part in parts_of(setting)):
        if part.kind in ("checker", "function"):
            CheckScorer(part, seconds=seconds).check(prompts, name)


def told_by(scorer: Scorer) -> dict[str, float]:
    """What a log should say of the batches that were scored since the last call, beside their scores."""
    return scorer.told() if isinstance(scorer, WeightedRewards) else {}


def tokenizers_of(judges: Iterable[Scorer | None]) -> list[PreTrainedTokenizerBase]:
    """What the judges that are models read with, also those in a mixture."""
    flat: list[Any] = []
    for judge in judges:
        flat += [part.scorer for part in judge.parts] if isinstance(judge, WeightedRewards) else [judge]
    return [judge.tokenizer for judge in flat if hasattr(judge, "tokenizer")]


def refused_by(judges: Iterable[PreTrainedTokenizerBase], prompts: Sequence[Prompt]) -> dict[int, str]:
    """Places of prompts whose answers a model with one of these tokenizers cannot read -> why."""
    from ..text.answers import refused_prompts

    found: dict[int, str] = {}
    for judge in judges:
        found = refused_prompts(prompts, judge) | found
    return found
