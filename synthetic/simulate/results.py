"""What a run leaves in its folder: the records as CSV, parameters and slopes as JSON, the figure as PNG."""

from __future__ import annotations

import csv
import io
import json
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from dro_core.files import whole

from .page import write_page

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from .figures import Panel
    from .grid import Failure, Outcome, Record
    from .studies import Choices, Study

_PACKAGES = ("robust-rlhf", "numpy", "scipy", "statsmodels", "matplotlib", "joblib")


def write(
    chosen: Study, outcome: Outcome, folder: Path, *, choices: Choices, parameters: Mapping[str, Any]
) -> dict[str, Any]:
    """Write the files and return the content of ``summary.json``.

    ``curves.csv`` depends on the study and its parameters only. A figure needs at least one record.
    """
    panels = chosen.panels(outcome.rows, choices) if outcome.rows else []
    caption = _caption(panels, outcome.rows, random=any(chosen.seeds))
    summary = {
        "study": chosen.name,
        "version": chosen.version,
        "about": chosen.about,
        "figure": caption,
        "parameters": dict(parameters),
        "records": len(outcome.rows),
        "slopes": _slopes(panels),
        "failures": [_failure(failed) for failed in outcome.failures],
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}},
    }
    folder.mkdir(parents=True, exist_ok=True)
    _write_csv(folder / "curves.csv", outcome.rows)
    with whole(folder / "summary.json", unlocked=True) as stream:
        stream.write((json.dumps(summary, indent=1) + "\n").encode())
    picture = folder / f"{chosen.name}.png"
    if panels:
        from .figures import draw

        draw(panels, picture, title=chosen.title, caption=caption)
    else:
        picture.unlink(missing_ok=True)  # one of an earlier run would not belong to this table
    write_page(folder / f"{chosen.name}.html", summary, title=chosen.title, picture=picture if panels else None)
    return summary


def _write_csv(path: Path, rows: Sequence[Record]) -> None:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with whole(path, unlocked=True) as stream:
        stream.write(text.getvalue().encode())


def _caption(panels: Sequence[Panel], rows: Sequence[Record], *, random: bool) -> str:
    lines = [line for panel in panels for line in panel.curves]
    seeds = len({row["seed"] for row in rows})
    if any(line.low is not None for line in lines):
        parts = [f"Bands: 95 % t-interval of the mean over {seeds} seeds."]
    else:
        parts = ["No bands: one seed."] if random else ["No bands: every point is exact."]
    if any(line.theory for line in lines):
        parts.append("Dashed, broad: theory.")
    slopes = [line.slope for line in lines if line.slope is not None]
    if any(slope.low is not None for slope in slopes):
        parts.append("Slopes: 95 % intervals from Student's t over one slope per seed.")
    if any(slope.floor for slope in slopes):
        parts.append("A floor: the last third falls less than half as fast, so it is no power law.")
    return " ".join(filter(None, parts))


def _slopes(panels: Sequence[Panel]) -> list[dict[str, Any]]:
    return [
        {"panel": panel.title, "note": panel.note, "over": panel.x_label, "curve": line.label, "theory": line.theory}
        | line.slope._asdict()
        for panel in panels
        for line in panel.curves
        if line.slope is not None
    ]


def _failure(failed: Failure) -> dict[str, Any]:
    return {"point": dict(failed.task.point), "seed": failed.task.seed, "error": failed.error, "trace": failed.trace}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
