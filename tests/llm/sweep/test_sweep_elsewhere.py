"""A sweep on a cluster: the same to the bit, from wherever its workers stand, and a lost worker costs its training."""

import shutil
from functools import partial

import pytest
from nearby import bring_near
from small_sweeps import HEADS, KINDS, assert_same, prepared, quiet, sweep, undisturbed

from dro_core.clusters import worker
from dro_core.clusters.joining import ClusterError
from dro_core.clusters.pool import Pool
from llm.results.store import read_results
from llm.sweep.process import train_elsewhere


@pytest.fixture
def near(monkeypatch):
    bring_near(monkeypatch)
    monkeypatch.setattr(worker, "_begun", [])


def lost_once(once, moment, cell, **told):
    """Train; the worker of the first of them dies as it begins, or before it can tell what it has trained."""
    try:
        once.touch(exist_ok=False)
    except FileExistsError:
        return train_elsewhere(cell, **told)
    if moment == "has trained":
        train_elsewhere(cell, **told)
    raise SystemExit(1)


@pytest.mark.slow("it trains, loses a worker, and trains again")
@pytest.mark.parametrize(
    ("kind", "moment"),
    [
        pytest.param(kind, moment, marks=[] if (kind, moment) == ("heads", "begins") else pytest.mark.exhaustive)
        for kind in KINDS
        for moment in ("begins", "has trained")
    ],
)
@pytest.mark.usefixtures("near")
def test_a_lost_worker_is_a_failed_row_and_the_next_start_fills_the_hole(
    once, tmp_path, capsys, monkeypatch, kind, moment
):
    whole, folder = undisturbed(once, kind), tmp_path / "r"
    left = moment == "has trained"  # its result, which is found though nobody told of it
    with monkeypatch.context() as patch:
        patch.setattr("llm.sweep.sweep.train_elsewhere", partial(lost_once, tmp_path / "lost", moment))
        assert sweep(folder, KINDS[kind], "--backend", "dask") == (0 if left else 1)
    failed = read_results(folder).table.query("status == 'failed'")
    assert set(failed["error"]) == (set() if left else {"WorkerDied: its worker was lost (RuntimeError)"})
    assert failed["run"].str[:12].nunique() == (0 if left else 1)
    (folder / ".context-left").touch()  # by a command that was killed
    assert sweep(folder, KINDS[kind], "--backend", "dask") == 0
    assert ("0 trainings done" if left else "1 trainings done") in capsys.readouterr().err
    assert not list(folder.glob(".context*"))
    assert_same(folder, whole)


@pytest.mark.usefixtures("near")
def test_a_worker_that_does_not_see_the_files_is_refused_before_anything_is_trained(tmp_path):
    found = prepared(tmp_path / "r", {**HEADS, "grid": {"seeds": 2}})
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(ClusterError, match=r"does not see .*cache.*: results, --cache and data .* at the same path"):
        found.run(pool=Pool("dask"), report=quiet)
    assert len(read_results(tmp_path / "r").table) == 0
