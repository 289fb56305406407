"""From pairs to token ids: rendering, truncation that protects the answer, special tokens, padding.

Rendering. A tokenizer with a chat template renders the chat itself. Without one the plain layout is used:
every message is ``Role: content``, a blank line stands between messages, the prompt ends in ``Assistant:``.

Truncation. The answer is kept whole and the prompt loses its beginning, because what the answer replies to
stands at the end. An answer too long by itself keeps its beginning, and the prompt goes altogether.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from llm.data import DataError, Message, Pair

if TYPE_CHECKING:
    import torch

__all__ = ["EncodedPairs", "PairCollator", "Truncation", "encode_pairs"]
_log = logging.getLogger(__name__)
_BATCH = 1000  # texts per call of the tokenizer: large enough for its own batching, small enough for a bar


@dataclass
class Truncation:
    """What did not fit into ``max_length``.

    Attributes:
        pairs: Pairs encoded.
        prompts_cut: Pairs whose prompt lost tokens beside at least one of their two answers.
        answers_cut: Answers that lost tokens, out of ``2 * pairs``.
        tokens_cut: Tokens lost altogether.
    """

    pairs: int = 0
    prompts_cut: int = 0
    answers_cut: int = 0
    tokens_cut: int = 0


class EncodedPair(TypedDict):
    """The two token sequences of the pair at ``index``, special tokens included."""

    index: int
    chosen: list[int]
    rejected: list[int]


class EncodedPairs:
    """A map-style dataset of encoded pairs.

    Attributes:
        pairs: The pairs themselves, in the order of the items.
        truncation: What was cut.
    """

    def __init__(self, pairs: Sequence[Pair], items: list[EncodedPair], truncation: Truncation):
        self.pairs = pairs
        self.truncation = truncation
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> EncodedPair:
        return self._items[index]


class _Frame(NamedTuple):
    """The special tokens around one sequence."""

    prefix: list[int]
    suffix: list[int]


class _Texts(NamedTuple):
    """A rendered conversation, cut where the answer begins."""

    prompt: str
    answer: str


class _Ids(NamedTuple):
    """Its tokens, none of them special."""

    prompt: list[int]
    answer: list[int]


def encode_pairs(pairs: Sequence[Pair], tokenizer: Any, *, max_length: int, progress: bool = False) -> EncodedPairs:
    """Tokenise both answers of every pair after their prompt, in at most ``max_length`` tokens each.

    Args:
        pairs: The pairs.
        tokenizer: A transformers tokenizer, fast or slow.
        max_length: Tokens per sequence, special tokens included.
        progress: Show a bar on stderr.

    Raises:
        ValueError: ``max_length`` leaves no room for text.
        DataError: The chat template refuses a chat; the message names the pair.
    """
    frame = _frame(tokenizer)
    room = max_length - len(frame.prefix) - len(frame.suffix)
    if room < 1:
        raise ValueError(
            f"max_length includes the {max_length - room} special tokens of this tokenizer and must be "
            f"at least {max_length - room + 1}, got {max_length}; use 128 or more for real text."
        )
    items: list[EncodedPair] = []
    truncation = Truncation()
    for batch in _batches(pairs, progress=progress):
        for texts in _tokenised([_rendered(pair, tokenizer) for pair in batch], tokenizer):
            chosen, rejected = (_joined(*ids, frame, room) for ids in texts)
            _count(truncation, texts, room)
            items.append({"index": len(items), "chosen": chosen, "rejected": rejected})
    if truncation.tokens_cut:
        _log.info("max_length %d: %s", max_length, truncation)
    return EncodedPairs(pairs, items, truncation)


def _batches(pairs: Sequence[Pair], *, progress: bool) -> Iterable[Sequence[Pair]]:
    starts = range(0, len(pairs), _BATCH)
    if progress:
        from rich.console import Console
        from rich.progress import track

        starts = track(starts, description="tokenising", console=Console(stderr=True))
    return (pairs[start : start + _BATCH] for start in starts)


# Rendering


def _rendered(pair: Pair, tokenizer: Any) -> tuple[_Texts, _Texts]:
    render = _plain if not tokenizer.chat_template else _templated
    return render(pair, pair.chosen, tokenizer), render(pair, pair.rejected, tokenizer)


def _plain(pair: Pair, answer: str, tokenizer: Any) -> _Texts:
    del tokenizer  # the signature is shared with _templated
    turns = [f"{message['role'].capitalize()}: {message['content']}" for message in pair.prompt]
    return _Texts("\n\n".join([*turns, "Assistant:"]), " " + answer)


def _templated(pair: Pair, answer: str, tokenizer: Any) -> _Texts:
    """Cut the rendered conversation where the answer begins.

    That is where the rendered prompt ends. Some templates render the prompt alone differently (an empty block
    of thoughts, say); then it is where the answer's text last occurs, and failing that everything is answer.
    """
    from jinja2 import TemplateError

    whole: list[Message] = [*pair.prompt, {"role": "assistant", "content": answer}]
    try:
        prompt = tokenizer.apply_chat_template(list(pair.prompt), add_generation_prompt=True, tokenize=False)
        text = tokenizer.apply_chat_template(whole, tokenize=False)
    except TemplateError as error:
        raise DataError(f"The chat template refuses the chat of pair {pair.id!r}: {error}.") from error
    cut = len(prompt) if text.startswith(prompt) else max(text.rfind(answer.strip()), 0)
    return _unframed(_Texts(text[:cut], text[cut:]), tokenizer)


def _unframed(texts: _Texts, tokenizer: Any) -> _Texts:
    """Take the template's own first and last special token off; the frame puts them back."""
    prompt, answer = texts
    if tokenizer.bos_token:
        prompt = prompt.removeprefix(tokenizer.bos_token)
    if tokenizer.eos_token and answer.rstrip().endswith(tokenizer.eos_token):
        answer = answer.rstrip().removesuffix(tokenizer.eos_token)
    return _Texts(prompt, answer)


