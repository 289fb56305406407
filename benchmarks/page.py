"""Writes docs/benchmarks.md and its plots from the JSON of a run."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import figures
import targets
from contestants import RACES
from failures import WRONG
from gpu_results import hardware, measured
from targets import Finding

Record = dict[str, Any]
_TITLES = {race.name: race.title for race in RACES}
_PLOTTED_N = 512


# Why targets are missed, as far as profiling shows; edit it when a miss goes or comes.
_CAUSES = [
    """Where the misses come from, as far as a profile shows it:

- *n = 64 and 512, `kl_penalty`, `chi2_penalty`, `cvar`, `trimmed`*: arithmetic is a small part of a call. Checking,
  centring, dual and value take some thirty array calls of one to three microseconds each; a softmax and a logsumexp
  are two calls and check nothing.
- *`cvar`, `spectral`, deshift's formula*: the weights of every rank are made before the clock starts, and dealt by two
  argsorts of positions; equal losses get unequal weights, nothing is checked, there is no dual and no gap. It is the
  floor of an answer without a certificate, and loses where sorting costs more than selection (CVaR at n = 65,536).
- *n = 65,536, partitions and passes*: each of our temporaries is fresh memory, whose pages cost more than the
  arithmetic; the floors work in place or make one array. `kl` evaluates an exponential, itself many passes, four to
  seven times.
- *memory*: the temporaries of one problem live together; blocks help batches, not one long problem.
- *float32*: we solve in float64 and cast, `dro` stays in float32.
- *batch gain*: a call for one problem of 64 losses is 30 to 50 microseconds of overhead. In a batch a row takes one or
  two, half of it for sums, extremes and partitions over rows of 64, which numpy starts anew for every row.
""",
]


def seconds_text(seconds: float) -> str:
    """Write a time with three digits and its unit.

    >>> seconds_text(0.000123), seconds_text(0.0456), seconds_text(7.0)
    ('123 µs', '45.6 ms', '7.00 s')
    """
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size or unit == "µs":
            break
    number = seconds / size
    digits = max(0, 2 - math.floor(math.log10(number))) if number > 0 else 0
    return f"{number:.{digits}f} {unit}"


def _number(found: float) -> str:
    return f"{found:.1e}" if 0 < found < 1e-2 else f"{found:.3g}"


def _verdict(finding: Finding) -> str:
    if finding.met is None or finding.factor is None:
        return "not measured"
    if finding.met:
        return "met" if finding.factor > 1e3 else f"met, {finding.factor:.2g} x better"
    return f"**missed** by {1 / finding.factor:.2g} x" if finding.factor else "**missed**"


def _table(header: list[str], rows: Iterable[list[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines]


def _set_cell(finding: Finding) -> str:
    if finding.found is None:
        return finding.where or "-"
    number = _number(finding.found)
    return f"{number if finding.met else f'**{number}**'} ({finding.where})" if finding.where else number


def _target_tables(found: dict[str, Any]) -> list[str]:
    names = [name for name in _TITLES if any(one["set"] == name for one in found["cells"])]
    findings = {name: targets.per_set(found, name) for name in names}
    general = targets.general(found)
    judged = [one.met for one in [*general, *(one for row in findings.values() for one in row)]]
    head = ["set", "n ≥ 512: time over fastest peer (≤ 1)", "n = 64 (≤ 2)", "batch gain (≥ 50)", "peak memory (≤ 6)"]
    summary = f"{judged.count(True)} of {len(judged)} targets met, {judged.count(False)} missed"
    return [
        f"{summary}, {judged.count(None)} not measured.",
        "",
        *_table(
            ["target", "limit", "found", "verdict", "worst at"],
            (
                [
                    one.target,
                    _number(one.limit),
                    "-" if one.found is None else _number(one.found),
                    _verdict(one),
                    one.where,
                ]
                for one in general
            ),
        ),
        "",
        "Per set, the worst case over libraries (numpy, torch), dtypes and directions, a miss in bold. In brackets:",
        "the fastest peer there, of the same library and dtype. The batch gain is that of one call for 4,096 problems",
        "of n = 64 over one call for each; memory is in multiples of the input.",
        "`kl_penalty` may take 3 times its peer, which checks nothing.",
        "",
        *_table(head, ([f"`{name}`", *map(_set_cell, row)] for name, row in findings.items())),
    ]


def _time_cell(record: Record | None, limit: float) -> str:
    if record is None:
        return ""
    if "skipped" in record:
        return f"> {limit:g} s"
    if "failed" in record:
        return "failed"
    text = seconds_text(record["seconds"])
    if record["kind"] == "floor":
        return text
    error = targets.error_of(record)
    mark = "NaN" if math.isinf(error) else f"{error:.0e}"
    return f"{text} · {mark}"


def _set_table(found: dict[str, Any], name: str) -> list[str]:
    """One row per contestant and direction, one column per shape; float64."""
    cells = [one for one in found["cells"] if one["set"] == name and one["dtype"] == "float64"]
    shapes = list(dict.fromkeys((one["batch"], one["n"]) for one in cells))
    rows: dict[tuple[str, ...], dict[tuple[int, int], Record]] = {}
    for one in cells:
        rows.setdefault((one["mode"], one["who"], one["library"]), {})[one["batch"], one["n"]] = one
    order = sorted(rows, key=lambda row: (row[0] == "backward", row[1].startswith("floor"), row[1] != "ours"))
    head = [f"{n:,}" if batch == 1 else f"{batch:,} x {n:,}" for batch, n in shapes]
    lines = []
    for mode, who, library in order:
        title = who if who.startswith("floor") else f"{who}, {library}{' +grad' if mode == 'backward' else ''}"
        times = [_time_cell(rows[mode, who, library].get(shape), found["limit"]) for shape in shapes]
        lines.append([f"**{title}**" if who == "ours" else title, *times])
    return [f"### {_TITLES[name]}", "", *_table(["", *head], lines), ""]


def _what_failed(found: dict[str, Any]) -> list[str]:
    seen: dict[tuple[str, str, str], list[str]] = {}
    for one in found["cells"]:
        if "failed" in one:
            shape = f"{one['n']:,}" if one["batch"] == 1 else f"{one['batch']:,} x {one['n']:,}"
            places = seen.setdefault((one["who"], one["set"], one["failed"]), [])
            places += [] if shape in places else [shape]
    rows = [[who, f"`{name}`", ", ".join(shapes), message] for (who, name, message), shapes in seen.items()]
    if not rows:
        return []
    return ["### What failed", "", *_table(["who", "set", "n", "message"], rows), ""]


def _failure_rows(found: dict[str, Any]) -> list[str]:
    def told(given: float | str) -> str:
        return given if isinstance(given, str) else f"{given:.6g}"

    rows = []
    for one in found["failures"]:
        kind = "run" if one["kind"] == "run" else "formula"
        if "skipped" in one:
            rows.append([one["peer"], kind, one["case"], f"not run: {one['skipped']}", "", ""])
            continue
        theirs = told(one["theirs"]) if one["reproduced"] else f"{told(one['theirs'])} (no longer wrong)"
        rows.append([one["peer"], kind, one["case"], theirs, told(one["ours"]), told(one["true"])])
    return _table(["peer", "how", "case", "theirs", "ours", "true"], rows)


def _gpu_section(found: dict[str, Any]) -> list[str]:
    if not found["on_gpu"]:
        return ["Not measured yet: `make gpu` measures it where there is one ([gpu.md](gpu.md))."]
    return [f"{hardware(found['on_gpu'])}: the tables are in [gpu.md](gpu.md), the targets above."]


def _machine(found: dict[str, Any]) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    quick = " **A quick run: a smoke test, no evidence.**" if found["quick"] else ""
    threads = f"{found['threads']} thread{'s' if found['threads'] > 1 else ''}"
    return [
        f"{found['cpu']}, {found['cores']} cores, {threads}, {found['system']}, GPU: {found['gpu'] or 'none'};",
        f"revision {found['revision']}, {found['minutes']} minutes.{quick}",
        f"{versions}.",
    ]


_METHOD = """\
- One process. In a cell (set, shape, direction) all contestants take turns on the same losses, up to 15 rounds of
  samples of at least a millisecond each; the time is the median, the JSON has the quartiles.
