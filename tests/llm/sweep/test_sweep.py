"""A small sweep, whole: resumed, interrupted by failures, in parallel, on regimes."""

import json
import shutil

import forked  # noqa: F401  it says what the server imports
import numpy as np
import pytest
import yaml
from joblib.externals.loky.backend.context import set_start_method

from llm.data.pairs import read_pairs
from llm.results.store import read_margins, read_results, read_suite, read_training_pairs, read_weights
from llm.sweep.features import FeatureCache
from llm.sweep.plan import parse_sweep, read_sweep, sweep_folder
from llm.sweep.runs import head_data
from llm.sweep.sweep import Sweep, planned
from robust_rlhf import main

SETTINGS = {
    "data": "builtin",
    "builtin": {"train": 160, "test": 40},
    "models": {"tiny": {"kind": "head", "model": "tiny", "max_length": 32, "epochs": 2, "batch_size": 16}},
    "regimes": {"noisy": {"label_noise": 0.25}, "no-code": {"without_sources": "code"}, "few": {"max_pairs": 50}},
    "grid": [
        {
            "ambiguity": ["erm", "tv:{radius}"],
            "radius": [0.2],
            "regime": ["all", "noisy", "no-code", "few"],
            "seeds": 2,
        },
        {"ambiguity": ["chi2:?@tv:0.2", "mmd:0.1", "adaptive:tv:0.4"]},
        {"ambiguity": "erm", "batch_size": 4000},
    ],
}


def quiet(*_):
    pass


def swept(folder, cache, *, settings=SETTINGS, jobs=1):
    sweep = Sweep(parse_sweep(settings), json.dumps(settings), folder, cache=FeatureCache(cache))
    return sweep, sweep.run(jobs=jobs, report=quiet)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, cache):
    folder = tmp_path_factory.mktemp("sweep") / "results"
    sweep, counts = swept(folder, cache)
    assert counts == {"before": 0, "done": 19, "failed": 1}
    return sweep


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


def test_an_interrupted_sweep_keeps_what_was_done_and_goes_on(cache, tmp_path):
    sweep = Sweep(parse_sweep({**SETTINGS, "grid": {"seeds": 3}}), "", tmp_path, cache=FeatureCache(cache))

    def impatient(done, planned, failed, note):
        if not note.startswith("matching") and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep.run(jobs=1, report=impatient)
    assert set(read_results(tmp_path).table["seed"]) == {0, 1}
    assert sweep.run(jobs=1, report=quiet) == {"before": 2, "done": 1, "failed": 0}
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


@pytest.fixture(params=["forkserver", pytest.param(None, marks=pytest.mark.exhaustive)], ids=["forked", "fresh"])
def workers(request):
    """How joblib starts its processes: forked with all imports done, or as fresh interpreters, which is its own way."""
    set_start_method(request.param, force=True)
    yield
    set_start_method(None, force=True)


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
    prompts = {pair.prompt[-1]["content"] for pair in read_pairs(sweep.context.files["id_test"]).pairs}
    assert shifts["id_test"]["prompts"] <= len(prompts)
    for entry in shifts.values():
        assert 0 <= entry["lower"] <= max(entry["estimate"], 0)
    written = (tmp_path / "shift.json").stat().st_mtime_ns
    swept(tmp_path, cache, settings=settings)
    assert (tmp_path / "shift.json").stat().st_mtime_ns == written


def test_a_plan_writes_nothing_and_computes_nothing(tmp_path, capsys):
    path = tmp_path / "sweep.yaml"
    path.write_text(json.dumps(SETTINGS))
    status = main(
        ["sweep", "--config", str(path), "--output", str(tmp_path / "r"), "--cache", str(tmp_path / "c"), "--dry-run"]
    )
    assert status == 0
    shown = capsys.readouterr().out
    assert "20 trainings, 0 of them done" in shown
    assert "tv:0.2" in shown
    assert {file.name for file in tmp_path.iterdir()} == {"sweep.yaml"}


