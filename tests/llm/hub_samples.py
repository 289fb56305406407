"""Miniatures of published data sets: their columns, types and files as their cards list them, contents of our own."""

from __future__ import annotations

import gzip
import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from llm.data.pairs import Pair


def logistic(nats: float) -> float:
    return 1 / (1 + math.exp(-nats))


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


CHAT = [user("Hi"), assistant("Hello."), user("Where is Ünna?")]


@dataclass(frozen=True)
class Sample:
    """A data set in small: where its rows lie, of which types they are, and what is to be read from them."""

    layout: str
    file: str  # inside the data set
    address: str  # /CONFIG:SPLIT
    rows: list[dict[str, Any]]
    pairs: list[Pair]  # "@3": the stem and 3; "@": an id of the data is kept
    types: Any = None  # of the columns; None for JSON lines
    dropped: dict[str, int] = field(default_factory=dict)
    config: str | None = None
    category: str | None = None  # where only the configuration says it

    def expected(self, stem: str, *, in_folder: bool = False) -> list[Pair]:
        pairs = [replace(pair, id=pair.id.replace("@", f"{stem}-")) for pair in self.pairs]
        return [replace(p, category=self.category) if in_folder and self.category else p for p in pairs]


MESSAGES = [{"content": "string", "role": "string"}]
ONE = (user("Where is Ünna?"),)


def unified(name: str, a: float | None, b: float | None) -> dict[str, Any]:
    conversations = {"conv_A": [*CHAT, assistant("Here.")], "conv_B": [*CHAT, assistant("There.")]}
    return {"id": name} | conversations | {"conv_A_rating": a, "conv_B_rating": b, "num_turns": 2, "source": f"s{name}"}


UNIFIED = Sample(
    "unified-feedback", "all/train-00000-of-00001.parquet", "/all:train",
    [unified("0", 1, 0), unified("1", 2.5, 2.5), unified("2", 1.5, 4), unified("3", None, 4)],
    [
        Pair("0", tuple(CHAT), "Here.", "There.", "s0", margin=1.0),
        Pair("2", tuple(CHAT), "There.", "Here.", "s2", margin=2.5),
    ],
    {
        "id": "string", "conv_A": MESSAGES, "conv_B": MESSAGES, "conv_A_rating": "float32",
        "conv_B_rating": "float32", "num_turns": "int32", "source": "string",
    },
    {"tie": 1, "no rating": 1}, "all",
)  # fmt: skip

REWARD_BENCH = Sample(
    "reward-bench", "data/filtered-00000-of-00001.parquet", ":filtered",
    [
        {"prompt": "Where is Ünna?", "chosen": "Here.", "chosen_model": "m", "rejected": "There.",
         "rejected_model": "n", "subset": subset, "id": 30}
        for subset in ("alpacaeval-hard", "llmbar-natural", "donotanswer", "hep-rust", "new-one")
    ],
    [
        Pair(f"{subset}/30", ONE, "Here.", "There.", subset, category)
        for subset, category in (
            ("alpacaeval-hard", "Chat"), ("llmbar-natural", "Chat Hard"), ("donotanswer", "Safety"),
            ("hep-rust", "Reasoning"), ("new-one", "new-one"),
        )
    ],
    {
        "prompt": "string", "chosen": "string", "chosen_model": "string", "rejected": "string",
        "rejected_model": "string", "subset": "string", "id": "int64",
    },
)  # fmt: skip


def four(subset: str, chosen: list[str | None], rejected: list[str]) -> dict[str, Any]:
    counts = {"num_correct": len(chosen), "num_incorrect": len(rejected), "total_completions": 4}
    texts = {"id": "7", "prompt": "Where is Ünna?", "chosen": chosen, "rejected": rejected}
    return (
        texts | counts | {"models": ["m"], "subset": subset, "additional_metadata": {"category": None, "method": "x"}}
    )


REWARD_BENCH_2 = Sample(
    "reward-bench-2", "data/test-00000-of-00001.parquet", ":test",
    [
        four("Math", ["Here."], ["A", "B", "Here. "]), four("Ties", ["Here.", "Near."], ["A", "B"]),
        four("Focus", [], ["A"]),
    ],
    [
        Pair("Math/7", ONE, "Here.", "A", category="Math", question_id="Math/7"),
        Pair("Math/7.1", ONE, "Here.", "B", category="Math", question_id="Math/7"),
        *(
            Pair(f"Ties/7{n}", ONE, good, bad, category="Ties", question_id="Ties/7")
            for n, good, bad in (("", "Here.", "A"), (".1", "Here.", "B"), (".2", "Near.", "A"), (".3", "Near.", "B"))
        ),
    ],
    {
        "id": "string", "prompt": "string", "chosen": ["string"], "rejected": ["string"], "num_correct": "int64",
        "num_incorrect": "int64", "total_completions": "int64", "models": ["string"], "subset": "string",
        "additional_metadata": {"category": "string", "method": "string"},
    },
    {"chosen equals rejected": 1, "empty answer": 1},
)  # fmt: skip


