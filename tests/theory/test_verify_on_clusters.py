"""`robust-rlhf verify` on a cluster: the reports of a crew here, and a lost worker costs its own claim one more try."""

import dataclasses
from functools import partial

import pytest
from nearby import bring_near
from planted_claims import by_label, plant

from dro_core.clusters import worker
from dro_core.clusters.pool import Pool
from proofs_check import QUICK, _on_clusters
from proofs_check.__main__ import main
from proofs_check._on_clusters import _checked as check
from proofs_check._tasks import Task, unfinished
from proofs_check._workers import Crew, Lost


@pytest.fixture
def near(monkeypatch, tmp_path):
    bring_near(monkeypatch)
    monkeypatch.setattr(worker, "_begun", [])
    return plant(tmp_path, monkeypatch)


def tasks(near, *labels, **told):
    return [Task(label, near[1], QUICK, seed=1, **told) for label in labels]


def losing(deaths, task):
    """Check a claim; the first workers that have this one die."""
    if task.label == "plain" and len(list(deaths.iterdir())):
        next(deaths.iterdir()).unlink()
        raise SystemExit(1)
    return check(task)


@pytest.fixture
def deaths(request, tmp_path, monkeypatch):
    """How many workers die."""
    (tmp_path / "deaths").mkdir()
    for number in range(request.param):
        (tmp_path / "deaths" / str(number)).touch()
    monkeypatch.setattr(_on_clusters, "_checked", partial(losing, tmp_path / "deaths"))
    return request.param


@pytest.mark.exhaustive(turns=8)
@pytest.mark.slow("claims are checked in fresh processes, which load everything")
@pytest.mark.parametrize("deaths", [1], indirect=True)
def test_a_lost_worker_costs_its_own_claim_one_more_try_and_changes_no_report(near, deaths):
    given = tasks(near, "plain", "false")
    news = list(_on_clusters.reports_from(Pool("dask", jobs=1), given))
    assert news.pop(0) == Lost("plain", "its worker was lost (RuntimeError)")
    assert [report.label for report in news] == ["false", "plain"]
    here, there = (
        {report.label: dataclasses.replace(report, seconds=0.0) for report in reports}
        for reports in (Crew(1).reports(given), news)
    )
    assert there == here
    assert {label: report.verdict.value for label, report in there.items()} == {"plain": "upheld", "false": "refuted"}


@pytest.mark.parametrize("deaths", [2], indirect=True)
def test_a_claim_that_loses_two_workers_is_inconclusive(near, deaths):
    lost, report = _on_clusters.reports_from(Pool("dask"), tasks(near, "plain"))
    assert isinstance(lost, Lost)
    assert report.verdict.value == "inconclusive"
    assert report.reason == "It could not be checked: its worker was lost (RuntimeError)."


def test_a_folder_that_a_worker_does_not_see_is_said(near, tmp_path):
    [report] = _on_clusters.reports_from(Pool("dask"), tasks(near, "plain", certificates=tmp_path / "nowhere"))
    assert f"does not see {tmp_path / 'nowhere'}" in report.reason


def test_an_interrupt_keeps_what_is_finished(near, monkeypatch, capsys):
    def interrupted(pool, given):
        yield unfinished(given[0], "Not of interest.")
        raise KeyboardInterrupt

    monkeypatch.setattr("proofs_check.__main__.reports_from", interrupted)
    assert main([*near, "plain", "false", "--backend", "dask", "--json", "out.json"]) == 130
    assert "Interrupted. Not checked: false." in capsys.readouterr().out
    assert list(by_label()) == ["plain"]