def test_the_command_reports_failures_by_its_status(tmp_path, cache, capsys):
    settings = {**SETTINGS, "grid": [{"ambiguity": "erm"}, {"ambiguity": "erm", "batch_size": 4000}]}
    path = tmp_path / "sweep.yaml"
    path.write_text(json.dumps(settings))
    arguments = ["sweep", "--config", str(path), "--output", str(tmp_path / "r"), "--cache", str(cache), "--jobs", "1"]
    assert main(arguments) == 1
    assert "1 trainings done, 0 were done before, 1 failed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"models": {}}, "models must be a mapping"),
        ({"models": {"x": {"kind": "half"}}}, "must say its kind, head"),
        ({"models": {"x": {"kind": "head"}}}, "lacks its model"),
        ({"models": {"x": {"kind": "head", "model": "tiny", "dtype": "half"}}}, "dtype must be one of"),
        ({"models": {"x": {"kind": "head", "model": "tiny", "epochs": "1e1"}}}, "epochs of a head must be a number"),
        ({"models": {"x": {"kind": "full", "colour": 1}}}, "unknown setting 'colour'"),
        ({"eval_pairs": 0}, "eval_pairs must be"),
        ({"grid": {"ambiguity": "tv:{radius}"}}, "asks for radii"),
        ({"grid": {"ambiguity": "nothing:1"}}, "unknown ambiguity"),
        ({"grid": {"ambiguity": "chi2:0.1@tv:0.2"}}, "needs one \\?"),
        ({"grid": {"ambiguity": "chi2:?@ess=2"}}, "effective share"),
        ({"grid": {"regime": "none"}}, "unknown regime 'none'"),
        ({"grid": {"batch_size": 0}}, "must be positive"),
        ({"grid": {"learning_rate": "fast"}}, "must be numbers"),
        ({"grid": {"colour": 1}}, "unknown setting 'colour'"),
        ({"regimes": {"x": {"noise": 1}}}, "'noise'; it takes a mapping of"),
        ({"regimes": {"x": {"label_noise": 0.7}}}, "share of wrong labels"),
        ({"final": ["first"]}, "unknown final 'first'"),
        ({"validation_share": 0}, "chosen by validation pairs"),
        ({"head": {"momentum": 1}}, "unknown setting 'momentum'"),
        ({"colour": 1}, "unknown setting 'colour'"),
    ],
)
def test_settings_that_make_no_sense_are_explained(change, said):
    with pytest.raises(ValueError, match=said):
        parse_sweep({**SETTINGS, **change})


def test_a_regime_that_does_not_fit_the_data_is_explained(tmp_path, cache):
    plain = {**SETTINGS, "grid": {"regime": "x"}}
    with pytest.raises(ValueError, match="names the source 'chat'; the training pairs have arithmetic, code"):
        swept(tmp_path, cache, settings={**plain, "regimes": {"x": {"sources": "chat"}}})
    wrong = {"sources": "code", "without_sources": "code"}
    with pytest.raises(ValueError, match="leaves no training pair"):
        swept(tmp_path, cache, settings={**plain, "regimes": {"x": wrong}})


@pytest.mark.parametrize("name", [path.stem for path in sweep_folder().glob("*.yaml")])
def test_shipped_sweeps_can_be_read(name):
    config, text = read_sweep(name)
    assert config.cells
    assert parse_sweep(yaml.safe_load(text)) == config


def test_a_sweep_that_is_not_there_lists_the_shipped_ones():
    with pytest.raises(ValueError, match="give a YAML file or one of "):
        read_sweep("nothing")


@pytest.mark.usefixtures("forked_workers")
def test_whole_models_run_in_a_sweep_and_leave_the_same(tmp_path, cache):
    recipe = {
        "kind": "full", "recipe": "reward-tiny", "max_length": 32, "use_cpu": True, "final": ["last", "average"],
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
