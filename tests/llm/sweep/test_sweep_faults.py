"""A sweep whose processes are killed, that is interrupted, whose files are damaged: the next start makes it whole."""

import json
import os
import random
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from threading import Thread

import forked  # noqa: F401  it says what the server imports
import numpy as np
import pytest

import dro_core.workers as machinery
from llm.results.store import read_results
from llm.results.training_records import read_arrays
from llm.sweep.features import FeatureCache
from llm.sweep.plan import parse_sweep
from llm.sweep.runs import identity, run_training
from llm.sweep.sweep import Sweep
from robust_rlhf import main

DATA = {"data": "builtin", "builtin": {"train": 120, "test": 30}}
TINY = {"kind": "head", "model": "tiny", "max_length": 32, "epochs": 200, "batch_size": 16}
HEADS = {**DATA, "models": {"tiny": TINY}, "grid": {"ambiguity": ["erm", "tv:0.2"], "seeds": 4}}
WHOLE = {
    **DATA,
    "models": {
        "whole": {
            "kind": "full", "recipe": "reward-tiny", "max_length": 32, "use_cpu": True, "final": ["last", "average"],
            "per_device_train_batch_size": 8, "save_steps": 4, "logging_steps": 2,
        }
    },
    "grid": {"ambiguity": "tv:0.25"},
}  # fmt: skip
KINDS = {"heads": HEADS, "whole models": WHOLE}
KILLED = "WorkerDied: its process was ended by SIGKILL; the machine may be out of memory"


def sweep(folder, settings, *, jobs=2):
    """The command, in this process."""
    file = folder.parent / f"{folder.name}.yaml"
    file.write_text(json.dumps(settings))
    cache = folder.parent / "cache"
    arguments = ["--config", file, "--output", folder, "--cache", cache, "--jobs", jobs]
    return main(["sweep", *map(str, arguments)])


def prepared(folder, settings):
    return Sweep(parse_sweep(settings), json.dumps(settings), folder, cache=FeatureCache(folder.parent / "cache"))


def undisturbed(once, kind):
    """A finished sweep that nothing happened to."""
    name = f"sweep of {kind}"
    return once(name, lambda place: prepared(place / "r", KINDS[kind]).run(jobs=1, report=lambda *_: None)) / "r"


def store(folder):
    """All that a sweep leaves and says of its results; how long it took is not among it."""
    table = read_results(folder).table.drop(columns="seconds")
    arrays = {file.name: read_arrays(file) for file in sorted(folder.glob("*/*.npz"))}
    files = [*folder.glob("suites/*.parquet"), *folder.glob("data/*"), folder / "train.parquet"]
    return table, arrays, {file.name: file.read_bytes() for file in files}


def assert_same(folder, other):
    (table, arrays, files), (others_table, others_arrays, others_files) = store(folder), store(other)
    assert table.equals(others_table)
    assert arrays.keys() == others_arrays.keys()
    for name, stored in arrays.items():
        assert all(np.array_equal(values, others_arrays[name][key], equal_nan=True) for key, values in stored.items())
    assert files == others_files


@pytest.fixture
def hands(monkeypatch):
    """Of the processes that a sweep starts."""
    seen = []

    class Noted(machinery._Hand):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            seen.append(self)

    monkeypatch.setattr(machinery, "_Hand", Noted)
    return seen


def meanwhile(condition, act):
    """Act once, as soon as something is the case."""

    def watch():
        end = time.monotonic() + 120
        while time.monotonic() < end:
            if condition():
                act()
                return
            time.sleep(0.01)

    thread = Thread(target=watch)
    thread.start()
    return thread


def reached(folder, kind):
    """Whether it is in the middle of its work."""
    return any(folder.glob({"heads": "runs/*.json", "whole models": "full/*/checkpoint-*/trainer_state.json"}[kind]))


