"""From a rendered conversation to its tokens, and which of them belong to the answer.

The conversation is read as one text, as whoever serves the model reads it. A token that holds characters of the prompt
and of the answer belongs to the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from llm.data.pairs import Message
from llm.text.alignment import Aligned, tokenised
from llm.text.as_text import AsText
from llm.text.beginnings import separable
from llm.text.rendering import Refused, Rendered, Renderer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PROBE = "\U000f8000"  # a text that no data have
# The shortest conversations there are; templates may ask for a system turn, or for earlier ones.
_TURNS = (("user",), ("system", "user"), ("user", "assistant", "user"), ("system", "user", "assistant", "user"))


class Tokens(NamedTuple):
    """A conversation as tokens, special ones included.

    Attributes:
        ids: All of them.
        answer: The first token that holds a character of the answer,
        text_end: the first one behind its text,
        end: and the one after the token that ends it, where there is one.
    """

    ids: list[int]
    answer: int
    text_end: int
    end: int


class Frame(NamedTuple):
    """Tokens that stand around texts, whatever the texts are.

    Attributes:
        start: Before the first message's text.
        end: Between the last message's text and the answer.
        after: After the answer's text.
    """

    start: int
    end: int
    after: int


@dataclass(frozen=True)
class Edges:
    """What is put around a text that does not have it.

    Attributes:
        prefix: At its beginning.
        suffix: At its end.
        always: Whether the suffix is put there although the template ends the text by a token.
    """

    prefix: list[int]
    suffix: list[int]
    always: bool


class Ending(NamedTuple):
    """How a tokenizer's conversations end.

    Attributes:
        token: What ends an answer; None where nothing does.
        rest: What the template writes from that token on; "" where it does not write it.
        before: What is put before the text of a conversation,
        after: and behind it, that the template does not write.
        unread: White space behind an answer that is left out before that.
    """

    token: int | None
    rest: str
    before: list[int]
    after: list[int]
    unread: str


class Reader:
    """How one tokenizer reads conversations.

    With a chat template the tokens are those of ``apply_chat_template(chat, tokenize=True)``; where it writes nothing
    that ends an answer, the end-of-sequence token follows. Without one, special tokens stand around the text as the
    tokenizer puts them there, and an end-of-sequence token in any case: a causal classifier reads its score off the
    last token. Tokenizers that put tokens at both ends (encoders) do so with a template, too.

    Attributes:
        renderer: How it writes them.
        written: Tokens it puts before and behind any text by itself.
        edges: What is put around a conversation here.

    Args:
        tokenizer: Of transformers; fast, or a slow one, whose tokens are aligned by reading beginnings of the text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.renderer = Renderer(tokenizer)
        self._tokenizer: Any = tokenizer
        self._ends, self._apart = _ends(tokenizer), separable(tokenizer)
        self._as_text = AsText(tokenizer, self.renderer)
        self.written = next(filter(None, (_around(tokenizer, probe) for probe in "a0.")), ([], []))
        self.edges = self._edges()

    def answered(self, groups: Sequence[Sequence[Rendered]], *, strict: bool = True) -> list[list[Tokens]]:
        """Tokens of all conversations, group by group.

        Args:
            groups: The conversations.
            strict: Refuse a text that reads like a special token and cannot be read as text; else it is read as one.

        Raises:
            Refused: There is such a text.
        """
        read = iter(self._read([rendered for group in groups for rendered in group], strict=strict))
        return [[self._framed(rendered, next(read)) for rendered in group] for group in groups]

    def asked(self, prompts: Sequence[Rendered]) -> list[list[int]]:
        """Tokens that an answer follows on.

        Raises:
            Refused: A text that reads like a special token cannot be read as text.
        """
        return [[*self._prefix(read.ids), *read.ids] for read in self._read(prompts)]

    def written_out(self, texts: Sequence[tuple[str, str]]) -> list[Tokens]:
        """Tokens of conversations that are written out already, their special tokens read as such.

        Padding at the end of a text is left out.

        Args:
            texts: The conversation, and its beginning that is the prompt; where that is "", all is.
        """
        rendered = [self._written_out(text, prompt) for text, prompt in texts]
        read = tokenised(self._tokenizer, [text.text for text in rendered], split=False, apart=self._apart)
        return [self._framed(text, found) for text, found in zip(rendered, read, strict=True)]

    def _written_out(self, text: str, prompt: str) -> Rendered:
        """What ends the answer stands behind it, and the answer behind the prompt."""
        padding = str(self._tokenizer.pad_token or "")
        if padding and self._tokenizer.pad_token_id not in self._closing():
            while text.endswith(padding):
                text = text.removesuffix(padding)
        end, least = len(text), len(prompt) if prompt and text.startswith(prompt) else 0
        for found in reversed(list(self.renderer.matches(text))):
            if found.start() < least or text[found.end() : end].strip():
                break
            end = found.start()
        return Rendered(text, least or end, end)

    def _closing(self) -> set[int]:
        return {*self.edges.suffix, self._tokenizer.eos_token_id}

    def frame(self, chat: Sequence[Message] = (), answer: str = "b") -> Frame:
        """Tokens around the texts of a short conversation.

        Args:
            chat: A chat and its answer that the template writes, in case it refuses all short ones.
            answer: This answer.
        """
        tried: list[list[Message]] = [[{"role": role, "content": _PROBE} for role in roles] for roles in _TURNS]
        for messages, reply in [*((short, "b") for short in tried), (_probed(chat), answer)]:
            try:
                (whole,) = self.renderer.answered(messages, [reply])
            except Refused:
                continue
            if _PROBE in whole.text:
                return self._around(whole)
        return Frame(len(self.edges.prefix), 0, len(self.edges.suffix))

    def _around(self, whole: Rendered) -> Frame:
        first, last = whole.text.find(_PROBE), whole.text.rfind(_PROBE) + 1
        rendered = whole._replace(text=whole.text.replace(_PROBE, "a"))
        (read,) = self._read([rendered])
        tokens = self._framed(rendered, read)
        prefix = len(self._prefix(read.ids))
        between = tokens.answer - prefix - read.behind(last)
        return Frame(prefix + read.before(first), max(between, 0), len(tokens.ids) - tokens.text_end)

    def ending(self) -> Ending:
        """What follows the text of an answer in a short conversation, and what is put around the whole.

        Raises:
            Refused: The template refuses even that.
        """
        whole = self._short()
        (read,) = self._read([whole])
        tokens, prefix, tail = self._framed(whole, read), self._prefix(read.ids), whole.text[whole.end :]
        closed = tokens.end > tokens.text_end
        token = tokens.ids[tokens.end - 1] if closed else None
        place = -1 if token is None else tail.find(str(self._tokenizer.convert_ids_to_tokens(token)))
        rest = tail[place:] if place >= 0 else ""
        added = tokens.ids[len(prefix) :] != read.ids
        unread = (
            tail if added and len(tokens.ids) == len(prefix) + read.behind(whole.end) + len(self.edges.suffix) else ""
        )
        return Ending(token, rest, prefix, self.edges.suffix if added else [], unread)

    def special_text(self, ids: Sequence[int]) -> str:
        """Special tokens as text, which the tokenizer reads as these tokens."""
        return "".join(self._tokenizer.convert_ids_to_tokens(list(ids)))

    def _short(self) -> Rendered:
        refused: Refused | None = None
        for roles in _TURNS:
            try:
                return self.renderer.answered([{"role": role, "content": "a"} for role in roles], ["b"])[0]
            except Refused as reason:
                refused = refused or reason
        raise refused or Refused("there is no short conversation")

    def _edges(self) -> Edges:
        (prefix, suffix), end = self.written, self._tokenizer.eos_token_id
        ends = [] if end is None else [end]
        if self.renderer.template is not None and not (prefix and suffix):
            return Edges([], ends, always=False)
        return Edges(prefix, suffix or ends, always=True)

    def _prefix(self, ids: list[int]) -> list[int]:
        prefix = self.edges.prefix
        return [] if ids[: len(prefix)] == prefix else prefix

    def _framed(self, rendered: Rendered, read: Aligned) -> Tokens:
        prefix, ids = self._prefix(read.ids), read.ids
        text_end = read.behind(rendered.end)
        end = next((i + 1 for i in range(text_end, len(ids)) if ids[i] in self._ends), None)
        suffix = self.edges.suffix
        if suffix and (end is None or (self.edges.always and not set(suffix) <= set(ids[text_end:]))):
            blank = end is None and not rendered.text[rendered.end :].strip()
            ids = [*(ids[:text_end] if blank else ids), *suffix]
            end = len(ids) if end is None else end
        ids, shift = [*prefix, *ids], len(prefix)
        answer, text_end = (shift + place for place in (min(read.before(rendered.start), text_end), text_end))
        return Tokens(ids, answer, text_end, text_end if end is None else shift + end)

    def _read(self, texts: Sequence[Rendered], *, strict: bool = True) -> list[Aligned]:
        plain = self.renderer.template is None
        rows = tokenised(self._tokenizer, [text.text for text in texts], split=plain, apart=self._apart)
        if plain:
            return rows
        for place, text in enumerate(texts):
            if text.literal and (found := self._as_text.read(text)):
                rows[place] = found
            elif text.literal and strict:
                raise Refused("its text reads like a special token, and this tokenizer cannot read that as text")
        return rows