# Tokens


def _tokenised(batch: list[tuple[_Texts, _Texts]], tokenizer: Any) -> list[list[_Ids]]:
    """Return (prompt, answer) ids for the two sequences of every pair; equal texts are tokenised once."""
    unique = list(dict.fromkeys(text for pair in batch for texts in pair for text in texts))
    ids = dict(zip(unique, _ids(tokenizer, unique), strict=True))
    return [[_Ids(ids[prompt], ids[answer]) for prompt, answer in pair] for pair in batch]


def _ids(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    # verbose=False: a warning about texts longer than the model, which are truncated here anyway
    encoded = tokenizer(
        texts,
        add_special_tokens=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    return encoded["input_ids"]


def _frame(tokenizer: Any) -> _Frame:
    """Learn the special tokens around one sequence from the tokenizer itself.

    They are what it adds around a probe. A beginning that only the chat template writes counts too. Where
    nothing is added at the end, the end-of-sequence token is: a causal classifier reads its score off the
    last token, which is then the same one for every text, cut or not.
    """
    prefix, suffix = next(filter(None, (_around(tokenizer, probe) for probe in "a0.")), ([], []))
    if not prefix and tokenizer.chat_template and tokenizer.bos_token:
        chat: list[Message] = [{"role": "user", "content": "a"}]
        if tokenizer.apply_chat_template(chat, tokenize=False).startswith(tokenizer.bos_token):
            prefix = [tokenizer.bos_token_id]
    if not suffix and tokenizer.eos_token_id is not None:
        suffix = [tokenizer.eos_token_id]
    return _Frame(prefix, suffix)


def _around(tokenizer: Any, probe: str) -> tuple[list[int], list[int]] | None:
    """Return the ids before and after ``probe`` in its full encoding, or None where it has no tokens."""
    (bare,), full = _ids(tokenizer, [probe]), tokenizer(probe)["input_ids"]
    for start in range(len(full) - len(bare) + 1):
        if bare and full[start : start + len(bare)] == bare:
            return full[:start], full[start + len(bare) :]
    return None


def _joined(prompt: list[int], answer: list[int], frame: _Frame, room: int) -> list[int]:
    kept = answer[:room]
    start = max(0, len(prompt) - (room - len(kept)))
    return [*frame.prefix, *prompt[start:], *kept, *frame.suffix]


def _count(truncation: Truncation, texts: list[_Ids], room: int) -> None:
    truncation.pairs += 1
    truncation.prompts_cut += any(prompt and len(prompt) + len(answer) > room for prompt, answer in texts)
    truncation.answers_cut += sum(len(answer) > room for _, answer in texts)
    truncation.tokens_cut += sum(max(0, len(prompt) + len(answer) - room) for prompt, answer in texts)


class PairCollator:
    """Pad a list of encoded pairs into one batch.

    The batch has ``input_ids`` and ``attention_mask`` of shape ``(2 b, length)``, first the b chosen
    sequences, then the b rejected ones, and ``index`` of shape ``(b,)``. Padding is on the padding side.
    """

    def __init__(self, tokenizer: Any, pad_to_multiple_of: int = 8):
        if tokenizer.pad_token_id is None:
            raise ValueError(
                "The tokenizer has no padding token, and batches need one; "
                "set tokenizer.pad_token (and model.config.pad_token_id) first."
            )
        self.pad_id: int = tokenizer.pad_token_id
        self.left: bool = tokenizer.padding_side == "left"
        self.multiple = pad_to_multiple_of

    def __call__(self, items: Sequence[EncodedPair]) -> dict[str, torch.Tensor]:
        """Return the batch of ``items``."""
        import torch

        rows = [item["chosen"] for item in items] + [item["rejected"] for item in items]
        length = -(-max(map(len, rows)) // self.multiple) * self.multiple
        return {
            "input_ids": torch.tensor([self._padded(row, self.pad_id, length) for row in rows]),
            "attention_mask": torch.tensor([self._padded([1] * len(row), 0, length) for row in rows]),
            "index": torch.tensor([item["index"] for item in items]),
        }

    def _padded(self, row: list[int], fill: int, length: int) -> list[int]:
        padding = [fill] * (length - len(row))
        return padding + row if self.left else row + padding
