"""Metrics on the screen and on disk: tables, CSV, JSON, and how their numbers are written."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from .checkpoints import write_json
from .counting import RULE
from .data import Pair
from .escaping import csv_text
from .finished import sealing
from .terminal import shown, shown_title

MISSING = "\N{EN DASH}"  # where a number does not exist


def write_metrics(
    result: Mapping[str, Any],
    suites: Mapping[str, Sequence[Pair]],
    folder: str | Path,
    *,
    comparisons: Mapping[str, Any] | None = None,
) -> None:
    """Write metrics.json, metrics.csv (one row per suite and group) and margins.jsonl (one line per pair).

    Args:
        result: As from :func:`evaluate_model`.
        suites: The pairs it was made from.
        folder: Created where missing.
        comparisons: Suite name -> :func:`compare`; stored in metrics.json beside the suites.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    content = {"rule": RULE, "suites": result["suites"], **({"comparisons": comparisons} if comparisons else {})}
    lines = (
        json.dumps({"suite": name, "id": pair.id, "margin": float(margin)}, ensure_ascii=False)
        for name, pairs in suites.items()
        for pair, margin in zip(pairs, result["margins"][name], strict=True)
    )
    with sealing(folder, "metrics.json", "metrics.csv", "margins.jsonl"):
        write_json(folder / "metrics.json", json_ready(content))
        write_text(folder / "metrics.csv", _tidy_csv(result["suites"]))
        write_text(folder / "margins.jsonl", "".join(f"{line}\n" for line in lines))


def render_table(suites: Mapping[str, Mapping[str, Any]], *, title: str = "Accuracy, %") -> Table:
    """The screen table of ``evaluate_model(...)["suites"]``; "longer wins" stands beside every accuracy."""
    caption = (
        'brackets: 95 % interval over prompts; a tie counts one half\nlonger: the rule "longer wins"; tail: worst tenth'
    )
    table = Table(title=shown_title(title), caption=caption, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("suite / category", overflow="fold", min_width=17)
    for heading in ("pairs", "accuracy", "interval", "ties", "longer", "loss", "tail"):
        table.add_column(heading, justify="right", no_wrap=heading == "interval")
    for name, suite in suites.items():
        table.add_row(*_table_row(name, suite["overall"]), style="bold")
        if len(suite["by_category"]) > 1:
            for category, record in suite["by_category"].items():
                table.add_row(*_table_row(f"  {category}", record))
            table.add_row("  average of categories", "", percent(suite["macro_accuracy"]), style="italic")
        table.add_section()
    return table


def render_comparison(comparisons: Mapping[str, Mapping[str, Any]], *, names: tuple[str, str]) -> Table:
    """The screen table of suite name -> :func:`compare`, with a minus b in percentage points."""
    title = shown_title(f"{names[0]} minus {names[1]}, percentage points")
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("suite", overflow="fold", min_width=13)
    for heading in ("points", "interval", "only first", "only second", "p", "McNemar"):
        table.add_column(heading, justify="right", no_wrap=heading == "interval")
    for name, comparison in comparisons.items():
        record = comparison["overall"]
        table.add_row(
            shown(name),
            percent(record["difference"], sign="+"),
            bracket(record["low"], record["high"], sign="+"),
            str(record["only_a"]),
            str(record["only_b"]),
            p_text(record["p"]),
            p_text(record["mcnemar_p"]),
        )
    return table


def json_ready(value: Any) -> Any:
    """Plain lists, dicts and numbers; None for nan and infinities, text for everything JSON does not know.

    >>> json_ready({"a": np.array([1.0, np.nan]), 2: Path("x")})
    {'a': [1.0, None], '2': 'x'}
    """
    if isinstance(value, Mapping):
        return {_encodable(str(key)): json_ready(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return json_ready(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [json_ready(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int) else _encodable(str(value))


def _encodable(text: str) -> str:
    # Half of a surrogate pair can come in by a JSON escape; UTF-8 has no bytes for it.
    return text.encode("utf-8", errors="replace").decode("utf-8")


def write_text(path: Path, text: str) -> None:
    """Write through a temporary file, so that no reader ever sees half of it."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8", newline="", errors="replace")  # a lone surrogate must not cost the file
    partial.replace(path)


def percent(value: float | None, *, sign: str = "-") -> str:
    """A share as a number of percent with one decimal; an en dash where there is none.

    >>> percent(0.7132), percent(0.05, sign="+"), percent(None) == MISSING
    ('71.3', '+5.0', True)
    """
    return MISSING if value is None else f"{round(100 * value, 1) + 0.0:{sign}.1f}".replace("-", "\N{MINUS SIGN}")


def bracket(low: float | None, high: float | None, *, sign: str = "-") -> str:
    """An interval in percent.

    >>> bracket(0.685, 0.741)
    '[68.5, 74.1]'
    """
    return MISSING if low is None or high is None else f"[{percent(low, sign=sign)}, {percent(high, sign=sign)}]"


def decimals(value: float | None) -> str:
    """Three decimals; an en dash where there is no number.

    >>> decimals(0.69315), decimals(-0.0001)
    ('0.693', '0.000')
    """
    return MISSING if value is None else f"{round(value, 3) + 0.0:.3f}".replace("-", "\N{MINUS SIGN}")


def p_text(p: float | None) -> str:
    """A p-value for a table.

    >>> p_text(0.04), p_text(1e-9)
    ('0.040', '< 0.001')
    """
    return MISSING if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _tidy_csv(suites: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        {"suite": name, "kind": kind, "group": group, **record}
        for name, suite in suites.items()
        for kind, records in (
            ("overall", {"all": suite["overall"]}),
            ("category", suite["by_category"]),
            ("source", suite["by_source"]),
        )
        for group, record in records.items()
    ]
    return csv_text(rows)


def _table_row(name: str, record: Mapping[str, Any]) -> list[Text | str]:
    return [
        shown(name),
        str(record["pairs"]),
        percent(record["accuracy"]),
        bracket(record["low"], record["high"]),
        str(record["ties"]),
        percent(record["longer_wins"]),
        decimals(record["mean_loss"]),
        decimals(record["cvar_loss"]),
    ]