def _probed(chat: Sequence[Message]) -> list[Message]:
    """A chat with probes at the beginning of its first text and at the end of its last."""
    found = [*chat]
    for place, before, after in ((0, _PROBE, ""), (-1, "", _PROBE)):
        if found:
            found[place] = {**found[place], "content": f"{before}{found[place]['content']}{after}"}
    return found


def end_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Tokens that end an answer: what the template, if there is one, writes after it, and the end-of-sequence token."""
    try:
        ending = Reader(tokenizer).ending().token if tokenizer.chat_template else None
    except Refused:  # no chat of one turn: nothing is known of its answers
        ending = None
    return {token for token in (ending, tokenizer.eos_token_id) if token is not None}  # pyright: ignore


def _ends(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Tokens that may end an answer: those that are added to the texts', but for white space."""
    added = {i for i, token in tokenizer.added_tokens_decoder.items() if str(token).strip(" \n\t\r▁")}
    return added | set(tokenizer.all_special_ids)


def _around(tokenizer: PreTrainedTokenizerBase, probe: str) -> tuple[list[int], list[int]] | None:
    """Return the ids before and after ``probe`` in its full encoding, or None where it has no tokens."""
    bare, full = tokenizer(probe, add_special_tokens=False)["input_ids"], tokenizer(probe)["input_ids"]
    for start in range(len(full) - len(bare) + 1):
        if bare and full[start : start + len(bare)] == bare:
            return full[:start], full[start + len(bare) :]
    return None