@pytest.mark.slow("it trains, with a process killed, and trains again")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "moment", [0, *(pytest.param(n, marks=pytest.mark.exhaustive) for n in range(1, 5))], ids=lambda n: f"moment {n}"
)
@pytest.mark.usefixtures("forked_workers")
def test_a_killed_process_is_a_failed_row_and_the_next_start_fills_the_hole(
    once, hands, tmp_path, capsys, kind, moment
):
    whole, folder = undisturbed(once, kind), tmp_path / "r"
    wait = random.Random(moment).uniform(0, 0.4) if moment else 0.1  # a head takes half a second

    def kill():
        time.sleep(wait)
        os.kill(hands[-1].process.pid, signal.SIGKILL)

    thread = meanwhile(lambda: reached(folder, kind), kill)
    status, said = sweep(folder, KINDS[kind]), capsys.readouterr().err
    thread.join()
    total = read_results(whole).table["run"].str[:12].nunique()
    table = read_results(folder).table
    failed = table[table["status"] == "failed"]
    assert "Traceback" not in said
    assert f"{total} trainings" in said or f"{total - 1} trainings done, 0 were done before, 1 failed" in said
    assert status == min(len(failed), 1)
    if moment == 0:
        assert set(failed["error"]) == {KILLED}
        assert failed["run"].str[:12].nunique() == 1
    assert sweep(folder, KINDS[kind]) == 0
    assert_same(folder, whole)