- Losses are softplus(-(1 + 2 N)), N standard normal: preference losses of a half-trained model. Weights **and** value
  are asked of everybody who has both. Ours runs with its input checks on, also on torch.
- The number after the dot is the relative error, the larger one of the value returned and of the value that the weights
  returned achieve, against an independent solution in extended precision (`benchmarks/references.py`).
- A contestant without batches solves 64 problems of a batch one by one; its time is scaled up to all. So is that of
  ours, one by one.
- cvxpy runs with a parametrised problem, compiled once, outside the clock (beyond n = 4,096 compiled anew, which
  takes less time and memory), and without a warm start from the same answer. `+grad` is forward and backward; a peer
  that returns weights gets the gradient for free.
- A cell is not run when an earlier one says that a call would take more than {limit:g} s (`> {limit:g} s`); conic
  solvers are also stopped then.
- `dro` solves the problem inside models: its linear ones are given no features and the losses as targets, its
  RobustLoss the square roots of the losses as outputs. It is loaded past its own start-up, which needs a gigabyte of
  packages that these solvers do not use.
- Memory is what numpy or torch allocate during one forward call (tracemalloc; torch's allocator events), results
  included, over the bytes of the losses, float64, and of a transport cost. For torch both are added.""".splitlines()


def write(results: Path, docs: Path) -> None:
    """Write ``benchmarks.md`` and its two plots into ``docs``."""
    found = json.loads(results.read_text()) | {"on_gpu": measured()}
    names = [name for name in _TITLES if any(one["set"] == name for one in found["cells"])]
    figures.times(found, _TITLES, docs / "benchmarks-time.png")
    figures.accuracy(found, _PLOTTED_N, docs / "benchmarks-error.png")
    lines = [
        "# Benchmarks",
        "",
        "Our solver against every PyPI package that solves the same problem, formulas published elsewhere, and the",
        "physical floor. Written by `make bench` from [solvers.json](../benchmarks/results/solvers.json); do not edit",
        "by hand.",
        "",
        *_machine(found),
        "",
        "## Targets",
        "",
        *_target_tables(found),
        "",
        *_CAUSES,
        "## Time",
        "",
        "![Seconds a call against n, one panel per set](benchmarks-time.png)",
        "",
        "Forward, float64. Solid lines and dots are numpy, dashed lines and squares torch; a hollow mark errs by more",
        "than a thousandth.",
        "",
        "![Relative error against seconds a call](benchmarks-error.png)",
        "",
        "## Failures of peers",
        "",
        f"Wrong is an error message, NaN, or off by more than {WRONG:.1%} of the truth. *run*: the package itself;",
        "*formula*: a peer outside PyPI, by the formula it publishes.",
        "",
        *_failure_rows(found),
        "",
        "## GPU",
        "",
        *_gpu_section(found),
        "",
        "## Every time",
        "",
        "float64, time · relative error; `numpy` and `torch` are CPU arrays. float32 is in the JSON.",
        "",
        *(line for name in names for line in _set_table(found, name)),
        *_what_failed(found),
        "## How it is measured",
        "",
        *(line.format(limit=found["limit"]) for line in _METHOD),
        "",
    ]
    (docs / "benchmarks.md").write_text("\n".join(lines))
