"""A small sweep, whole: what stands in its table, margins and weights, however many processes made it."""

import json

import numpy as np
import pytest
from joblib.externals.loky.backend.context import set_start_method
from small_sweeps import SETTINGS, swept

from llm.data.pairs import read_pairs
from llm.results.store import read_margins, read_results, read_suite, read_training_pairs, read_weights
from llm.sweep.head_pairs import head_data


def test_the_table_holds_every_run_suite_and_category(finished):
    results = read_results(finished.folder)
    done = results.done
    assert {finding.kind for finding in results.findings} == {"missing seeds", "failed runs"}
    assert done["run"].nunique() == 19 * 3
    assert set(done["final"]) == {"last", "average", "best"}
    assert set(done["suite"]) == {
        "id_test",
        "ood_reversed_length",
        "ood_shifted_mixture",
        "validation",
        "left-out-no-code",
    }
    whole = done[(done["suite"] == "id_test") & (done["category"] == "")]
    assert (whole["pairs"] == 40).all()
    assert set(done["ambiguity"]) >= {"erm", "tv:0.2", "mmd:0.1", "adaptive:tv:0.4"}


def test_a_failure_is_a_row_with_its_error(finished):
    failed = read_results(finished.folder).table.query("status == 'failed'")
    assert failed["batch_size"].tolist() == [4000] * 3
    assert failed["error"].str.contains("batch_size 4000 is more than the").all()


def test_accuracy_and_losses_are_those_of_the_margins(finished):
    row = read_results(finished.folder).done.query("suite == 'id_test' and category != ''").iloc[5]
    margins = read_margins(finished.folder, row["run"])["id_test"]
    suite = read_suite(finished.folder, "id_test")
    members = margins[suite["category"] == row["category"]].astype(np.float64)
    assert row["pairs"] == len(members)
    assert row["accuracy"] == pytest.approx(np.mean(members > 0))
    losses = np.logaddexp(0, -members)
    assert row["mean_loss"] == pytest.approx(losses.mean(), abs=1e-6)
    worst = np.sort(losses)[::-1]
    share = 0.1 * len(worst)
    tail = (worst[: int(share)].sum() + (share % 1) * worst[int(share)]) / share
    assert row["cvar_loss"] == pytest.approx(tail, abs=1e-5)
    longer = suite[suite["category"] == row["category"]]
    wins = np.mean(
        (longer["chosen_chars"] > longer["rejected_chars"]) + 0.5 * (longer["chosen_chars"] == longer["rejected_chars"])
    )
    assert row["longer_wins"] == pytest.approx(wins)


def test_weights_know_their_pairs_and_the_wrong_labels(finished):
    table, pairs = read_results(finished.folder).done, read_training_pairs(finished.folder)
    noisy = read_weights(finished.folder, table.query("regime == 'noisy'")["run"].iloc[0])
    assert noisy.flipped.sum() == round(0.25 * len(pairs))
    few = read_weights(finished.folder, table.query("regime == 'few'")["run"].iloc[0])
    assert len(few.rows) == 50
    assert few.visits.sum() == 2 * 48
    without = read_weights(finished.folder, table.query("regime == 'no-code'")["run"].iloc[0])
    assert "code" not in set(pairs["source"][without.rows])
    assert set(read_suite(finished.folder, "left-out-no-code")["source"]) == {"code"}
    validation = read_suite(finished.folder, "validation")
    assert set(validation["id"]).isdisjoint(pairs["id"])


def test_wrong_labels_turn_the_differences(finished):
    context = finished.context
    cell = next(cell for cell in context.config.cells if cell.regime == "noisy")
    data, selection, scale = head_data(cell, context)
    answers = np.load(context.features["tiny"].answers["train"])
    plain = (answers[0] - answers[1])[context.train]
    np.testing.assert_allclose(data.differences[selection.flipped] * scale, -plain[selection.flipped], atol=1e-6)
    np.testing.assert_allclose(data.differences[~selection.flipped] * scale, plain[~selection.flipped], atol=1e-6)
    np.testing.assert_allclose(np.mean(data.differences**2, axis=0), 1)


def test_seeds_change_subset_start_and_order(finished):
    table = read_results(finished.folder).done.query("regime == 'few' and ambiguity == 'erm' and final == 'last'")
    first, second = (read_weights(finished.folder, run) for run in table["run"].unique())
    assert set(first.rows) != set(second.rows)


