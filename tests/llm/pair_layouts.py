"""Every layout of a preference pair, and a file of each made by libraries that are not under test."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from llm.data.pairs import Message

QUESTION: tuple[Message, ...] = ({"role": "user", "content": "Where is Ünna?"},)
CHAT: tuple[Message, ...] = (
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Where is\n\nÜnna?"},
)


def answer(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def transcript(prompt: tuple[Message, ...], final: str) -> str:
    names = {"user": "Human", "assistant": "Assistant"}
    turns = [*prompt, answer(final)]
    return "".join(f"\n\n{names[m['role']]}: {m['content']}" for m in turns)


def canonical(prompt: tuple[Message, ...]) -> dict[str, Any]:
    return {"prompt": list(prompt), "chosen": "Here, see.", "rejected": "Nowhere"}


def trl_text(prompt: tuple[Message, ...]) -> dict[str, Any]:
    return {"prompt": prompt[-1]["content"], "chosen": "Here, see.", "rejected": "Nowhere"}


def trl_answers(prompt: tuple[Message, ...]) -> dict[str, Any]:
    return {"prompt": list(prompt), "chosen": [answer("Here, see.")], "rejected": [answer("Nowhere")]}


def trl_whole(prompt: tuple[Message, ...]) -> dict[str, Any]:
    return {
        "prompt": list(prompt),
        "chosen": [*prompt, answer("Here, see.")],
        "rejected": [*prompt, answer("Nowhere")],
    }


def trl_implicit(prompt: tuple[Message, ...]) -> dict[str, Any]:
    return {"chosen": [*prompt, answer("Here, see.")], "rejected": [*prompt, answer("Nowhere")]}


def hh(prompt: tuple[Message, ...]) -> dict[str, Any]:
    return {"chosen": transcript(prompt, "Here, see."), "rejected": transcript(prompt, "Nowhere")}


LAYOUTS = {
    canonical: "canonical", trl_text: "trl", trl_answers: "trl", trl_whole: "trl",
    trl_implicit: "trl-implicit", hh: "hh-rlhf",
}  # fmt: skip
GOOD = {"prompt": "p", "chosen": "a", "rejected": "b"}


def save(rows: list[dict[str, Any]], path: Path) -> Path:
    """Write with libraries that are not under test."""
    if path.suffix == ".parquet":
        pa = pytest.importorskip("pyarrow")
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows({k: v if isinstance(v, str) else json.dumps(v) for k, v in row.items()} for row in rows)
    else:
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        text = json.dumps(rows, indent=1) if ".json" in path.suffixes else lines
        path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path
