"""What a reward model reads of pairs, chats with answers and written-out conversations, and the rewards of that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from ..data.layouts import Pair
from ..models.rewards import RewardBatches, rewards_of
from ..text.answers import AnswerEncoder
from ..text.encoding import PairEncoder
from ..text.rendering import Refused
from ..text.window import Sequences
from .items import Answered

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MULTIPLE = 8  # as in evaluation: lengths of batches are multiples of this


@dataclass(frozen=True)
class Written:
    """A conversation that is written out already, special tokens included.

    Attributes:
        text: All of it.
        prompt: The beginning of it that is the prompt; "" where that is not known.
    """

    text: str
    prompt: str = ""


@dataclass(frozen=True)
class ReadItem:
    """What a model reads of one item.

    Attributes:
        rows: Tokens of each of its answers; of a pair the chosen one's first.
        cut: Whether any of it was left out to fit.
        reason: Why it is not judged; there may be rows all the same.
    """

    rows: tuple[list[int], ...] = ()
    cut: bool = False
    reason: str = ""


class RewardReader:
    """Reads items as training and evaluation do, and scores what it read.

    Args:
        model: A sequence classifier with one output.
        tokenizer: Its own.
        max_length: Tokens of a prompt with an answer; longer ones lose the middle of the prompt, then the end of the
            answer.
        batch_size: Pairs per forward pass, so twice as many sequences.
        batch_tokens: At most so many tokens per forward pass, padding included; None: no limit.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int,
        batch_size: int = 32,
        batch_tokens: int | None = None,
    ) -> None:
        self.model, self.max_length = model, max_length
        self.pad = cast(int, tokenizer.pad_token_id)
        self.batches = RewardBatches(2 * batch_size, batch_tokens, MULTIPLE, max_length)
        self._pairs, self._answers = PairEncoder(tokenizer, max_length), AnswerEncoder(tokenizer, max_length)

    def read(self, items: Sequence[Pair | Answered | Written]) -> list[ReadItem]:
        """What is read of each item, in their order.

        Raises:
            ValueError: ``max_length`` leaves no room for text.
        """
        pairs = [item for item in items if isinstance(item, Pair)]
        chats = [item for item in items if isinstance(item, Answered) and not item.reason]
        texts = [item for item in items if isinstance(item, Written)]
        seen = iter(self._pairs.read(pairs) if pairs else [])
        answered = iter(self._answers.read([(item.chat, item.answers) for item in chats]))
        written = iter(self._answers.read_written([(item.text, item.prompt) for item in texts]))
        found: list[ReadItem] = []
        for item in items:
            if isinstance(item, Pair):
                one = next(seen)
                rows = (one.item["chosen"], one.item["rejected"]) if one.item else ()
                found.append(ReadItem(rows, one.tokens_cut > 0, one.reason))
            elif isinstance(item, Answered) and item.reason:
                found.append(ReadItem(reason=item.reason))
            else:
                found.append(_item(next(written if isinstance(item, Written) else answered)))
        return found

    def rewards(
        self, items: Sequence[ReadItem], wanted: Callable[[int], bool] = lambda item: True
    ) -> list[list[float]]:
        """Rewards of the rows of each item; nan and infinities as the model gives them.

        Args:
            items: As from ``read``.
            wanted: Asked before each forward pass whether an item's rewards are still wanted.
        """
        rows = [item.rows for item in items]
        return [rewards.tolist() for rewards in rewards_of(self.model, rows, self.pad, self.batches, wanted)]


def _item(found: Sequences | Refused) -> ReadItem:
    if isinstance(found, Refused):
        return ReadItem(reason=str(found))
    cut = found.room.window.cut > 0 or found.answers_cut > 0
    return ReadItem(tuple(ids for ids, _ in found.rows), cut)


def reader_of(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, max_length: int | None = None, **batches: Any
) -> RewardReader:
    """A reader of a loaded model; ``max_length`` None: as in training.

    Raises:
        ModelError: ``max_length`` is more than the model has positions for.
        ValueError: A number makes no sense.
    """
    from ..models.architectures import check_length, reading_length

    check_numbers(max_length=max_length, **batches)
    length = reading_length(model, tokenizer) if max_length is None else max_length
    check_length(model, length)
    return RewardReader(model, tokenizer, max_length=length, **batches)


def check_numbers(**numbers: float | None) -> None:
    """Refuse what is below 1; raises ``ValueError``."""
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")
