"""What the first edition of study-1.md read of its pairs, and its accuracies among pairs that can be told apart.

    python -m experiments.robustness.first_edition --data FOLDER    # fills two tables of study-1.md

The first edition tokenised prompt and answer apart and cut every answer's prompt for itself, to 128 tokens. Pairs that
became equal had margin 0 under every model, and counted as errors. That, and nothing else, is undone here: the accuracy
of a model among the others is its published one times n / (n - equal), and so is every difference of two models.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from llm.data.pairs import Pair, find_files, read_pairs
from llm.models.loading import load_reward_model

from ..page_tables import RESULTS, filled, markdown

LENGTH = 128
TRAIN = "train"
SHIFTED = "ood_"
PUBLISHED = {"regime": "all", "batch_size": 32, "final": "last"}
Rows = list[tuple[str, ...]]


@dataclass(frozen=True)
class Read:
    """What both answers of a pair were read with.

    Attributes:
        prompts: Tokens of the prompt that stood before the chosen and the rejected answer,
        whole: out of these.
        equal: Whether both sequences were the same.
    """

    prompts: tuple[int, int]
    whole: int
    equal: bool


def read(pairs: Sequence[Pair], tokenizer: Any) -> list[Read]:
    """The pairs as the first edition read them: a long prompt lost its beginning, beside each answer for itself."""
    room = LENGTH - 2  # [CLS] and [SEP]

    def tokens(texts: list[str]) -> list[list[int]]:
        return tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]

    prompts = tokens([_plain(pair) for pair in pairs])
    answers = [tokens([f" {getattr(pair, side)}" for pair in pairs]) for side in ("chosen", "rejected")]
    found = []
    for prompt, chosen, rejected in zip(prompts, *answers, strict=True):
        kept = [min(len(prompt), room - min(len(answer), room)) for answer in (chosen, rejected)]
        rows = [prompt[len(prompt) - n :] + answer[:room] for n, answer in zip(kept, (chosen, rejected), strict=True)]
        found.append(Read((kept[0], kept[1]), len(prompt), rows[0] == rows[1]))
    return found


def _plain(pair: Pair) -> str:
    turns = [f"{message['role'].capitalize()}: {message['content']}" for message in pair.prompt]
    return "\n\n".join([*turns, "Assistant:"])


def reading_table(found: dict[str, list[Read]]) -> Rows:
    """Shares of the pairs of every file."""
    head = ("file", "pairs", "whole prompt on both sides", "no prompt at all", "different prompts", "equal tokens")
    rows: Rows = [head]
    for name, reads in found.items():
        shares = (
            sum(min(r.prompts) == r.whole for r in reads),
            sum(max(r.prompts) == 0 for r in reads),
            sum(r.prompts[0] != r.prompts[1] for r in reads),
        )
        percent = (f"{100 * count / len(reads):.0f} %" for count in shares)
        rows.append((name, f"{len(reads):,}", *percent, str(sum(r.equal for r in reads))))
    return rows


def corrected_table(table: pd.DataFrame, pairs: dict[str, list[Pair]], found: dict[str, list[Read]]) -> Rows:
    """Accuracies of plain training as published, with half credit for equal pairs, and among the others.

    The average is over the suites out of distribution, each counted alike.
    """
    head = (
        "suite / category",
        "pairs",
        "equal",
        "`erm`, published",
        "half credit",
        "told apart",
        "`tv:0.2` less `erm`",
    )
    rows: Rows = [head]
    shifted: list[tuple[float, ...]] = []
    for suite in (name for name in found if name != TRAIN):
        groups: dict[str, list[int]] = {"": list(range(len(found[suite])))}
        for place, pair in enumerate(pairs[suite]):
            groups.setdefault(pair.category, []).append(place)
        for category, places in groups.items():
            equal = sum(found[suite][place].equal for place in places)
            if category and (not equal or len(places) < 30):
                continue
            erm, robust = (_accuracy(table, suite, category, text) for text in ("erm", "tv:0.2"))
            n, apart = len(places), len(places) - equal
            numbers = (n, equal, erm, erm + equal / n / 2, erm * n / apart, (robust - erm) * n / apart)
            rows.append(_row(f"&nbsp;&nbsp;{category}" if category else suite, numbers))
            if not category and suite.startswith(SHIFTED):
                shifted.append(numbers)
    pairs_of, equal_of, *shares = zip(*shifted, strict=True)
    averages = (sum(share) / len(shifted) for share in shares)
    return [*rows, _row("average of the suites out of distribution", (sum(pairs_of), sum(equal_of), *averages))]


def _row(name: str, numbers: tuple[float, ...]) -> tuple[str, ...]:
    n, equal, *shares, gain = numbers
    return (name, f"{n:.0f}", f"{equal:.0f}", *(f"{100 * share:.1f}" for share in shares), f"{100 * gain:+.1f}")


def _accuracy(table: pd.DataFrame, suite: str, category: str, ambiguity: str) -> float:
    wanted = PUBLISHED | {"suite": suite, "category": category, "ambiguity": ambiguity}
    mask = (table[list(wanted)] == pd.Series(wanted)).all(axis=1) & (table["learning_rate"].round(4) == 0.003)
    return float(table.loc[mask, "accuracy"].mean())


def main() -> None:
    """Read the data, fill the tables."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of real preferences: train.jsonl.gz and suites"
    )
    train, suites = find_files(parser.parse_args().data)
    pairs = {name: read_pairs(path).pairs for name, path in {TRAIN: train, **suites}.items()}
    _, tokenizer = load_reward_model("minilm")
    found = {name: read(own, tokenizer) for name, own in pairs.items()}
    raw = pd.read_parquet(RESULTS / "study" / "real.parquet")
    tables = {"read": reading_table(found), "corrected": corrected_table(raw, pairs, found)}
    page = RESULTS / "study-1.md"
    filled_page = filled(page.read_text(encoding="utf-8"), {name: markdown(rows) for name, rows in tables.items()})
    page.write_text(filled_page, encoding="utf-8")


if __name__ == "__main__":
    main()
