"""The report of a demo: the numbers as report.json, and the same as one self-contained report.html.

``build_report`` does the statistics and returns plain JSON; ``write_report`` only draws what stands in there,
so an old report.json can be drawn again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ..data.pairs import Pair
from ..report import plots
from ..report.pages import breakable, filled
from ..run.files import json_ready, write_json, write_text
from ..run.terminal import shown
from ..statistics.numbers import MISSING, bracket, decimals, p_text, percent
from .arms import LEVEL, ArmRun, Arms, adjust_for_multiplicity, macro_report, suite_report
from .verdicts import cautions, verdicts

__all__ = ["ArmRun", "build_report", "render_summary", "write_report"]

FORMAT = 1
LONGEST_TEXT = 4000  # characters of an example shown in the HTML; report.json keeps all

_CURVES = (
    ("mean_loss", "Mean loss", "plain average over the batch, in nats"),
    ("robust_loss", "Robust loss", "average under the adversary's weights, in nats"),
    ("effective_sample_size", "Effective sample size", "how many examples the weights amount to"),
    ("zero_share", "Share of examples with weight 0", "ignored by the adversary"),
    ("largest_multiplier", "Largest weight", "relative to plain training = 1"),
    ("radius_fraction", "Radius in use", "share of the full radius, by the schedule"),
    ("eval_accuracy", "Accuracy on held-out pairs", "measured during training"),
)


def build_report(
    *,
    title: str,
    runs: Sequence[ArmRun],
    suites: Mapping[str, Sequence[Pair]],
    data: dict,
    environment: dict,
    command: str,
    settings: dict,
) -> dict[str, Any]:
    """All numbers of a report, JSON-ready.

    Args:
        title: Heading.
        runs: Finished runs; those with the same ambiguity set form an arm. Runs may lack suites.
        suites: The pairs behind the margins of the runs.
        data: Files, hashes, counts; shown as it is.
        environment: Versions and hardware; shown as it is.
        command: The command line that made the runs.
        settings: Hyperparameters; shown as they are.

    Raises:
        ValueError: No run, two runs of one arm with one seed, or margins that do not fit their suite.
    """
    arms = Arms(runs)
    judged = {name: suite_report(name, pairs, arms) for name, pairs in suites.items()}
    tests = adjust_for_multiplicity(judged)
    report = {
        "format": FORMAT,
        "title": title,
        "level": LEVEL,
        "baseline": arms.baseline,
        "arms": [_arm(name, list(seeds.values())) for name, seeds in arms.runs.items()],
        "tests": tests,
        "suites": judged,
        "macro": macro_report(judged, arms),
        "runs": [_run(run) for run in runs],
        "data": data,
        "environment": environment,
        "command": command,
        "settings": settings,
    }
    report = json_ready(report)
    return {**report, "verdicts": verdicts(report), "cautions": [*arms.unlike(), *cautions(report)]}


def write_report(report: Mapping[str, Any], folder: str | Path) -> None:
    """Write report.json and report.html into ``folder``; a failure leaves earlier ones as they are."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    page = _page(report)
    write_json(folder / "report.json", report)
    write_text(folder / "report.html", page)


