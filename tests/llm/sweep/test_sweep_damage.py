"""A sweep whose files are damaged, lost or another's: the damage is named and the next start makes it good."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from results_samples import cut
from small_sweeps import HEADS, WHOLE, assert_same, prepared, sweep, undisturbed
from tokenizer_shapes import bytewise

from llm.results.store import read_results
from llm.sweep.runs import identity, run_training
from robust_rlhf import main


@pytest.mark.slow("it trains a whole model again")
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


def test_other_weights_at_the_start_of_a_whole_model_are_another_training(tmp_path):
    start = tmp_path / "start"
    start.mkdir()
    (start / "config.json").write_text("{}")
    bytewise().save_pretrained(start)
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
