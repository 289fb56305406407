"""How chats are written into one text: special tokens and role markers, and the turns between them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from llm.data.layouts.base import Chat, Malformed, Message

_THOUGHT = re.compile(r"<think>\s*(</think>\s*)?")  # what some templates open an answer with
_ROLES = {
    **dict.fromkeys(("user", "human", "prompter", "[inst]", "instruction", "input"), "user"),
    **dict.fromkeys(("assistant", "model", "chatbot", "[/inst]", "response", "ai"), "assistant"),
    **dict.fromkeys(("system", "developer", "[system_prompt]"), "system"),
    **dict.fromkeys(("tool", "ipython"), "tool"),
}


class Turn(NamedTuple):
    """One turn as it stands in a text: who speaks, what is said, and whether an end marker closes it."""

    role: str
    content: str
    closed: bool


@dataclass(frozen=True)
class Markup:
    """One way to write a chat into a text.

    Attributes:
        marker: What messages and counts call it.
        opening: What opens a turn; its one group says who speaks.
        assistant: How an assistant's turn opens.
        ends: What closes a turn, or the whole.
        starts: What may stand before the first turn.
        preamble: How a text may begin whose part before the first turn is a system turn.
        closes: Whether every turn but the answer must be closed.
    """

    marker: str
    opening: re.Pattern[str]
    assistant: str
    ends: tuple[str, ...] = ()
    starts: tuple[str, ...] = ()
    preamble: re.Pattern[str] | None = None
    closes: bool = False

    def turns(self, text: str) -> list[Turn] | None:
        """The turns of a text that begins with one; None for any other text."""
        text = text.lstrip()
        preamble = self.preamble.match(text) if self.preamble else None
        for start in self.starts:
            text = text.removeprefix(start).lstrip()
        text = "\n\n" + text  # role markers stand at the beginning of a line
        if not (preamble or self.opening.match(text) or self.opening.match(text, 2)):
            return None
        before, *pieces = self.opening.split(text)
        first = [Turn("system", before.strip(), closed=True)] if before.strip() else []
        return first + [self._turn(*piece) for piece in zip(pieces[::2], pieces[1::2], strict=True)]

    def _turn(self, who: str, content: str) -> Turn:
        bare = self.unended(content)
        return Turn(_ROLES[who.lower()], bare, closed=bare != content.strip())

    def unended(self, text: str) -> str:
        """A text without the markers that close it and without white space around it."""
        text, before = text.strip(), ""
        while text != before:
            before = text
            for end in self.ends:
                text = text.removesuffix(end).rstrip()
        return text

    def waits(self, turns: Iterable[Turn]) -> bool:
        """Whether an answer must come next: its turn is open and empty, or the turn before it is closed."""
        *_, last = turns
        if last.role == "assistant":
            return not last.closed and not _THOUGHT.sub("", last.content, count=1)
        return self.closes and last.closed

    def answered(self, turns: list[Turn]) -> bool:
        """Whether these are turns to the end, of which the last is an answer or its beginning."""
        *before, last = turns
        whole = not any(end in turn.content for turn in turns for end in self.ends)
        begun = self.closes and all(turn.closed for turn in before)
        return bool(whole and before and last.role == "assistant" and last.content and (last.closed or begun))

    def check(self, turns: Iterable[Turn]) -> None:
        """Let only turns pass that were taken apart completely.

        Raises:
            Malformed: There are markers where no turn can begin or end, or a turn says nothing.
        """
        for role, content, closed in turns:
            if (self.closes and not closed and role != "assistant") or any(end in content for end in self.ends):
                raise Malformed(f"the {self.marker} markers of a rendered text do not close where a turn ends")
            if not content:
                raise Malformed(f"a turn between the {self.marker} markers of a rendered text is empty")


def merged(turns: Iterable[Turn]) -> Chat:
    """The turns as messages; those in a row by one speaker, which hh-rlhf has and chat templates refuse, are joined."""
    chat: list[Message] = []
    for role, content, _ in turns:
        if chat and chat[-1]["role"] == role:
            chat[-1]["content"] += "\n\n" + content
        else:
            chat.append({"role": role, "content": content})
    return tuple(chat)


def may_begin(text: str) -> bool:
    """Whether a text begins like one that a markup has written: a quick look that spares most texts the others."""
    return text.lstrip().startswith(_HEADS)


def thought(turn: Turn) -> str:
    """The block of thoughts that a prompt has opened, and not closed, for its answer."""
    return "<think>\n" if turn.content.rstrip() == "<think>" else ""


def _tokens(before: str, after: str, speakers: str) -> re.Pattern[str]:
    return re.compile(f"{re.escape(before)}({speakers}){after}")


def _lines(speakers: str, before: str = r"\n+") -> re.Pattern[str]:
    return re.compile(f"{before}({speakers}):")


_BAR = "\uff5c"  # DeepSeek's
_WHO = "system|user|assistant|tool|developer"
TRANSCRIPT = Markup("Human:", _lines("Human|Assistant", r"\n\n"), "Assistant:")
MARKUPS = (
    Markup("<|im_start|>", _tokens("<|im_start|>", r"(?:\n|<\|im_sep\|>|$)", _WHO), "<|im_start|>assistant\n",
           ("<|im_end|>", "<|endoftext|>"), ("<s>",), closes=True),
    Markup("<|start_header_id|>", _tokens("<|start_header_id|>", r"<\|end_header_id\|>", _WHO + "|ipython"),
           "<|start_header_id|>assistant<|end_header_id|>", ("<|eot_id|>", "<|end_of_text|>"),
           ("<|begin_of_text|>",), closes=True),
    Markup("<start_of_turn>", _tokens("<start_of_turn>", r"(?:\n|$)", "user|model|system"), "<start_of_turn>model\n",
           ("<end_of_turn>", "<eos>"), ("<bos>",), closes=True),
    Markup("<|START_OF_TURN_TOKEN|>", _tokens("<|START_OF_TURN_TOKEN|><|", r"_TOKEN\|>", "USER|CHATBOT|SYSTEM"),
           "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>", ("<|END_OF_TURN_TOKEN|>",), ("<BOS_TOKEN>",), closes=True),
    Markup("<|user|>", _tokens("<|", r"\|>", "system|user|assistant|prompter"), "<|assistant|>",
           ("</s>", "<|end|>", "<|endoftext|>"), ("<s>",)),
    Markup(f"<{_BAR}User{_BAR}>", _tokens(f"<{_BAR}", f"{_BAR}>", "User|Assistant"), f"<{_BAR}Assistant{_BAR}>",
           (f"<{_BAR}end\u2581of\u2581sentence{_BAR}>",), (f"<{_BAR}begin\u2581of\u2581sentence{_BAR}>",),
           re.compile(f"<{_BAR}begin\u2581of\u2581sentence{_BAR}>")),
    Markup("[INST]", re.compile(r"(?:<s>\s*)?(\[/?INST\]|\[SYSTEM_PROMPT\])"), "[/INST]", ("</s>", "[/SYSTEM_PROMPT]"),
           ("<s>",)),
    Markup("### Instruction", re.compile(r"\n+### (Instruction|Input|Response):"), "### Response:", ("</s>",), ("<s>",),
           re.compile(r"(<s>)?\s*Below is an instruction")),
    Markup("### Human", re.compile(r"\n*### (System|Human|User|Assistant):"), "### Assistant:", ("</s>",), ("<s>",)),
    TRANSCRIPT,
    Markup("AI:", _lines("Human|AI|Assistant"), "AI:"),
    Markup("User:", _lines("System|User|Assistant|Human"), "Assistant:"),
    Markup("USER:", re.compile(r"(?:\s+|(?<=</s>))(USER|ASSISTANT|SYSTEM):"), "ASSISTANT:", ("</s>",), ("<s>",),
           re.compile(r"(<s>)?\s*A chat between")),
)  # fmt: skip
_HEADS = ("<", "[", "### ", "Below is an instruction", "A chat between", *(
    f"{name}:" for name in ("Human", "AI", "Assistant", "User", "System", "USER", "ASSISTANT", "SYSTEM")
))  # fmt: skip
