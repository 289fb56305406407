"""A sweep that is started again, after an interrupt, a failure or with another grid, repeats only what it must."""

import shutil

import pytest
from small_sweeps import SETTINGS, prepared, quiet, swept

from dro_core.clusters.pool import Pool
from llm.features.features import FeatureCache
from llm.results.store import read_results
from llm.sweep.plan import parse_sweep
from llm.sweep.sweep import planned


def test_an_interrupted_sweep_keeps_what_was_done_and_goes_on(cache, tmp_path):
    sweep = prepared(tmp_path, {**SETTINGS, "grid": {"seeds": 3}}, cache)

    def impatient(done, planned, failed, note):
        if not note.startswith("matching") and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep.run(pool=Pool(jobs=1), report=impatient)
    assert set(read_results(tmp_path).table["seed"]) == {0, 1}
    assert sweep.run(pool=Pool(jobs=1), report=quiet) == {"before": 2, "done": 1, "failed": 0}
    assert set(read_results(tmp_path).table["seed"]) == {0, 1, 2}


def test_a_match_that_cannot_be_had_fails_alone(cache, tmp_path):
    settings = {**SETTINGS, "grid": {"ambiguity": ["erm", "tv:?,max_ratio=2@ess=0.1"], "seeds": 2}}
    _, counts = swept(tmp_path, cache, settings=settings)
    assert counts == {"before": 0, "done": 2, "failed": 2}
    failed = read_results(tmp_path).table.query("status == 'failed'")
    assert set(failed["ambiguity"]) == {"tv:?,max_ratio=2@ess=0.1"}
    assert failed["error"].str.contains("reaches effective shares between").all()


def test_a_second_start_repeats_only_what_failed(finished, cache):
    files = sorted(finished.folder.glob("runs/*.json"))
    before = {file.name: file.stat().st_mtime_ns for file in files}
    table = (finished.folder / "results.parquet").read_bytes()
    _, counts = swept(finished.folder, cache)
    assert counts == {"before": 19, "done": 0, "failed": 1}
    changed = [file.name for file in files if file.stat().st_mtime_ns != before[file.name]]
    assert len(changed) == 1
    assert (finished.folder / "results.parquet").read_bytes() == table


def test_another_grid_adds_to_what_is_done_and_keeps_the_table_clean(finished, cache, tmp_path):
    joined = tmp_path / "results"
    shutil.copytree(finished.folder, joined)
    more = {**SETTINGS, "grid": {"ambiguity": ["erm", "tv:0.2"], "seeds": 3}, "final": ["last"]}
    _, counts = swept(joined, cache, settings=more)
    assert counts == {"before": 4, "done": 2, "failed": 0}
    table = read_results(joined).table
    assert set(table["final"]) == {"last"}
    assert set(table["ambiguity"]) == {"erm", "tv:0.2"}


@pytest.mark.slow("a training for every setting")
def test_other_settings_are_other_trainings(finished, cache):
    base = {**SETTINGS, "grid": {"ambiguity": "erm", "seeds": 1}}
    folder = finished.folder
    assert planned(parse_sweep(base), folder, cache=FeatureCache(cache)).rows[0]["done"] == 1
    for change in (
        {"head": {"schedule": "linear"}},
        {"validation_share": 0.2},
        {"eval_pairs": 30},
        {"builtin": {"train": 160, "test": 41}},
        {"models": {"tiny": {**SETTINGS["models"]["tiny"], "max_length": 31}}},
        {"models": {"tiny": {**SETTINGS["models"]["tiny"], "learning_rate": 0.02}}},
        {"regimes": {"all": {"label_noise": 0.1}}},
    ):
        assert planned(parse_sweep({**base, **change}), folder, cache=FeatureCache(cache)).rows[0]["done"] == 0, change