def choices(text: str, labels: list[int]) -> dict[str, Any]:
    return {"input": text, "targets": {"choices": ["Here.", "There."], "labels": labels}}


HHH = Sample(
    "hhh-alignment", "honest/test/0000.parquet", "/honest:test",
    [
        choices("Where is Ünna?", [1, 0]), choices("Where is Ünna?", [0, 1]), choices("Where is Ünna?", [1, 1]),
        choices("Hi\n\nAssistant: Hello.\n\nHuman: Where is Ünna?", [1, 0]),
    ],
    [
        Pair("@0", ONE, "Here.", "There."), Pair("@1", ONE, "There.", "Here."),
        Pair("@3", tuple(CHAT), "Here.", "There."),
    ],
    {"input": "string", "targets": {"choices": ["string"], "labels": ["int32"]}},
    {"tie": 1}, "honest", "honest",
)  # fmt: skip


def judged(question: int, winner: str, turn: int, *, second: str = "Hello.") -> dict[str, Any]:
    """Both turns, whichever was judged; the answers to the first one are Hello. and ``second``."""
    conversations = {
        f"conversation_{side}": [*CHAT[:1], assistant(first), CHAT[2], assistant(last)]
        for side, first, last in (("a", "Hello.", "Here."), ("b", second, "There."))
    }
    models = {"question_id": question, "model_a": "m", "model_b": "n", "winner": winner, "judge": "expert_1"}
    return models | conversations | {"turn": turn}


MT_BENCH = Sample(
    "mt-bench", "data/human-00000-of-00001.parquet", ":human",
    [
        judged(81, "model_a", 1, second="Bye."), judged(160, "model_b", 1, second="Bye."), judged(81, "tie", 1),
        judged(81, "tie (inconsistent)", 1), judged(110, "model_b", 2), judged(81, "model_a", 2, second="Bye."),
    ],
    [
        Pair("@0", (user("Hi"),), "Hello.", "Bye.", category="writing", question_id="81"),
        Pair("@1", (user("Hi"),), "Bye.", "Hello.", category="humanities", question_id="160"),
        Pair("@4", tuple(CHAT), "There.", "Here.", category="reasoning", question_id="110"),
    ],
    {
        "question_id": "int64", "model_a": "string", "model_b": "string", "winner": "string", "judge": "string",
        "conversation_a": MESSAGES, "conversation_b": MESSAGES, "turn": "int64",
    },
    {"tie": 2, "later turn: the conversations differ before the judged answer": 1},
)  # fmt: skip


def binarized(name: str, chosen: float | None, rejected: float) -> dict[str, Any]:
    whole = {"chosen": [*ONE, assistant("Here.")], "rejected": [*ONE, assistant("There.")]}
    prompt = {"prompt": "Where is Ünna?", "prompt_id": name, "messages": whole["chosen"]}
    return prompt | whole | {"score_chosen": chosen, "score_rejected": rejected}


BINARIZED = Sample(
    "ultrafeedback-binarized", "data/train_prefs-00000-of-00001.parquet", ":train_prefs",
    [binarized("a1", 8.5, 4), binarized("b2", 7, 7), binarized("c3", None, 7)],
    [
        Pair("@0", ONE, "Here.", "There.", question_id="a1", margin=4.5),
        Pair("@2", ONE, "Here.", "There.", question_id="c3"),
    ],
    {
        "prompt": "string", "prompt_id": "string", "chosen": MESSAGES, "rejected": MESSAGES, "messages": MESSAGES,
        "score_chosen": "float64", "score_rejected": "float64",
    },
    {"tie": 1},
)  # fmt: skip


def completions(*scores: float | None) -> dict[str, Any]:
    said = {"annotations": {"helpfulness": {"Rating": "4", "Rationale": "r"}}, "critique": "c", "principle": "p"}
    said |= {"custom_system_prompt": "s", "fine-grained_score": 4.0, "model": "m"}
    answers = [said | {"overall_score": score, "response": f"answer {i}"} for i, score in enumerate(scores)]
    labels = {"correct_answers": ["None"], "incorrect_answers": ["None"]}
    return {"source": "sharegpt", "instruction": "Where is Ünna?", "models": ["m"] * 4, "completions": answers} | labels