def test_a_matched_set_has_the_effective_size_of_its_reference(finished):
    done = read_results(finished.folder).done
    assert {(spec == "erm", acted) for spec, acted in zip(done["ambiguity"], done["acted"], strict=True)} == {
        (True, None),
        (False, True),
    }
    sizes = done.groupby("ambiguity")["effective_sample_size"].mean()
    (matched,) = [name for name in sizes.index if name.startswith("chi2:")]
    assert sizes[matched] == pytest.approx(sizes["tv:0.2"], rel=0.03)


@pytest.fixture(params=["forkserver", pytest.param(None, marks=pytest.mark.exhaustive)], ids=["forked", "fresh"])
def workers(request):
    """How joblib starts its processes: forked with all imports done, or as fresh interpreters, which is its own way."""
    set_start_method(request.param, force=True)
    yield
    set_start_method(None, force=True)


@pytest.mark.slow("a sweep twice")
def test_parallel_runs_equal_serial_ones_bit_for_bit(workers, cache, tmp_path):
    grid = {"ambiguity": ["erm", "tv:0.2", "mmd:0.1", "chi2:?@tv:0.2"], "regime": ["all", "noisy"]}
    tables = []
    for jobs in (1, 2):
        _, counts = swept(tmp_path / str(jobs), cache, settings={**SETTINGS, "grid": grid}, jobs=jobs)
        assert counts["done"] == 8
        tables.append(read_results(tmp_path / str(jobs)).table.drop(columns="seconds"))
    assert tables[0].equals(tables[1])
    for run in set(tables[0]["run"]):
        one, other = (read_margins(tmp_path / jobs, run) for jobs in "12")
        assert all(np.array_equal(one[name], other[name]) for name in one)


def test_shifts_of_prompts_are_written_once_per_features(cache, tmp_path):
    settings = {**SETTINGS, "shift_budget": True, "grid": {"ambiguity": "erm"}}
    sweep, _ = swept(tmp_path, cache, settings=settings)
    shifts = json.loads((tmp_path / "shift.json").read_text())["models"]["tiny"]
    assert set(shifts) == {"id_test", "ood_reversed_length", "ood_shifted_mixture"}
    prompts = {pair.prompt[-1]["content"] for pair in read_pairs(sweep.context.sources.files["id_test"]).pairs}
    assert shifts["id_test"]["prompts"] <= len(prompts)
    for entry in shifts.values():
        assert 0 <= entry["lower"] <= max(entry["estimate"], 0)
    written = (tmp_path / "shift.json").stat().st_mtime_ns
    swept(tmp_path, cache, settings=settings)
    assert (tmp_path / "shift.json").stat().st_mtime_ns == written


@pytest.mark.exhaustive(turns=8)
@pytest.mark.usefixtures("forked_workers")
def test_whole_models_run_in_a_sweep_and_leave_the_same(tmp_path, cache):
    recipe = {
        "kind": "full", "recipe": "reward-tiny", "max_length": 48, "use_cpu": True, "final": ["last", "average"],
        "per_device_train_batch_size": 8, "save_steps": 8, "logging_steps": 2, "plain_share": 0, "ramp_share": 0,
        "dataloader_drop_last": True,
    }  # fmt: skip
    settings = {
        **SETTINGS, "models": {"whole": recipe}, "grid": {"ambiguity": "tv:0.25", "regime": "noisy", "batch_size": 16},
    }  # fmt: skip
    sweep, counts = swept(tmp_path / "r", cache, settings=settings)
    results = read_results(sweep.folder)
    assert counts == {"before": 0, "done": 2, "failed": 0}, results.findings
    assert set(results.table["final"]) == {"last", "average"}
    assert (results.table["batch_size"] == 16).all()
    # 4 of 16 at zero, one at 5/16: the same adversary as a head's
    np.testing.assert_allclose(results.table["effective_sample_size"], 1 / (11 / 256 + (5 / 16) ** 2), rtol=1e-4)
    run = results.table["run"].iloc[0]
    weights = read_weights(sweep.folder, run)
    assert weights.visits.sum() == 16 * (len(weights.rows) // 16)
    assert weights.flipped.sum() == round(0.25 * len(weights.rows))
    assert np.nanmean(weights.multiplier) == pytest.approx(1)
    assert read_margins(sweep.folder, run)["validation"].shape == (len(read_suite(sweep.folder, "validation")),)
    trainings = {run.split("-")[0] for run in results.table["run"].unique()}
    assert {path.name for path in (sweep.folder / "full").iterdir() if path.is_dir()} == trainings
    assert not list(sweep.folder.glob("full/*/model"))
    _, again = swept(tmp_path / "r", cache, settings=settings)
    assert again == {"before": 2, "done": 0, "failed": 0}
