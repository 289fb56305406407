"""Records in the shapes that tools and data sets write preferences in, contents of our own, and the pairs they hold.

One table drives this file.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from hub_samples import CHAT, ONE, assistant, logistic, user

from llm.data.layouts.tools import CallingAnswer, with_tools
from llm.data.pairs import Message, Pair

BRIEF: Message = {"role": "system", "content": "Be brief."}
HUMAN = {"from": "human", "value": "Where is Ünna?"}
ASKED = "Where is Ünna?"


@dataclass(frozen=True)
class Export:
    """A file in small, and what is to be read from it; "@3" in an id is the stem and 3."""

    layout: str
    rows: list[dict[str, Any]]
    pairs: list[Pair]
    dropped: dict[str, int] = field(default_factory=dict)
    noted: dict[str, int] = field(default_factory=dict)


def gpt(text: str) -> dict[str, str]:
    return {"from": "gpt", "value": text}


def part(text: str, **more: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text, **more}]


def here(prompt=ONE, name: str = "@0", **more: Any) -> Pair:
    return Pair(name, tuple(prompt), "Here.", "There.", **more)


def there(prompt=ONE, name: str = "@0", **more: Any) -> Pair:
    return Pair(name, tuple(prompt), "There.", "Here.", **more)


TEXTS = {"chosen": "Here.", "rejected": "There."}
AB = {"response_A": "Here.", "response_B": "There."}
ZERO_ONE = {"response_0": "Here.", "response_1": "There."}
SAFE = {"is_response_0_safe": True, "is_response_1_safe": False}
CALL = {"type": "function", "function": {"name": "find", "arguments": {"town": "Ünna"}}}
TOOL_TURNS = [
    user("Where is Ünna?"),
    {"role": "assistant", "content": "", "tool_calls": [{"id": "c1", **CALL}]},
    {"role": "tool", "content": "51 N", "tool_call_id": "c1", "name": "find"},
]


def conversation(answer: str, *turns: Any) -> list[Any]:
    return [*(turns or ONE), assistant(answer)]


def styles(text: str) -> list[str]:
    return [text, f"{text} Indeed.", f"**{text}**"]


EXPORTS = {
    "sharegpt, LLaMA-Factory": Export(
        "sharegpt",
        [
            {"conversations": [HUMAN], "chosen": gpt("Here."), "rejected": gpt("There.")},
            {
                "conversations": [{"from": "user", "value": "Hi"}, {"from": "chatgpt", "value": "Hello."}, HUMAN],
                "chosen": gpt("Here."),
                "rejected": gpt("There."),
            },
            {"conversations": [HUMAN, gpt("Here.")], "chosen": gpt("Here."), "rejected": gpt("There.")},
        ],
        [here(), here(CHAT, "@1")],
        {"conversation that is answered already": 1},
    ),
    "sharegpt with a call": Export(
        "sharegpt",
        [
            {
                "conversations": [
                    {"from": "system", "value": "Be brief."},
                    HUMAN,
                    {"from": "function_call", "value": '{"name": "find", "arguments": {"town": "Ünna"}}'},
                    {"from": "observation", "value": "51 N"},
                ],
                "chosen": gpt("Here."),
                "rejected": gpt("There."),
            }
        ],
        [
            here(
                [
                    BRIEF,
                    *ONE,
                    {"role": "assistant", "content": "", "tool_calls": [CALL]},
                    {"role": "tool", "content": "51 N"},
                ]
            )
        ],
    ),
    "axolotl, chat_template.default": Export(
        "sharegpt", [{"messages": CHAT, "chosen": assistant("Here."), "rejected": assistant("There.")}], [here(CHAT)]
    ),
    "axolotl, conversation": Export("sharegpt", [{"conversation": CHAT} | TEXTS], [here(CHAT)]),
    "alpaca, LLaMA-Factory": Export(
        "alpaca",
        [
            {"instruction": ASKED, "input": "", "history": [], **TEXTS},
            {"instruction": ASKED, "input": "And why?", "history": [["Hi", "Hello."], ["So?", "Yes."]], **TEXTS},
        ],
        [here(), here([*CHAT[:2], user("So?"), assistant("Yes."), user("Where is Ünna?\nAnd why?")], "@1")],
    ),
    "alpaca, two outputs": Export(
        "alpaca", [{"instruction": ASKED, "input": "", "output": ["Here.", "There."]}], [here()]
    ),
    "Intel/orca_dpo_pairs": Export("orca", [{"question": ASKED} | TEXTS], [here()]),
    "argilla/distilabel-intel-orca-dpo-pairs": Export(
        "orca",
        [
            {
                "input": ASKED, "generations": ["Here.", "There."], "order": ["chosen", "rejected"],
                "rating": [9.0, 7.0], "status": status, "chosen_score": 9.0, **TEXTS,
            }
            for status in ("unchanged", "tie")
        ],
        [here()],
        {"tie": 1},
    ),
    "argilla, responses": Export(
        "argilla",
        [
            {
                "instruction": ASKED, "chosen_response": "Here.", "rejected_response": "There.",
                "chosen_avg_rating": 4.5, "rejected_avg_rating": 2.0,
            }
        ],
        [here(margin=2.5)],
    ),
    "argilla, input": Export(
        "argilla", [{"input": ASKED, "chosen_response": "Here.", "rejected_response": "There."}], [here()]
    ),
    "distilabel, generations": Export(
        "ranked-lists",
        [
            {"instruction": ASKED, "generations": ["a", "Here.", "b", "c"], "ratings": [2, 5, 5, None], "id": "q"},
            {"instruction": ASKED, "generations": ["a", "b"], "ratings": [3, 3], "id": "r"},
            {"instruction": ASKED, "generations": ["a", "b"], "ratings": [3, None], "id": "s"},
        ],
        [Pair("q", ONE, "Here.", "a", question_id="q", margin=3.0)],
        {"tie": 1, "fewer than two rated answers": 1},
    ),
    "OpenAI preference": Export(
        "openai-preference",
        [
            {
                "input": {"messages": CHAT, "tools": tools, "parallel_tool_calls": True},
                "preferred_output": [assistant("Here.")],
                "non_preferred_output": [assistant("There.")],
            }
            for tools in ([], [{"type": "function", "function": {"name": "find"}}])
        ],
        [here(CHAT), here(with_tools(CHAT, [{"name": "find"}]), "@1")],
    ),
    "PKU-SafeRLHF": Export(
        "pku-saferlhf",
        [
            {"prompt": ASKED, **ZERO_ONE, **SAFE, "better_response_id": 0, "safer_response_id": 0},
            {"prompt": ASKED, **ZERO_ONE, **SAFE, "better_response_id": 1, "safer_response_id": 0},
        ],
        [here(category="better and safer"), there(name="@1", category="better, not safer")],
        noted={"better_response_id is read, safer_response_id names the other answer": 1},
    ),
    "stanfordnlp/SHP": Export(
        "shp",
        [
            {
                "post_id": f"p{label}", "domain": "askx_train", "history": ASKED, "human_ref_A": "Here.",
                "human_ref_B": "There.", "labels": label, "score_A": 3 + 6 * label, "score_B": 5,
            }
            for label in (1, 0)
        ],
        [
            here(category="askx_train", question_id="p1", margin=4.0, preference=10 / 16),
            there(name="@1", category="askx_train", question_id="p0", margin=2.0, preference=6 / 10),
        ],
    ),
    "openai/webgpt_comparisons": Export(
        "webgpt",
        [
            {
                "question": {"dataset": "eli5", "id": name, "full_text": ASKED},
                "answer_0": "Here.", "answer_1": "There.", "score_0": score, "score_1": -score,
            }
            for name, score in (("w1", 0.5), ("w2", -1.0), ("w3", 0.0))
        ],
        [
            here(source="eli5", question_id="w1", margin=1.0, preference=logistic(2)),
            there(name="@1", source="eli5", question_id="w2", margin=2.0, preference=logistic(4)),
        ],
        {"tie": 1},
    ),
    "berkeley-nest/Nectar": Export(
        "nectar",
        [
            {
                "prompt": f"\n\nHuman: {ASKED}\n\nAssistant: ", "id": "n1",
                "answers": [
                    {"answer": answer, "model": "m", "rank": rank}
                    for answer, rank in (("There.", 2.0), ("Here.", 1.0), ("Nowhere.", 3.0))
                ],
            }
        ],
        [
            here(name="n1", question_id="n1", margin=1.0),
            Pair("n1.1", ONE, "Here.", "Nowhere.", question_id="n1", margin=2.0),
        ],
        noted={"rendered prompt taken apart (Human:)": 2},
    ),
    "ranks beside answers": Export(
        "ranked-lists",
        [{"prompt": ASKED, "responses": ["There.", "Here."], "ranks": [2, 1], "prompt_id": "k"}],
        [here(question_id="k", margin=1.0)],
    ),
    "tatsu-lab/alpaca_farm": Export(
        "alpaca-farm",
        [{"instruction": ASKED, "input": "", "output_1": "There.", "output_2": "Here.", "preference": 2}],
        [here()],
    ),
    "ScalerLab/JudgeBench": Export(
        "judgebench",
        [
            {"pair_id": f"j{label}", "source": "mmlu", "question": ASKED, "response_model": "m", **AB, "label": label}
            for label in ("A>B", "B>A", "A=B")
        ],
        [here(name="jA>B", source="mmlu"), there(name="jB>A", source="mmlu")],
        {"tie": 1},
    ),
    "THU-KEG/RM-Bench": Export(
        "rm-bench",
        [{"id": 7, "prompt": ASKED, "chosen": styles("Here."), "rejected": styles("There."), "domain": "chat"}],
        [
            Pair(f"chat/7{suffix}", ONE, good, bad, "chat", f"chat/{level}", "chat/7")
            for suffix, good, bad, level in (
                ("", "Here.", "There.", "normal"), (".1", "Here.", "There. Indeed.", "hard"),
                (".2", "Here.", "**There.**", "hard"), (".3", "Here. Indeed.", "There.", "easy"),
                (".4", "Here. Indeed.", "There. Indeed.", "normal"), (".5", "Here. Indeed.", "**There.**", "hard"),
                (".6", "**Here.**", "There.", "easy"), (".7", "**Here.**", "There. Indeed.", "easy"),
                (".8", "**Here.**", "**There.**", "normal"),
            )
        ],
    ),
    "Arena, conversations": Export(
        "arena",
        [
            {
                "question_id": "a", "model_a": "m", "model_b": "n", "winner": winner,
                "conversation_a": conversation("Here."), "conversation_b": conversation("There."),
            }
            for winner in ("model_a", "model_b", "tie", "tie (bothbad)", "both_bad")
        ]
        + [
            {
                "question_id": "b", "model_a": "m", "model_b": "n", "winner": "model_a",
                "conversation_a": conversation("x", *CHAT),
                "conversation_b": conversation("y", user("Hi"), assistant("Ho."), CHAT[2]),
            }
        ],
        [here(question_id="a"), there(name="@1", question_id="a")],
        {"tie": 3, "conversations differ before the last answer": 1},
    ),
    "Arena, winner columns": Export(
        "arena-winners",
        [
            {
                "id": 5 + number, "model_a": "m", "model_b": "n", "prompt": '["Where is Ünna?"]',
                "response_a": '["Here."]', "response_b": '["There."]',
                "winner_model_a": a, "winner_model_b": b, "winner_tie": tie,
            }
            for number, (a, b, tie) in enumerate(((1, 0, 0), (0, 1, 0), (0, 0, 1)))
        ],
        [here(name="5"), there(name="6")],
        {"tie": 1},
    ),
    "KTO": Export(
        "unpaired",
        [
            {"prompt": ASKED, "completion": "Here.", "label": True, "source": "s"},
            {"prompt": "Other?", "completion": "Yes.", "label": True, "source": "s"},
            {"prompt": "Other?", "completion": "No.", "label": True, "source": "s"},
            {"prompt": ASKED, "completion": "There.", "label": False, "source": "s"},
            {"prompt": ASKED, "completion": "Nowhere.", "label": False, "source": "s"},
        ],
        [here(source="s")],
        {"single answer: it stands alone, without one of the other label to its prompt": 3},
    ),
    "KTO of LLaMA-Factory": Export(
        "unpaired",
        [
            {"instruction": ASKED, "input": "", "output": "There.", "kto_tag": False},
            {"instruction": ASKED, "input": "", "output": "Here.", "kto_tag": True},
        ],
        [here()],
    ),
    "xinlai/Math-Step-DPO-10K": Export(
        "step-dpo",
        [
            {
                "dataset": "gsm8k", "prompt": ASKED, "initial_reason_steps": "Step 1: Look.\nStep 2:",
                "chosen": " Here.", "rejected": " There.", "full_chosen": " Here. Done.", "full_rejected": " No.",
                "answer": "Here",
            }
        ],
        [Pair("@0", ONE, "Step 1: Look.\nStep 2: Here.", "Step 1: Look.\nStep 2: There.")],
    ),
    "one object as an answer": Export(
        "trl", [{"prompt": ASKED, "chosen": assistant("Here."), "rejected": assistant("There.")}], [here()]
    ),
    "parts of a content": Export(
        "trl",
        [
            {
                "prompt": [{"role": "user", "content": part("Where is ") + part("Ünna?")}],
                "chosen": [{"role": "assistant", "content": part("Here.")}],
                "rejected": [{"role": "assistant", "content": part("There.")}],
            },
            {
                "prompt": [{"role": "user", "content": [*part("What?"), {"type": "image", "image": "x.png"}]}],
                "chosen": [{"role": "assistant", "content": part("Here.")}],
                "rejected": [{"role": "assistant", "content": part("There.")}],
            },
        ],
        [here()],
        {"content that is no text (image)": 1},
    ),
    "tool calls": Export(
        "trl",
        [
            {
                "prompt": [
                    TOOL_TURNS[0],
                    {
                        "role": "assistant", "content": None,
                        "tool_calls": [
                            {
                                "id": "c1", "type": "function",
                                "function": {"name": "find", "arguments": '{"town": "Ünna"}'},
                            }
                        ],
                    },
                    TOOL_TURNS[2],
                ],
                "chosen": [assistant("Here.")],
                "rejected": rejected,
            }
            for rejected in ([assistant("There.")], [TOOL_TURNS[1]])
        ],
        [here(TOOL_TURNS), replace(here(TOOL_TURNS, "@1"), rejected=CallingAnswer(TOOL_TURNS[1]))],
    ),
    "whole conversations beside the question": Export(
        "trl",
        [
            {
                "prompt": ASKED, "chosen": conversation("Here.", BRIEF, *ONE),
                "rejected": conversation("There.", BRIEF, *ONE),
            },
            {
                "prompt": "Another?", "chosen": conversation("Here.", BRIEF, *ONE),
                "rejected": conversation("There.", BRIEF, *ONE),
            },
        ],
        [here([BRIEF, *ONE])],
        {"conversations differ before the last answer": 1},
    ),
    "rated pairs": Export(
        "trl", [{"prompt": ASKED, "chosen-rating": 4.0, "rejected-rating": 4.0} | TEXTS], [here(margin=0.0)]
    ),
}  # fmt: skip
