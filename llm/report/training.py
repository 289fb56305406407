"""How whole models were trained and what with: curves from their logs, versions, data; nothing for heads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ..results.audits import read_audits, summary
from ..results.store import ABOUT, read_about
from ..run.files import JsonObject
from .collect import Collection
from .drawing import Drawing, Series, line_figure
from .figures import arm_looks
from .plots import MAX_POINTS, Style, curve, styles

_AMONG_NOTES = ("audit", "concerns")  # of the report, not among its facts

CURVES = {
    "mean_loss": ("Mean loss", "plain average over the batch, in nats"),
    "robust_loss": ("Robust loss", "average under the adversary's weights, in nats"),
    "mean_regret": ("Mean regret", "loss beyond the least that soft labels allow, in nats: what the adversary sees"),
    "robust_regret": ("Robust regret", "the same under the adversary's weights, in nats"),
    "effective_sample_size": ("Effective sample size", "how many examples the weights amount to"),
    "zero_share": ("Share of examples with weight 0", "ignored by the adversary"),
    "largest_multiplier": ("Largest weight", "relative to plain training = 1"),
    "radius_fraction": ("Strength in use", "share of the full radius, by the schedule"),
    "radius_used": ("Radius in use", "in the set's own unit, as it was at every step"),
    "collapse_radius": (
        "Radius that the margins bear",
        "of the latest batches: from there on noise explains all labels",
    ),
    "eval_loss": ("Loss on held-out pairs", "measured during training"),
    "eval_accuracy": ("Accuracy on held-out pairs", "measured during training"),
}


def trainings(collection: Collection) -> list[JsonObject]:
    """The runs of whole models: ``arm`` (its position), ``seed``, ``steps``, ``seconds`` and ``curves`` by name."""
    found = []
    for number, arm in enumerate(collection.arms):
        for seed, run in arm.runs.items():
            if record := collection.record(run):
                curves = {name: points for name in CURVES if (points := _curve(record.get("history", []), name))}
                facts = {name: collection.runs.at[run, name] for name in ("steps", "seconds")}
                found.append({"arm": number, "seed": seed, **facts, "curves": curves})
    return found


def origin(collection: Collection) -> JsonObject:
    """``title``, ``command``, ``settings``, ``data`` and ``environment``: of each what is known, and of all runs."""
    about = read_about(collection.folder)
    if not about and (collection.folder / ABOUT).exists():
        collection.notes.append(f"{ABOUT} is damaged: the command and the settings are not shown.")
    records = [record for arm in collection.arms for run in arm.runs.values() if (record := collection.record(run))]
    hashes = {record.get("data", {}).get("train", {}).get("sha256") for record in records}
    data = dict(records[0].get("data", {})) if len(hashes) == 1 else {}
    data = {name: fact for name, fact in data.items() if name not in _AMONG_NOTES}
    return {
        "title": about.get("title") or f"Results of {collection.folder.name}",
        "command": about.get("command", ""),
        "settings": about.get("settings", {}),
        "policies": about.get("policies"),
        "advice": about.get("advice", []),
        "data": data | about.get("data", {}),
        "environment": _united([record.get("environment", {}) for record in records]),
    }


def audit_notes(collection: Collection) -> list[str]:
    """A sentence on what each model saw of the pairs: from the audits of a sweep, else from the records of its runs."""
    audits = read_audits(collection.folder)
    named = ((name, entry["audit"], entry["concerns"]) for name, entry in audits.items())
    found = named if audits else _audits_of_runs(collection)
    return list(
        dict.fromkeys(
            " ".join(
                [
                    f"What {model} saw of its training pairs: {summary(audit)}.",
                    *(f"{text[:1].upper()}{text[1:]}." for text in concerns),
                ]
            )
            for model, audit, concerns in found
        )
    )


def _audits_of_runs(collection: Collection) -> Iterator[tuple[str, JsonObject, list[str]]]:
    for arm in collection.arms:
        for run in arm.runs.values():
            data = collection.record(run).get("data", {})
            if "audit" in data:
                concerns = [f"{concern['evidence']}: {concern['remedy']}" for concern in data.get("concerns", ())]
                yield str(arm.settings["model"]), data["audit"], concerns


def training_figures(report: JsonObject) -> list[Drawing]:
    """What was logged over the steps, a line for every run: of the arms with details, else of all."""
    look = arm_looks(report)
    detailed = [[entry["arm"] for entry in detail["arms"]] for detail in report["details"]]
    drawings = []
    for number, members in enumerate(detailed or [list(range(len(report["arms"])))]):
        runs = [run for run in report["training"] if run["arm"] in members]
        names = [report["arms"][arm]["ambiguity"] for arm in members]
        label = report["arms"][members[0]]["family"]
        shown = look if detailed else styles(names, names[0])
        for name in CURVES:
            if drawing := _figure(report, runs, name, f"training-{number}-{name}", label, shown):
                drawings.append(drawing)
    return drawings


def _figure(
    report: JsonObject, runs: list[JsonObject], name: str, key: str, family: str, look: Mapping[str, Style]
) -> Drawing | None:
    found = [(report["arms"][run["arm"]]["ambiguity"], run) for run in runs if name in run["curves"]]
    if not found:
        return None
    series = [
        Series(arm, look[arm], *zip(*run["curves"][name], strict=True), marked=len(run["curves"][name]) < 3)
        for arm, run in found
    ]
    title, note = CURVES[name]
    heading = f"{title}, {family}" if family else title
    ends = "; ".join(f"{line.name} ends at {line.y[-1]:.3g}" for line in series)
    svg = line_figure(series, key=key, label=f"{heading} over training steps, {note}: {ends}", axes_names=("step", ""))
    rows = [
        {"arm": arm, "seed": run["seed"], "step": step, name: value}
        for arm, run in found
        for step, value in run["curves"][name]
    ]
    averaged = f" Longer logs are averaged in {MAX_POINTS} stretches." if len(series[0].x) == MAX_POINTS else ""
    return Drawing(key, heading, f"{note.capitalize()}.{averaged}", svg, rows)


def _curve(history: Sequence[JsonObject], name: str) -> list[tuple[float, float]]:
    """Plain training logs its mean loss as ``loss``."""
    points = curve(history, name)
    return points if points or name != "mean_loss" else curve(history, "loss")


def _united(records: list[Mapping[str, object]]) -> dict[str, str]:
    """Name -> the values that records have, each once."""
    names = dict.fromkeys(name for record in records for name in record)
    return {
        name: " | ".join(dict.fromkeys(str(record[name]) for record in records if name in record)) for name in names
    }