@pytest.fixture
def interruptible():
    """This process hears interrupts, which a suite in a shell's background ignores."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow("it trains a whole model in a process of its own")
@pytest.mark.usefixtures("forked_workers", "hands", "interruptible")
def test_an_interrupt_lets_the_process_of_a_whole_model_save_a_checkpoint(once, tmp_path, capsys):
    whole, folder = undisturbed(once, "whole models"), tmp_path / "r"
    thread = meanwhile(lambda: reached(folder, "whole models"), lambda: os.kill(os.getpid(), signal.SIGINT))
    assert sweep(folder, WHOLE) == 130
    thread.join()
    assert "interrupted" in capsys.readouterr().err
    [training] = [path for path in (folder / "full").iterdir() if path.name.isalnum()]
    steps = [json.loads(file.read_text())["global_step"] for file in training.glob("checkpoint-*/trainer_state.json")]
    assert any(step % 4 for step in steps)  # not one of those that every run saves
    assert sweep(folder, WHOLE) == 0
    assert_same(folder, whole)


@pytest.mark.parametrize("damaged", ["settings.json", "checkpoint-*/model.safetensors"])
def test_a_whole_model_of_which_nothing_is_whole_begins_anew(damaged, once, tmp_path, caplog):
    kept = once("stopped whole model", _stop_a_whole_model)
    folder = tmp_path / "r"
    shutil.copytree(kept, folder)
    context = prepared(folder, WHOLE).context
    [cell, *_] = context.config.cells
    [training] = (folder / "full").glob("*/settings.json")
    for file in training.parent.glob(damaged):
        cut(file)
    assert run_training(cell, context).error == ""
    assert "begins anew" in caplog.text


def _stop_a_whole_model(folder):
    """As a kill after the first checkpoint leaves it."""
    sweep = prepared(folder, WHOLE)
    [cell, *_] = sweep.context.config.cells
    model = sweep.context.config.models["whole"]
    kept = replace(model, keep_models=True)
    context = replace(sweep.context, config=replace(sweep.context.config, models={"whole": kept}))
    assert not run_training(cell, context).error
    [first, *others] = sorted((folder / "full").glob("*/checkpoint-*"), key=lambda path: int(path.name[11:]))
    ran = first.parent
    ran.rename(ran.with_name(identity(cell, sweep.context)))
    ran = ran.with_name(identity(cell, sweep.context))
    for part in [*(ran / other.name for other in others), ran / "model"]:
        shutil.rmtree(part)
    shutil.rmtree(folder / "runs")


@pytest.mark.usefixtures("forked_workers")
def test_a_training_that_kills_its_process_every_time_ends(tmp_path, monkeypatch):
    folder = tmp_path / "r"
    settings = {**HEADS, "grid": {"ambiguity": ["erm", "tv:0.2"], "seeds": 2}}
    monkeypatch.setattr("llm.sweep.sweep.train", _deadly)
    started = prepared(folder, settings)
    for _ in range(2):
        counts = started.run(jobs=2, report=lambda *_: None)
        assert counts == {"before": 0, "done": 0, "failed": 4}
        assert set(read_results(folder).table["error"]) == {KILLED}


def _deadly(cell):
    os.kill(os.getpid(), signal.SIGKILL)


def test_other_weights_at_the_start_of_a_whole_model_are_another_training(tmp_path):
    start = tmp_path / "start"
    start.mkdir()
    (start / "config.json").write_text("{}")
    whole = {**WHOLE["models"]["whole"], "model": str(start)}
    settings = {**WHOLE, "models": {"whole": whole}}

    def names():
        context = prepared(tmp_path / "r", settings).context
        return {identity(cell, context) for cell in context.config.cells}

    (start / "model.safetensors").write_bytes(b"one")
    first = names()
    assert names() == first
    (start / "model.safetensors").write_bytes(b"two")
    assert not names() & first


def cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def scramble(file):
    """Another digit where there is text, another bit where there is none."""
    content = bytearray(file.read_bytes())
    text = file.suffix in (".json", ".jsonl", ".yaml")
    digits = [at for at, byte in enumerate(content) if 48 <= byte < 57] if text else []
    place = digits[len(digits) // 3] if digits else len(content) // 3
    content[place] ^= 1
    file.write_bytes(bytes(content))


HARMS = {"cut": cut, "scrambled": scramble, "deleted": Path.unlink}
PARTS = ("results.parquet", "runs/*.json", "margins/*-last.npz", "weights/*.npz", "suites/id*.parquet", "train.parquet",
         "data/*.jsonl", "matched.json", "shift.json", "sweep.yaml", "../cache/*.npy", "../cache/*.sha256")  # fmt: skip
TOLD = {
    "results.parquet": "results.parquet",
    "runs/*.json": "1 files are missing, cut off or changed: runs/",
    "margins/*-last.npz": "1 files are missing, cut off or changed: margins/",
    "weights/*.npz": "1 files are missing, cut off or changed: weights/",
    "suites/id*.parquet": "The pairs of id_test are missing or damaged",
    "train.parquet": "train.parquet, the training pairs, is missing or damaged",
}
EVERYTHING = {
    **HEADS, "shift_budget": True, "final": ["last", "average"],
    "grid": [{"ambiguity": ["erm", "chi2:?@tv:0.2"], "epochs": 2}],
}  # fmt: skip


@pytest.mark.slow("a start of a sweep for every file")
@pytest.mark.parametrize(
    "harm", [name if name == "scrambled" else pytest.param(name, marks=pytest.mark.exhaustive) for name in HARMS]
)
def test_damage_to_any_file_is_found_named_and_made_good(tmp_path, capsys, harm):
    folder, whole = tmp_path / "a" / "r", tmp_path / "b" / "r"
    for place in (folder, whole):
        place.parent.mkdir()
        assert sweep(place, EVERYTHING, jobs=1) == 0
    for part in PARTS:
        file = sorted((folder / part).parent.glob(Path(part).name))[0]
        before = file.read_bytes()
        HARMS[harm](file)
        assert not file.exists() or file.read_bytes() != before
        capsys.readouterr()
        assert main(["report", str(folder), "-o", str(tmp_path / "p.html"), "--families", "0"]) == 0
        assert TOLD.get(part, "") in capsys.readouterr().out, part
        assert sweep(folder, EVERYTHING, jobs=1) == 0
        assert_same(folder, whole)
        if part not in ("runs/*.json", "weights/*.npz", "margins/*-last.npz"):
            assert file.read_bytes() == before, part
        assert not any(finding.kind == "damaged files" for finding in read_results(folder).findings)


@pytest.mark.slow("it trains a whole model in a process of its own")
@pytest.mark.exhaustive
@pytest.mark.usefixtures("forked_workers")
def test_a_whole_model_that_lost_its_margins_is_trained_again_and_one_without_its_record_is_named(
    once, tmp_path, capsys
):
    whole, folder = undisturbed(once, "whole models"), tmp_path / "r"
    shutil.copytree(whole, folder)
    cut(sorted(folder.glob("margins/*"))[0])
    assert sweep(folder, WHOLE) == 0
    assert "1 trainings done, 1 were done before, 0 failed" in capsys.readouterr().err
    assert_same(folder, whole)
    cut(sorted(folder.glob("full/*/run.json"))[0])
    assert sweep(folder, WHOLE) == 0
    said = capsys.readouterr().err
    assert "0 trainings done, 2 were done before, 0 failed" in said
    assert "1 files are missing, cut off or changed: full/" in said


def test_another_built_in_corpus_replaces_the_one_that_is_there(tmp_path):
    contexts = [prepared(tmp_path / "r", {**HEADS, "builtin": {"train": n, "test": 30}}).context for n in (120, 90)]
    sizes = [len(context.train) + len(context.validation) for context in contexts]  # less what cannot be told apart
    assert 120 >= sizes[0] > 90 >= sizes[1] > 60
