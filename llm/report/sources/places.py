"""What can be reported, told by what lies in a folder; and its content, whatever it is."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...results.store import TABLE, ResultsError
from ...run.files import JsonObject
from ...run.finished import RunError
from ...run.kinds import kind_of
from ..collect import BASELINE
from ..content import build_content
from ..story.names import listed
from .evaluations import EARLIER, earlier_evaluation
from .pipelines import policies_of, stages_of
from .policies import of_one_policy
from .recorded import write_runs
from .run_folders import METRICS, RunTold, is_run, told_by


def results_in(place: Path) -> Path | None:
    """Where the results of a sweep, a demo or an evaluation stand; None where there are none."""
    place = place.parent if place.name == TABLE else place
    if is_run(place):
        return None
    return next((folder for folder in (place, place / "results") if _is_results(folder)), None)


def content_of(*given: str | Path, **choices: Any) -> JsonObject:
    """Everything that the page of a folder says, or of several runs that are compared.

    Args:
        *given: The results of a sweep, a demo, an evaluation, a run (finished or not), or a pipeline; or several runs,
            of which the plain one is what the others are compared with, where there is none the last.
        **choices: As of ``build_content``.

    Raises:
        ResultsError: It is none of these, several are no runs that can be compared, or there is nothing to report.
        RunError: A run is damaged; the message names the file.
    """
    place, *others = map(Path, given)
    if not others and (found := results_in(place)) is not None:
        return build_content(found, **choices)
    with tempfile.TemporaryDirectory(prefix="robust-rlhf-") as folder:
        if others:
            _write_together([place, *others], Path(folder))
        else:
            _write(place, Path(folder))
        return build_content(folder, **choices)


def _write_together(folders: Sequence[Path], place: Path) -> None:
    """Several runs as results, as each was judged."""
    if odd := [folder for folder in folders if not is_run(folder)]:
        raise ResultsError(
            f"{odd[0]} is no run: several runs make one page, anything else makes a page of its own; of models alone, "
            "write robust-rlhf evaluate MODEL --against OTHER --suite FILE -o FOLDER, then robust-rlhf report FOLDER"
        )
    told = [told_by(folder) for folder in folders]
    if any(run.record.get("kind") == "policy" for run in told):
        raise ResultsError("policies are compared by robust-rlhf pipeline, whose folder has a page: report one alone")
    kinds = {str(run.record.get("kind")) for run in told}
    alike = Counter((run.record["config"]["ambiguity"], run.record["seed"]) for run in told)
    (ambiguity, seed), count = alike.most_common(1)[0]
    if len(kinds) > 1 or count > 1:
        same = (
            f"{count} runs are against {ambiguity} with seed {seed}"
            if count > 1
            else f"runs of {listed(sorted(kinds))}"
        )
        raise ResultsError(f"{same}: runs that make one page are of one kind and differ in their set or seed")
    sets = [run.record["config"]["ambiguity"] for run in told]
    about = {"title": " against ".join(folder.name for folder in folders)}
    about["baseline"] = BASELINE if BASELINE in sets else sets[-1]
    write_runs(place, told, about)


def _is_results(folder: Path) -> bool:
    return any((folder / name).exists() for name in (TABLE, f"{TABLE}.partial")) or any(folder.glob("runs/*.json"))


def _write(place: Path, folder: Path) -> None:
    if is_run(place):
        told = told_by(place)
        about = {"title": _title(told), "settings": told.record["config"], "policies": of_one_policy(place, told)}
        write_runs(folder, [told], about)
    elif stages := stages_of(place):
        told, missing = _told(stages.rewards)
        policies, more = policies_of(place, stages)
        about = {"title": f"RLHF in {place.name}", "policies": policies, "notes": [*stages.notes, *missing, *more]}
        write_runs(folder, told or _told(stages.others)[0], about)
    elif (place / METRICS).exists():
        write_runs(folder, [earlier_evaluation(place)], {"title": f"Evaluation {place.name}", "baseline": EARLIER})
    else:
        raise ResultsError(
            f"{place} holds nothing to report: name the results folder of a sweep, or the folder of a demo, an "
            "evaluation, a training run or a pipeline"
        )


def _told(folders: Sequence[Path]) -> tuple[list[RunTold], list[str]]:
    """The runs that can be read, and why the others cannot."""
    found, missing = [], []
    for folder in folders:
        try:
            found.append(told_by(folder))
        except RunError as error:
            missing.append(f"Left out: {error}.")
    return found, missing


def _title(told: RunTold) -> str:
    kind = kind_of(told.record.get("kind"))
    return f"{kind.result if kind else 'Run'} against {told.record['config']['ambiguity']}"