ULTRAFEEDBACK = Sample(
    "ultrafeedback", "sharegpt.jsonl", ":train",
    [completions(3, 8.5, 8.5, None), completions(7, 7, 7, 7), completions(None, 7, None, None)],
    [Pair("@0", ONE, "answer 1", "answer 0", "sharegpt", margin=5.5, preference=logistic(4 * 5.5 / 9))],
    dropped={"tie": 1, "fewer than two rated answers": 1},
)  # fmt: skip

STEERED = "Hi\n<extra_id_1>Assistant\nHello.\n<extra_id_1>User\nWhere is Ünna?"


def rated(prompt: str, response: str, helpfulness: int) -> dict[str, Any]:
    others = dict.fromkeys(("correctness", "coherence", "complexity", "verbosity"), 2)
    return {"prompt": prompt, "response": response, "helpfulness": helpfulness} | others


HELPSTEER = Sample(
    "helpsteer2", "train.jsonl.gz", ":train",
    [
        rated("Where is Ünna?", "Here.", 4), rated("Where is Ünna?", "There.", 1),
        rated("c#", "Alone.", 3),
        rated(STEERED, "Here.", 0), rated(STEERED, "There.", 3),
        rated("Where is Ünna?", "Here.", 2), rated("Where is Ünna?", "There.", 2),
    ],
    [
        Pair("@0", ONE, "Here.", "There.", margin=3.0, preference=logistic(3)),
        Pair("@2", tuple(CHAT), "There.", "Here.", margin=3.0, preference=logistic(3)),
    ],
    dropped={"answer without a second one to the same prompt": 1, "tie": 1},
)  # fmt: skip


def preferred(prompt: str, strength: int) -> dict[str, Any]:
    said = {"preference_statement": "s", "preference_elaboration": "e", "three_most_similar_preferences": []}
    answers = {"split": "train", "prompt": prompt, "response_1": "Here.", "response_2": "There."}
    return answers | {"preference_strength": strength} | said | {"all_preferences_unprocessed": []}


HELPSTEER_PREFERENCE = Sample(
    "helpsteer2-preference", "preference/preference.jsonl.gz", "/preference:train",
    [preferred("Where is Ünna?", -3), preferred(STEERED, 1), preferred("c#", 0), preferred("c#", -100)],
    [
        Pair("@0", ONE, "Here.", "There.", margin=3.0, preference=logistic(4)),
        Pair("@1", tuple(CHAT), "There.", "Here.", margin=1.0, preference=logistic(4 / 3)),
    ],
    dropped={"tie": 1, "no rating": 1},
)  # fmt: skip

TRANSCRIPT = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Where is Ünna?\n\nAssistant: "
HH = Sample(
    "hh-rlhf", "harmless-base/test.jsonl.gz", "/harmless-base:test",
    [{"chosen": TRANSCRIPT + "Here.", "rejected": TRANSCRIPT + "There."}],
    [Pair("@0", tuple(CHAT), "Here.", "There.")],
)  # fmt: skip

SAMPLES = {
    "llm-blender/Unified-Feedback": UNIFIED,
    "allenai/reward-bench": REWARD_BENCH,
    "allenai/reward-bench-2": REWARD_BENCH_2,
    "HuggingFaceH4/hhh_alignment": HHH,
    "lmsys/mt_bench_human_judgments": MT_BENCH,
    "HuggingFaceH4/ultrafeedback_binarized": BINARIZED,
    "openbmb/UltraFeedback": ULTRAFEEDBACK,
    "nvidia/HelpSteer2": HELPSTEER,
    "nvidia/HelpSteer2, preference": HELPSTEER_PREFERENCE,
    "Anthropic/hh-rlhf": HH,
}


def clone(sample: Sample, folder: Path) -> Path:
    """Write the data set as a download from the hub has it: its file in its place, and a card that lists it."""
    path = folder / sample.file
    path.parent.mkdir(parents=True, exist_ok=True)
    if sample.types is None:
        lines = "".join(json.dumps(row) + "\n" for row in sample.rows).encode()
        path.write_bytes(gzip.compress(lines) if path.suffix == ".gz" else lines)
        (folder / "README.md").write_text("---\nlicense: mit\n---\n# A data set\n")
        return folder
    import datasets

    rows = datasets.Dataset.from_list(sample.rows, features=datasets.Features(typed(sample.types)))
    rows.to_parquet(path)
    split, pattern = sample.address.split(":")[1], sample.file.replace("-00000-of-00001.parquet", "-*")
    (folder / "README.md").write_text(
        f"---\nlicense: mit\nconfigs:\n- config_name: {sample.config or 'default'}\n  data_files:\n"
        f"  - split: {split}\n    path: {pattern}\n---\n# A data set\n"
    )
    return folder


def typed(types: Any) -> Any:
    import datasets

    if isinstance(types, dict):
        return {name: typed(kind) for name, kind in types.items()}
    return [typed(types[0])] if isinstance(types, list) else datasets.Value(types)
