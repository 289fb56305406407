"""Diagnoses and reports from Python: of a run, of several, of a results folder."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..doctor.doctor import Diagnosis
from ..doctor.doctor import diagnose as examined
from ..doctor.record import read_run
from ..run.finished import RECORD
from ..run.kinds import KINDS
from .judged import evaluate
from .runs import Run


def diagnose(run: Run | str | Path) -> Diagnosis:
    """What is wrong with a training run, finished or not, the evidence, and what to try.

    Raises:
        llm.doctor.record.RunError: There is no run to look at.
    """
    return examined(read_run(run.folder if isinstance(run, Run) else run))


def write_report(
    what: Run | str | Path | Sequence[Run | str | Path],
    output: str | Path = "report.html",
    *,
    suites: object = None,
    **choices: Any,
) -> Path:
    """Write one page, with figures, tables and tests, and a folder of its figures and tables beside it.

    Args:
        what: The results of a sweep, the folder of a demo, an evaluation or a pipeline, a run (its folder also where it
            is not finished), or several runs, which are judged and compared; one trained plainly (``erm``) is what the
            others are compared with, where there is none the first.
        output: The page, a .html file.
        suites: What runs are judged by, as in ``evaluate``; None: the suites that they were told of, and of a run alone
            what it was judged by already.
        **choices: As of ``llm.report.content.build_content``.

    Returns:
        The page.

    Raises:
        llm.results.store.ResultsError: There is nothing to report.
        RunError: A run is damaged, or there is none.
        ValueError: ``output`` is no .html file, or there is no suite.
    """
    from ..report.content import build_content
    from ..report.page import write_report as write_page
    from ..report.sources.places import content_of

    if suites is None and isinstance(what, str | Path | Run):
        place = what.folder if isinstance(what, Run) else _run_folder(Path(what))
        return write_page(content_of(place, **choices), Path(output))[0]
    from ..report.collect import baseline_of
    from ..sweep.recorded import Finished, record_runs

    many = what if isinstance(what, Sequence) and not isinstance(what, str) else [what]
    runs = [run if isinstance(run, Run) else Run(run) for run in many]
    if not runs:
        raise ValueError("there is no run to report")
    judged = [evaluate(run, suites if suites is not None else list(runs[0].config.suites)) for run in runs]
    found = [Finished(run.folder, run.record, one.result["margins"]) for run, one in zip(runs, judged, strict=True)]
    with tempfile.TemporaryDirectory(prefix="robust-rlhf-") as folder:
        record_runs(Path(folder), found, judged[0].suites, about={"title": _title(runs)})
        choices.setdefault("baseline", baseline_of([run.ambiguity for run in runs]))
        return write_page(build_content(folder, **choices), Path(output))[0]


def _run_folder(place: Path) -> Path:
    """The folder of the run whose exported model this is; any other place as it is."""
    return place.parent if place.name == "model" and (place.parent / RECORD).exists() else place


def _title(runs: Sequence[Run]) -> str:
    kinds = {KINDS[run.kind].result if len(runs) == 1 else KINDS[run.kind].results for run in runs}
    name = " and ".join(sorted(kinds))
    return f"{name[:1].upper()}{name[1:]} against {', '.join(dict.fromkeys(run.ambiguity for run in runs))}"
