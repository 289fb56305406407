"""Turns the JSON of `make gpu` into docs/gpu.md, and fills the rows of the other pages that wait for it."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

from gpu_results import Record, hardware, measured, put, records

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "gpu.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def write_every() -> None:
    """All pages, from the results that lie in the repository."""
    import exactness
    import page
    import solvers
    import training
    import training_page

    write(measured())
    page.write(solvers.RESULTS, ROOT / "docs")
    training_page.write(training.RESULTS, training.PAGE)
    exactness.write_page(json.loads(exactness.RECORD.read_text(encoding="utf-8")))


def write(found: Record | None, path: Path = PAGE) -> None:
    """Put the measured part of docs/gpu.md between its markers."""
    before, rest = path.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    put(path, f"{before}{BEGIN}\n{rendered(found)}\n{END}{after}")


def rendered(found: Record | None) -> str:
    """The measured part; one sentence where nothing was."""
    if found is None:
        return "Not measured yet: no run on a GPU has been made."
    lines = [f"{hardware(found)}; {found['seconds']:.0f} s in all.", ""]
    lines += _table(["stage", "ended", "results", "seconds", "revision"], map(_stage, found["stages"].items()))
    for name, section in _SECTIONS.items():
        rows = records(name, found)
        lines += ["", f"### {name.capitalize()}", "", *(section(rows) if rows else ["Not measured."])]
        lines += _failures(found["stages"].get(name, {}).get("records", []))
    return "\n".join(lines)


def _stage(entry: tuple[str, Record]) -> list[str]:
    name, stage = entry
    why = f": {stage['why']}" if stage["why"] else ""
    return [
        name,
        stage["status"] + why,
        str(len(stage["records"])),
        f"{stage['seconds']:.0f}",
        stage.get("revision") or "-",
    ]


def _table(header: list[str], rows: Iterable[list[str]]) -> list[str]:
    """A Markdown table; bars in cells are escaped."""
    lines = [header, ["---"] * len(header), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def _failures(rows: list[Record]) -> list[str]:
    told = [row for row in rows if "failed" in row or "skipped" in row]
    return ["", "What did not run:", "", *map(_failure, told)] if told else []


def _failure(row: Record) -> str:
    reason = row.get("failed", row.get("skipped"))
    place = [str(value) for key, value in row.items() if key not in ("failed", "skipped") and value]
    return f"- {', '.join([*place, str(reason)])}"


def _time(row: Record) -> str:
    low, high = row["quartiles"]
    return f"{_seconds(row['seconds'])} ({_seconds(low)} to {_seconds(high)})"


def _seconds(number: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number / 1e-9:.3g} ns"


def _solver(rows: list[Record]) -> list[str]:
    timed = [row for row in rows if "who" in row]
    shapes = sorted({(row["batch"], row["n"]) for row in timed})
    heads = [f"{n:,}" if batch == 1 else f"{batch:,} x {n:,}" for batch, n in shapes]
    lines: list[str] = []
    for dtype in ("float32", "float64"):
        for mode in ("forward", "backward"):
            cells = {
                (row["set"] or row["who"], row["batch"], row["n"]): row
                for row in timed
                if (row["dtype"], row["mode"]) == (dtype, mode)
            }
            names = list(dict.fromkeys(name for name, *_ in cells))
            body = [[n, *(_time_or_dash(cells.get((n, *shape))) for shape in shapes)] for n in names]
            lines += [f"**{dtype}, {mode}**", "", *_table(["", *heads], body), ""] if body else []
    worst = {dtype: max((r["error"] for r in timed if "error" in r and r["dtype"] == dtype), default=None) for dtype in ("float32", "float64")}  # noqa: E501  # fmt: skip
    lines.append("Largest relative difference of a value from the host's in float64: " + ", ".join(f"{dtype} {error:.1e}" for dtype, error in worst.items() if error is not None) + ".")  # noqa: E501  # fmt: skip
    waits = [row for row in rows if row.get("synchronisations") is not None]
    if waits:
        most = max(waits, key=lambda row: row["synchronisations"])
        lines += ["", f"Waits for the device in a call, n = {most['n']:,}: at most {most['synchronisations']} ({most['set']}, {most['mode']})."]  # noqa: E501  # fmt: skip
    graphs = [row for row in rows if row.get("what") == "graph"]
    if graphs:
        body = [[row["set"], _time(row), f"{row['off']:.1e}"] for row in graphs]
        lines += ["", "Captured in a CUDA graph and replayed on other losses, n = 1,024, float32:", ""]
        lines += _table(["set", "time", "largest difference of n q from the call itself"], body)
    return lines


def _time_or_dash(row: Record | None) -> str:
    return "-" if row is None else _seconds(row["seconds"])


def _gradients(rows: list[Record]) -> list[str]:
    body = [
        [row["precision"], row["trained"], str(row["micro_batches"]), "yes" if row["checkpointing"] else "no",
         f"{row['error']:.1e}", f"{row['error_to_fp32']:.1e}"] for row in rows
    ]  # fmt: skip
    head = ["precision", "trained", "micro-batches", "checkpointing", "error", "against plain float32"]
    return ["Relative error of the gradient of one step of 16 pairs at `tv:0.4`, against full-batch autograd:", "", *_table(head, body)]  # noqa: E501  # fmt: skip


def _training(rows: list[Record]) -> list[str]:
    rates = [row["flops_per_second"] for row in rows if "flops_per_second" in row]
    body = [
        [row["shape"], row["task"], row["name"] + (f", {row['ambiguity']}" if row["ambiguity"] else ""),
         row["reference"] or "-", _time(row), f"{row['tokens_per_second']:,}", f"{row['mfu']:.1%}",
         "-" if row["peak_gib"] is None else f"{row['peak_gib']:.1f}",
         f"{row['solver_seconds'] / row['seconds']:.1e}"]
        for row in rows if "name" in row
    ]  # fmt: skip
    head = ["model", "task", "trainer", "reference", "step", "tokens/s", "MFU", "peak, GiB", "solver's share"]
    peak = f" MFU is 6 N operations a token over the {rates[0] / 1e12:.0f} TFLOP/s of a bf16 product of 8192." if rates else ""  # noqa: E501  # fmt: skip
    return [f"Random Llamas, 16 pairs a step, 512 tokens an answer with its prompt.{peak}", "", *_table(head, body)]


def _policy(rows: list[Record]) -> list[str]:
    body = [
        [row["shape"], row["way"], f"{row['answers']} x {row['tokens_per_answer']}", _time(row),
         _seconds(row["rollout_seconds"]), _seconds(row["update_seconds"]), f"{row['rollout_tokens_per_second']:,}",
         "-" if row["peak_gib"] is None else f"{row['peak_gib']:.1f}"] for row in rows
    ]  # fmt: skip
    head = ["model", "way", "answers x tokens", "step", "rollout", "updates", "sampled tokens/s", "peak, GiB"]
    return _table(head, body)


def _truth(rows: list[Record]) -> list[str]:
    runs = [row for row in rows if "arm" in row]
    found: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for row in runs:
        for suite, judged in row["suites"].items():
            found[row["arm"], suite].append(judged["accuracy"])
    suites = list(dict.fromkeys(suite for _, suite in found))
    arms = list(dict.fromkeys(row["arm"] for row in runs))
    body = [[f"`{arm}`", str(len(found[arm, suites[0]])), *(_accuracy(found[arm, suite]) for suite in suites)] for arm in arms]  # noqa: E501  # fmt: skip
    return [
        f"MiniLM, all weights, {runs[0]['steps']} steps of 64 pairs; accuracy in %: mean over seeds, smallest to "
        "largest. Seeds are few: no interval is given and no arm is called better.",
        "",
        *_table(["set", "seeds", *suites], body),
    ]


def _accuracy(found: list[float]) -> str:
    return f"{100 * statistics.fmean(found):.1f} ({100 * min(found):.1f} to {100 * max(found):.1f})"


def _options(rows: list[Record]) -> list[str]:
    body = [
        [row["option"], row["way"], _time(row), f"{row['tokens_per_second']:,}",
         "-" if row["peak_gib"] is None else f"{row['peak_gib']:.1f}"] for row in rows
    ]  # fmt: skip
    return _table(["option", "way", "step", "tokens/s", "peak, GiB"], body)


_SECTIONS: dict[str, Callable[[list[Record]], list[str]]] = {
    "solver": _solver,
    "gradients": _gradients,
    "training": _training,
    "policy": _policy,
    "truth": _truth,
    "options": _options,
}
