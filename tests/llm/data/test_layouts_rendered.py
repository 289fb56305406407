"""Chats that somebody has rendered already become turns again, or are refused by the name of their marker."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pair_layouts import CHAT, QUESTION

from llm.data.layouts import mentioned
from llm.data.objects import pairs_of
from llm.data.pairs import DataError, Pair

BAR, LOW = "\uff5c", "\u2581"
SYSTEM = ({"role": "system", "content": "Be brief."},)


def tokens(before, after, end, *, start="", names=()):
    """A template that writes every turn as ``before`` role ``after`` content ``end``."""
    named = dict(names)

    def render(chat):
        turns = "".join(f"{before}{named.get(m['role'], m['role'])}{after}{m['content']}{end(m['role'])}" for m in chat)
        return f"{start}{turns}", f"{before}{named.get('assistant', 'assistant')}{after}"

    return render


def inst(chat):
    """Llama 2, as its template writes it."""
    system, turns = ("", chat) if chat[0]["role"] != "system" else (chat[0]["content"], chat[1:])
    text = ""
    for place, message in enumerate(turns):
        said = message["content"]
        if place == 0 and system:
            said = f"<<SYS>>\n{system}\n<</SYS>>\n\n{said}"
        text += f"<s>[INST] {said} [/INST]" if message["role"] == "user" else f" {said} </s>"
    return text, ""


def mistral(chat):
    system = "".join(f"[SYSTEM_PROMPT]{m['content']}[/SYSTEM_PROMPT]" for m in chat if m["role"] == "system")
    turns = (f"[INST]{m['content']}[/INST]" if m["role"] == "user" else f"{m['content']}</s>"
             for m in chat if m["role"] != "system")  # fmt: skip
    return "<s>" + system + "".join(turns), ""


def alpaca(chat):
    names = {"user": "### Instruction:\n", "assistant": "### Response:\n", "system": ""}
    return "\n\n".join(names[m["role"]] + m["content"] for m in chat), "\n\n### Response:\n"


def always(text):
    return lambda role: text


def after_answers(text, other=""):
    return lambda role: text if role == "assistant" else other


GEMMA = {"assistant": "model"}
COHERE = {"user": "USER", "assistant": "CHATBOT", "system": "SYSTEM"}
HH = {"user": "Human", "assistant": "Assistant", "system": "System"}
UPPER = {"user": "USER", "assistant": "ASSISTANT", "system": "SYSTEM"}
CAPITAL = {"user": "User", "assistant": "Assistant", "system": "System"}
RENDERINGS = {  # by the marker that messages name; the end that an answer may carry
    "<|im_start|>": (tokens("<|im_start|>", "\n", always("<|im_end|>\n")), "<|im_end|>"),
    "<|start_header_id|>": (
        tokens("<|start_header_id|>", "<|end_header_id|>\n\n", always("<|eot_id|>"), start="<|begin_of_text|>"),
        "<|eot_id|>",
    ),
    "<start_of_turn>": (
        tokens("<start_of_turn>", "\n", always("<end_of_turn>\n"), start="<bos>", names=GEMMA), "<end_of_turn>",
    ),
    "<|START_OF_TURN_TOKEN|>": (
        tokens("<|START_OF_TURN_TOKEN|><|", "_TOKEN|>", always("<|END_OF_TURN_TOKEN|>"), start="<BOS_TOKEN>",
               names=COHERE), "<|END_OF_TURN_TOKEN|>",
    ),
    "<|user|>": (tokens("<|", "|>\n", always("</s>\n")), "</s>"),
    "<|user|> of Tulu": (tokens("<|", "|>\n", always("\n")), "</s>"),
    "<|user|> of Phi": (tokens("<|", "|>\n", always("<|end|>\n")), "<|end|>"),
    f"<{BAR}User{BAR}>": (
        tokens(f"<{BAR}", f"{BAR}>", after_answers(f"<{BAR}end{LOW}of{LOW}sentence{BAR}>"),
               start=f"<{BAR}begin{LOW}of{LOW}sentence{BAR}>", names=CAPITAL),
        f"<{BAR}end{LOW}of{LOW}sentence{BAR}>",
    ),
    "[INST]": (inst, "</s>"),
    "[INST] of Mistral": (mistral, "</s>"),
    "### Instruction": (alpaca, "</s>"),
    "### Human": (tokens("### ", ": ", always("\n"), names=HH), ""),
    "Human:": (tokens("\n\n", ": ", always(""), names=HH), ""),
    "AI:": (tokens("\n", ": ", always(""), names={"user": "Human", "assistant": "AI"}), ""),
    "User:": (tokens("", ": ", always("\n\n"), names=CAPITAL), ""),
    "USER:": (tokens("", ": ", after_answers("</s>", " "), names=UPPER), "</s>"),
}  # fmt: skip
CLOSING = ("<|im_start|>", "<|start_header_id|>", "<start_of_turn>", "<|START_OF_TURN_TOKEN|>")
NO_SYSTEM = (f"<{BAR}User{BAR}>", "### Instruction", "Human:", "AI:")  # written as a preamble, or not at all
CHATS = {"question": QUESTION, "chat": CHAT, "system": (*SYSTEM, *CHAT)}


def row_of(prompt, chosen="Here, see.", rejected="Nowhere", **more):
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **more}


def cases():
    return [
        pytest.param(marker, CHATS[chat], id=f"{marker}-{chat}")
        for marker in RENDERINGS for chat in CHATS if chat != "system" or marker not in NO_SYSTEM
    ]  # fmt: skip


@pytest.mark.parametrize(("marker", "chat"), cases())
def test_a_rendered_prompt_is_the_chat_that_was_rendered(marker, chat):
    render, end = RENDERINGS[marker]
    text, opening = render(chat)
    expected = [Pair("a-0", chat, "Here, see.", "Nowhere")]
    ways = {
        "bare": row_of(text + opening),
        "with ends": row_of(text + opening, f" Here, see.{end}", f" Nowhere{end}\n"),
        "repeated": row_of(text + opening, f"{text}{opening} Here, see.", f"{text}{opening}Nowhere{end}"),
        "as a message": row_of([{"role": "user", "content": text + opening}]),
    }
    if opening.strip():
        ways["opened by the answers"] = row_of(text, f"{opening}Here, see.{end}", f"{opening}Nowhere")
    if marker in CLOSING:
        ways["not opened at all"] = row_of(text)
    for way, row in ways.items():
        read = pairs_of([row], name="a")
        assert read.pairs == expected, way
        assert list(read.noted.values()) == [1], way
    whole = [{name: render([*chat, {"role": "assistant", "content": said}])[0]
              for name, said in (("chosen", "Here, see."), ("rejected", "Nowhere"))}]  # fmt: skip
    assert pairs_of(whole, name="a").pairs == expected


plain = st.text("abcxyz ÄÖ.,?\n", min_size=1, max_size=30).map(str.strip).filter(bool)
turns = st.lists(plain, min_size=1, max_size=5).filter(lambda texts: len(texts) % 2 == 1)


@settings(max_examples=60, deadline=None)
@given(turns, plain, st.sampled_from(list(RENDERINGS)))
def test_any_chat_comes_back(texts, answer, marker):
    chat = tuple({"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts))
    render, end = RENDERINGS[marker]
    text, opening = render(chat)
    row = row_of(text + opening, f"{answer}{end}", f"not {answer}{end}")
    (pair,) = pairs_of([row]).pairs
    assert (pair.prompt, pair.chosen, pair.rejected) == (chat, answer, f"not {answer}")


ORDINARY = [
    "What does <|im_start|>user mean in a prompt?",
    "<|im_start|> is a token of which models?",
    "<|im_start|>user\nHi<|im_end|>\nWhich format is this?",
    "[INST] and [/INST] stand where in a prompt of Llama 2?",
    "[INST] What is this?",
    "<s>old price</s> new price: how is this called in HTML?",
    "<start_of_turn>user: is that a marker?",
    "### Instruction manuals\nWho reads them?",
    "Human: what makes one?",
    "Human: Hello\n\nAssistant: Hi\n\nWhat comes next in this dialogue, and why?",
    "User: the person who uses. Assistant: the one who helps. Is this right?",
    "Explain this log:\n\nUser: root\nAssistant:",
    "Question: Where is Ünna?\nAnswer:",
    "<|user|> is what?",
]


@pytest.mark.parametrize("text", ORDINARY)
def test_a_text_that_only_mentions_a_marker_stays_as_it_is(text):
    read = pairs_of([row_of(text)], name="a")
    assert read.pairs == [Pair("a-0", ({"role": "user", "content": text},), "Here, see.", "Nowhere")]
    assert read.noted == {}


def test_mentioned_markers_are_found_wherever_they_stand():
    asked = ({"role": "user", "content": "Is <|im_end|> a token?"},)
    assert mentioned(Pair("a", asked, "Yes, like </s>.", "No.")) == {"<|im_end|>", "</s>"}
    assert mentioned(Pair("a", asked, "Yes", "No")) == {"<|im_end|>"}
    assert mentioned(Pair("a", QUESTION, "Here", "There")) == set()


REFUSED = [
    ("<|im_start|>user\nHi\n<|im_start|>assistant\n", r"the <\|im_start\|> markers of a rendered text do not close"),
    ("<|im_start|>user\nHi<|im_end|> and <|im_end|>\n<|im_start|>assistant\n", r"<\|im_start\|> markers .* do not"),
    ("<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n", r"a turn between the <\|im_start\|> markers .* is empty"),
    ("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>assistant\n", "has no turn of a user"),
    ("<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|start_header_id|>assistant<|end_header_id|>",
     r"<\|start_header_id\|> markers"),
    ("<start_of_turn>user\nHi\n<start_of_turn>model\n", "<start_of_turn> markers"),
    ("<s>[INST] Hi [/INST] A </s> b [INST] c [/INST]", r"\[INST\] markers"),
    ("[INST][/INST]", r"a turn between the \[INST\] markers of a rendered text is empty"),
    ("User:\nAssistant:", "a turn between the User: markers"),
    ("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n", r"im_start\|>\) and ends in an an"),
    ("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nSure, ", "ends in an answer"),
    ("<s>[INST] Hi [/INST] Hello</s>", r"\(\[INST\]\) and ends in an answer"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), REFUSED, ids=range(len(REFUSED)))
def test_a_rendered_prompt_that_cannot_be_taken_apart_is_refused_by_its_marker(text, message):
    good = row_of("Where?")
    with pytest.raises(DataError, match=f"row 2: .*{message}.*as a list of messages"):
        pairs_of([good, row_of(text), good])


def test_a_thought_that_the_prompt_opens_belongs_to_the_answers():
    prompt = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    for opened, before in (("<think>\n", "<think>\n"), ("<think>\n\n</think>\n\n", "")):
        (pair,) = pairs_of([row_of(prompt + opened, "a</think>b", "c</think>d")]).pairs
        assert (pair.chosen, pair.rejected) == (before + "a</think>b", before + "c</think>d")


def test_a_prompt_is_repeated_only_where_both_answers_go_on_after_all_of_it():
    asked = "Which tea keeps me awake?"
    (pair,) = pairs_of([row_of(asked, f"{asked} Black.", f"{asked}\nGreen.")]).pairs
    assert (pair.chosen, pair.rejected) == ("Black.", "Green.")
    for prompt, chosen, rejected in (
        (asked, f"{asked} Black.", "Green."), (asked, f"{asked} Black.", asked), (asked, f"{asked}! a", f"{asked}! b"),
        ("Hello", "Hello there", "Hello you"),
    ):  # fmt: skip
        (pair,) = pairs_of([row_of(prompt, chosen, rejected)]).pairs
        assert (pair.chosen, pair.rejected) == (chosen, rejected)


def test_rendered_answers_to_a_plain_prompt_are_taken_apart():
    render, end = RENDERINGS["<|im_start|>"]
    whole = [render([*QUESTION, {"role": "assistant", "content": said}])[0] for said in ("Here.", "There.")]
    turns_alone = [f"<|im_start|>assistant\n{said}{end}" for said in ("Here.", "There.")]
    for answers in (whole, turns_alone):
        (pair,) = pairs_of([row_of(QUESTION[0]["content"], *answers)]).pairs
        assert (pair.prompt, pair.chosen, pair.rejected) == (QUESTION, "Here.", "There.")
    dialogues = ["User: Hi\nAssistant: Ho\nUser:\nAssistant: x", "User: Hi\nAssistant: Hu"]
    (pair,) = pairs_of([row_of("Write a dialogue.", *dialogues)]).pairs
    assert [pair.chosen, pair.rejected] == dialogues


@pytest.mark.parametrize(
    ("before", "marker"),
    [
        (f"<{BAR}begin{LOW}of{LOW}sentence{BAR}>Be brief.", f"<{BAR}User{BAR}>"),
        ("Below is an instruction that describes a task.\n\n", "### Instruction"),
        ("A chat between a curious user and an assistant. ", "USER:"),
    ],
)
def test_what_a_template_puts_first_is_a_system_turn(before, marker):
    text, opening = RENDERINGS[marker][0](QUESTION)
    text = text.removeprefix(before[: before.find(">") + 1])
    (pair,) = pairs_of([row_of(f"{before}{text}{opening}")]).pairs
    said = before.rpartition(">")[2].strip()
    assert pair.prompt == ({"role": "system", "content": said}, *QUESTION)


def test_a_rendering_inside_a_rendering_is_taken_apart_too():
    inner = "\n\nHuman: Hi\n\nAssistant:"
    (pair,) = pairs_of([row_of(f"[INST] {inner} [/INST]")]).pairs
    assert pair.prompt == ({"role": "user", "content": "Hi"},)


def test_a_rendered_system_turn_and_the_column_agree_or_are_refused():
    text = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    (pair,) = pairs_of([row_of(text, system="Be brief.")]).pairs
    assert pair.prompt == (*SYSTEM, {"role": "user", "content": "Hi"})
    with pytest.raises(DataError, match="keep one of them"):
        pairs_of([row_of(text, system="Be long.")])
    (pair,) = pairs_of([row_of([*SYSTEM, {"role": "user", "content": "[INST] Hi [/INST]"}])]).pairs
    assert pair.prompt == (*SYSTEM, {"role": "user", "content": "Hi"})
