"""Groups by name in a sweep: columns of the training file reach heads and whole models, and wrong labels count."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_sweeps import prepared, quiet

from dro_core.clusters.pool import Pool
from llm.data.corpus.corpus import generate
from llm.data.pairs import DataError, write_pairs
from llm.results.store import read_results
from llm.sweep.head_pairs import head_data
from llm.sweep.runs import head_run

SPECS = ["balanced:by=tag", "permuted_groups:tv:0.2,by=tag", "tv:0.2,by=tag*length_gap/2", "tv:0.2,by=chosen_is_longer",
         "tv:?,by=tag@tv:0.2"]  # fmt: skip
TAGS = ["de", "de", "de", "en"]
HEAD = {"kind": "head", "model": "tiny", "max_length": 32, "epochs": 2, "batch_size": 16}
WHOLE = {"kind": "full", "recipe": "reward-tiny", "max_length": 32, "use_cpu": True, "max_steps": 2, "plain_share": 0,
         "per_device_train_batch_size": 8, "logging_steps": 1, "cross_prompt": 0.5}  # fmt: skip


@pytest.fixture(scope="module")
def folder(once):
    def build(folder):
        (folder / "data").mkdir()
        pairs = [replace(p, kept=(("tag", TAGS[n % 4]),)) for n, p in enumerate(generate(96, seed=2))]
        write_pairs(pairs, folder / "data" / "train.jsonl")
        write_pairs(generate(16, seed=3), folder / "data" / "suite.jsonl")

    return once("grouped-sweep", build)


def settings(folder, **more):
    told = {"data": str(folder / "data"), "models": {"heads": HEAD}, "regimes": {"noisy": {"label_noise": 0.25}}}
    return told | {"grid": {"ambiguity": SPECS, "regime": ["all", "noisy"]}} | more


@pytest.fixture(scope="module")
def swept(folder, tmp_path_factory):
    sweep = prepared(tmp_path_factory.mktemp("groups") / "s", settings(folder))
    counts = sweep.run(pool=Pool(jobs=1), report=quiet)
    return sweep, counts


def cell_of(sweep, spec, regime="all"):
    return replace(next(c for c in sweep.context.config.cells if c.regime == regime), ambiguity=spec)


def test_every_control_is_a_row_of_the_table_under_its_own_name(swept):
    sweep, counts = swept
    assert counts["failed"] == 0
    table = read_results(sweep.folder).table
    names = set(table["ambiguity"])
    assert names >= {spec for spec in SPECS if "?" not in spec}
    assert any(name.startswith("tv:") and name.endswith(",by=tag") for name in names)


def test_balancing_weighs_as_counted_over_every_batch(swept):
    """Of three groups of one size to one, the smaller has multipliers above 1 and the larger below, in sum equal."""
    sweep, _ = swept
    run, pairs = head_run(cell_of(sweep, "balanced:by=tag"), sweep.context)
    tags, mean = np.array(pairs.data.columns["tag"]), run.ledger.multiplier_sum
    sums = {tag: mean[tags == tag].sum() for tag in ("de", "en")}
    assert sums["de"] == pytest.approx(sums["en"], rel=1e-6)
    permuted = head_run(cell_of(sweep, "permuted_groups:balanced:by=tag"), sweep.context)[0].ledger.multiplier_sum
    assert permuted.sum() == pytest.approx(mean.sum())
    assert abs(permuted[tags == "de"].sum() - permuted[tags == "en"].sum()) > 0.2 * mean.sum()


def test_wrong_labels_change_who_is_longer_and_no_gap(swept):
    sweep, _ = swept
    (clean, right, _), (noisy, wrong, _) = (
        head_data(cell_of(sweep, "erm", r), sweep.context) for r in ("all", "noisy")
    )
    assert not right.flipped.any()
    assert wrong.flipped.any()
    np.testing.assert_array_equal(clean.columns["length_gap"], noisy.columns["length_gap"])
    uneven = clean.columns["length_gap"] > 0
    changed = clean.columns["chosen_is_longer"] != noisy.columns["chosen_is_longer"]
    np.testing.assert_array_equal(changed[uneven], wrong.flipped[uneven])


@pytest.mark.exhaustive(turns=8)
def test_a_whole_model_reads_the_column_too_and_its_ledger_is_of_its_own_pairs(folder, tmp_path):
    told = settings(folder, models={"whole": WHOLE}, grid={"ambiguity": "tv:0.3,by=tag"}, regimes={})
    sweep = prepared(tmp_path / "s", told)
    assert sweep.run(pool=Pool(jobs=1), report=quiet)["failed"] == 0
    table = read_results(sweep.folder).table
    assert set(table["ambiguity"]) == {"tv:0.3,by=tag"}


def test_a_column_that_is_not_there_stops_the_sweep(folder, tmp_path):
    with pytest.raises(
        DataError, match=r"by=tagg: there is no column 'tagg', did you mean 'tag'\? The columns are: .*tag"
    ):
        prepared(tmp_path / "s", settings(folder, grid={"ambiguity": "tv:0.2,by=tagg"}))