def render_summary(report: Mapping[str, Any]) -> Table:
    """The headline table for the screen: accuracy per suite and arm, difference to the baseline below it."""
    table = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title="Accuracy, %",
        caption=f"brackets: 95 % interval over prompts; points: against {report['baseline']}; ties count one half",
    )
    table.add_column("suite / arm", overflow="fold", min_width=20)  # a row each: as columns arms do not fit
    for heading in ("pairs", "accuracy", "interval", "points", "ties"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, suite in report["suites"].items():
        _add_rows(table, report, name, suite)
    if report["macro"] and len(report["macro"]["suites"]) > 1:
        _add_rows(table, report, "average", report["macro"])
    return table


def _add_rows(table: Table, report: Mapping[str, Any], name: str, record: Mapping[str, Any]) -> None:
    """The arms on one suite, and the rule that they have to beat."""
    table.add_row(shown(name), str(record.get("pairs", "")), style="bold")
    for arm in (arm["ambiguity"] for arm in report["arms"]):
        table.add_row(shown(f"  {arm}"), "", *_summary_cells(record, arm))
    table.add_row("  longer wins", "", percent(record["longer_wins"]), style="italic")
    table.add_section()


def _summary_cells(record: Mapping[str, Any], arm: str) -> list[str]:
    if arm not in record["arms"]:
        return [MISSING]
    entry, difference = record["arms"][arm], record["differences"].get(arm)
    points = percent(difference["difference"], sign="+") if difference else ""
    return [percent(entry["accuracy"]), bracket(entry["low"], entry["high"]), points, str(entry.get("ties", ""))]


def _arm(name: str, runs: Sequence[ArmRun]) -> dict[str, Any]:
    return {
        "ambiguity": name,
        "seeds": [run.seed for run in runs],
        "steps": [run.steps for run in runs],
        "seconds": [run.seconds for run in runs],
    }


def _run(run: ArmRun) -> dict[str, Any]:
    names = ("ambiguity", "seed", "steps", "seconds", "history", "adversary")
    return {name: getattr(run, name) for name in names}


def _page(report: Mapping[str, Any]) -> str:
    filters = {"percent": percent, "decimals": decimals, "p_text": p_text, "bracket": bracket}
    names = [arm["ambiguity"] for arm in report["arms"]]
    look = plots.styles(names, report["baseline"])
    return filled(
        "report.html.j2",
        {**filters, "shortened": _shortened, "breakable": breakable},
        report=report,
        names=names,
        compared=[name for name in names if name != report["baseline"]],
        keys=_legend_keys(look),
        figures=_suite_figures(report, look),
        curves=_curve_figures(report, look),
        weights=_weight_tables(report, look),
        longest=LONGEST_TEXT,
        stretches=plots.MAX_POINTS,
    )


def _legend_keys(look: Mapping[str, plots.Style]) -> Callable[[str], Markup]:
    """Draws once per arm, and gives each copy on the page ids of its own."""
    drawn = {name: plots.legend_key(style, "key") for name, style in look.items()}
    copies = count()
    return lambda name: Markup(drawn[name].replace("key-", f"key{next(copies)}-"))


def _suite_figures(report: Mapping[str, Any], look: Mapping[str, plots.Style]) -> dict[str, dict[str, Markup]]:
    """Accuracy and difference panels: ``overview`` over the suites, then one per suite with categories."""
    panels = {"overview": list(report["suites"].items())}
    panels |= {
        f"suite:{name}": [("all pairs", suite), *suite["categories"].items()]
        for name, suite in report["suites"].items()
        if suite["categories"]
    }
    figures: dict[str, dict[str, Markup]] = {}
    for number, (panel, rows) in enumerate(panels.items()):
        shown = [(name, record) for name, record in rows if record["pairs"]]
        if not shown:
            continue
        place = panel.removeprefix("suite:") if number else "each suite"
        what = f"on {place}, with 95 % intervals; the table below has the numbers"
        figures[panel] = {
            "accuracy": Markup(
                plots.accuracy_figure(shown, look, key=f"a{number}", label=f"Accuracy of every arm {what}")
            )
        }
        if any(record["differences"] for _, record in shown):
            figures[panel]["difference"] = Markup(
                plots.difference_figure(
                    shown, look, key=f"d{number}", label=f"Difference to {report['baseline']} {what}"
                )
            )
    return figures


def _curve_figures(report: Mapping[str, Any], look: Mapping[str, plots.Style]) -> list[dict[str, Any]]:
    figures = []
    for number, (field, title, note) in enumerate(_CURVES):
        curves = [(run["ambiguity"], _curve(run["history"], field)) for run in report["runs"]]
        curves = [(arm, points) for arm, points in curves if points]
        if not curves:
            continue
        label = f"{title} over training steps, {note}: " + "; ".join(
            f"{arm} ends at {points[-1][1]:.3g}" for arm, points in curves
        )
        svg = plots.curve_figure(curves, look, key=f"c{number}", label=label)
        figures.append({"title": title, "svg": Markup(svg), "note": note})
    return figures


def _curve(history: Sequence[Mapping[str, Any]], field: str) -> list[tuple[float, float]]:
    """Plain training logs its mean loss as ``loss``."""
    points = plots.curve(history, field)
    return points if points or field != "mean_loss" else plots.curve(history, "loss")


def _weight_tables(report: Mapping[str, Any], look: Mapping[str, plots.Style]) -> list[dict[str, Any]]:
    """Weight by source and by category: a figure, and the shares of pairs and of weight per arm."""
    tables = []
    for kind, noun in (("by_source", "source"), ("by_category", "category")):
        shares = {arm: share for arm in look if (share := _shares(report, arm, kind))}
        groups = sorted({name for share in shares.values() for name in share})
        if not groups:
            continue
        rows = [
            (name, {arm: share[name]["multiplier"] for arm, share in shares.items() if name in share})
            for name in groups
        ]
        label = f"Mean weight of the training examples by {noun}; the table below has the numbers"
        svg = Markup(plots.weight_figure(rows, look, key=f"w-{noun}", label=label))
        tables.append({"noun": noun, "svg": svg, "groups": groups, "shares": shares})
    return tables


def _shares(report: Mapping[str, Any], arm: str, kind: str) -> dict[str, dict[str, float]]:
    """Per group, averaged over the arm's seeds: pairs, their share, mean weight, and share of all weight."""
    tables = [
        run["adversary"][kind] for run in report["runs"] if run["ambiguity"] == arm and run["adversary"].get(kind)
    ]
    names = {name for table in tables for name in table}
    mean = {
        name: {
            field: sum(table[name][field] for table in tables if name in table) / sum(name in table for table in tables)
            for field in ("pairs", "multiplier")
        }
        for name in names
    }
    pairs = sum(record["pairs"] for record in mean.values())
    weight = sum(record["pairs"] * record["multiplier"] for record in mean.values())
    return {
        name: {
            **record,
            "share_of_pairs": record["pairs"] / pairs,
            "share_of_weight": record["pairs"] * record["multiplier"] / weight if weight else 0.0,
        }
        for name, record in mean.items()
    }


def _shortened(text: str, limit: int) -> str:
    cut = len(text) - limit
    return text if cut <= 0 else f"{text[:limit]} [... {cut} more characters in report.json]"
