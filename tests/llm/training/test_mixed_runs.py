"""Runs on several files: each is the run on the list that they come to, from every face, and is resumed as itself."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import command_lines
import pandas as pd
import pytest
import yaml
from datasets import Dataset
from safetensors.numpy import load_file
from tiny_models import save_models
from whole_runs import SHAPE, wrong

import llm
from llm.data.corpus.corpus import generate
from llm.data.pairs import write_pairs
from llm.kinds.registry import config_of
from llm.pipeline.plan import read_pipeline
from llm.pipeline.run import begin, note, state_of
from llm.training.config import ConfigError
from robust_rlhf import main

ONE = [replace(pair, source="one") for pair in generate(16, seed=1)]
TWO = [replace(pair, source="unknown") for pair in generate(20, seed=2)]
LISTED = [*ONE, *(replace(pair, id=f"{pair.id}-again") for pair in ONE), *(replace(pair, source="two") for pair in TWO)]
KINDS = ("sft", "reward", "dpo", "policy")
POLICY = {
    "gradient_accumulation_steps": 1,
    "prompts_per_step": 4,
    "samples": 2,
    "max_new_tokens": 6,
    "max_length": 96,
    "distinct_prompts": "false",
}


@pytest.fixture(scope="module")
def data(once):
    def build(folder):
        write_pairs(ONE, folder / "one.jsonl")
        write_pairs(TWO, folder / "two.jsonl")
        write_pairs(LISTED, folder / "listed.jsonl")
        write_pairs([*TWO[:-1], ONE[0]], folder / "other.jsonl")
        save_models(folder, LISTED, max_length=96)

    return once("mixed-data", build)


def command(kind, data, output, *files, **more):
    own = POLICY | {"model": data / "start", "reward_model": data / "rm"} if kind == "policy" else {}
    told = {"config": f"{kind}-tiny", "output_dir": output, **SHAPE, "max_steps": 3, "save_steps": 2, "plain_share": 0,
            "ambiguity": "tv:0.3,by=source", **own, **more}  # fmt: skip
    return ["train", kind, "--train_file", *map(str, files), *command_lines.flags(told)]


@pytest.fixture(scope="module")
def runs(once, data):
    """Of every kind a run on a mixture and one on the list that it means."""

    def build(folder):
        for kind in KINDS:
            mixed = [f"{data / 'one.jsonl'}:2", data / "two.jsonl"]
            assert main(command(kind, data, folder / f"{kind}-mixed", *mixed)) == 0
            assert main(command(kind, data, folder / f"{kind}-listed", data / "listed.jsonl")) == 0

    return once("mixed-runs", build)


def weights(run):
    return load_file(run / "model" / "model.safetensors")


@pytest.mark.exhaustive(turns=8)
@pytest.mark.slow("eight runs are built")
@pytest.mark.parametrize("kind", KINDS)
def test_a_mixture_is_trained_on_as_the_list_that_it_means(runs, kind):
    mixed, listed = (weights(runs / f"{kind}-{name}") for name in ("mixed", "listed"))
    assert mixed.keys() == listed.keys()
    assert all((mixed[name] == listed[name]).all() for name in mixed)
    record = json.loads((runs / f"{kind}-mixed" / "run.json").read_text())
    assert [file["weight"] for file in record["data"]["train"]["files"]] == [2, 1]
    assert record["data"]["trained_on"] == len(LISTED)
    said = record["adversary"]["source" if kind == "policy" else "by_source"]
    assert set(said) == {"one", "two"}
    card = (runs / f"{kind}-mixed" / "model" / "README.md").read_text()
    assert "52 examples an epoch, from 36" in card
    assert "| file 2 | two.jsonl, sha256" in card
    assert "20 x 1, source two" in card
    assert llm.Run(runs / f"{kind}-mixed").config.train_file == record["config"]["train_file"]


CHANGES = {
    "the same": ((":2", "two.jsonl"), None),
    "another weight": ((":1", "two.jsonl"), "sha256 of the train file, training file 1"),
    "another content": ((":2", "other.jsonl"), "sha256 of the train file, training file 2"),
    "one file more": ((":2", "two.jsonl", "listed.jsonl"), "sha256 of the train file, training file 3"),
}


@pytest.mark.slow("a run for every change")
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=() if k == "reward" else pytest.mark.exhaustive) for k in KINDS]
)
def test_a_run_is_resumed_with_the_same_files_weights_and_names_only(runs, data, tmp_path, capsys, kind, change):
    (weight, second, *third), sentence = CHANGES[change]
    shutil.copytree(runs / f"{kind}-mixed", tmp_path / "run")
    files = [f"{data / 'one.jsonl'}{weight}", *(data / name for name in (second, *third))]
    if second == "other.jsonl":  # under the name that was there: files count by what they hold
        (tmp_path / "two.jsonl").write_bytes((data / second).read_bytes())
        files[1] = tmp_path / "two.jsonl"
    argv = command(kind, data, tmp_path / "run", *files, resume="true")
    if sentence is None:
        assert main(argv) == 0
    else:
        assert f"was started with another {sentence}" in wrong(capsys, *argv)


def test_a_broken_off_run_goes_on_as_if_nothing_had_been(runs, data, tmp_path):
    whole = runs / "reward-mixed"
    shutil.copytree(whole, tmp_path / "run")
    for name in ("run.json", "model", "checkpoint-3"):  # as a kill in step 3 leaves it
        path = tmp_path / "run" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    argv = command("reward", data, tmp_path / "run", f"{data / 'one.jsonl'}:2", data / "two.jsonl", resume="true")
    assert main(argv) == 0
    there, here = weights(whole), weights(tmp_path / "run")
    assert all((there[name] == here[name]).all() for name in there)


def test_a_setting_of_earlier_versions_is_one_file():
    record = {"train_file": "train.jsonl", "model": "m"}
    for kind in KINDS:
        assert config_of(kind).of_record(record).train_file == "train.jsonl"
        with pytest.raises(ConfigError, match="every weight is 0"):
            config_of(kind)(train_file=["a:0"])


@pytest.mark.parametrize("kind", KINDS)
def test_yaml_names_files_by_mappings(data, tmp_path, capsys, kind):
    files = [{"file": str(data / "one.jsonl"), "weight": 2, "source": "first"}, str(data / "two.jsonl")]
    recipe = {"train_file": files, **({"model": str(data / "start"), "reward_model": str(data / "rm")} | POLICY
              if kind == "policy" else {"model": "tiny"}), "max_length": 96}  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert main(["train", kind, "--config", str(tmp_path / "recipe.yaml"), "--output_dir", str(tmp_path / "run"),
                 "--use_cpu", "true", "--dry_run", "true"]) == 0  # fmt: skip
    said = " ".join(capsys.readouterr().out.split())
    assert "52" in said
    assert "one.jsonl x 2 (16" in said


DATA = {
    "paths": lambda data: [(data / "one.jsonl", 2), data / "two.jsonl"],
    "texts": lambda data: [f"{data / 'one.jsonl'}:2", (str(data / "two.jsonl"), 1)],
    "objects": lambda data: [(ONE, 2), {"file": Dataset.from_list(rows(TWO)), "source": "two"}],
    "frames": lambda data: [{"file": pd.DataFrame(rows(ONE)), "weight": 2}, (pd.DataFrame(rows(TWO, source="two")), 1)],
}


def rows(pairs, **more):
    return [{"id": p.id, "prompt": list(p.prompt), "chosen": p.chosen, "rejected": p.rejected, "source": p.source,
             "category": p.category, **({"question_id": p.question_id} if p.question_id else {}), **more}
            for p in pairs]  # fmt: skip


@pytest.mark.parametrize("way", DATA)
@pytest.mark.parametrize(
    "kind", ["reward", *(pytest.param(k, marks=pytest.mark.exhaustive) for k in ("sft", "policy"))]
)
def test_python_mixes_what_lies_on_disk_and_what_does_not(runs, data, tmp_path, kind, way):
    settings = {**SHAPE, "use_cpu": True, "disable_tqdm": True, "max_steps": 3, "save_steps": 2, "plain_share": 0}
    own = {"model": "tiny"}
    if kind == "policy":
        own = {"model": data / "start", "reward_model": str(data / "rm"), **POLICY, "distinct_prompts": False}
    run = llm.train(kind, DATA[way](data), ambiguity="tv:0.3,by=source", output=tmp_path / "run",
                    recipe=f"{kind}-tiny", **(settings | own))  # fmt: skip
    there, here = weights(runs / f"{kind}-mixed"), weights(run.folder)
    assert all((there[name] == here[name]).all() for name in there)


def test_a_pipeline_mixes_and_notices_a_file_that_changed(data, tmp_path):
    for name in ("one.jsonl", "two.jsonl"):
        shutil.copy(data / name, tmp_path / name)
    files = [{"file": str(tmp_path / "one.jsonl"), "weight": 2}, f"{tmp_path / 'two.jsonl'}:0.5"]
    plan = {"output_dir": str(tmp_path / "run"), "train_file": files,
            "reward": {"recipe": "reward-tiny"}, "policy": {"recipe": "policy-tiny", "model": "smollm2"}}  # fmt: skip
    (tmp_path / "rlhf.yaml").write_text(yaml.safe_dump(plan))
    stage = read_pipeline(tmp_path / "rlhf.yaml").stages()[0]
    assert stage.parsed()[0].train_file == [f"{tmp_path / 'one.jsonl'}:2", f"{tmp_path / 'two.jsonl'}:0.5"]
    begin(stage)
    note(stage, judged=False)
    (stage.folder / "run.json").write_text("{}")  # a folder without a run is made from anything
    assert state_of(stage).name == "BEGUN"
    shutil.copy(data / "other.jsonl", tmp_path / "two.jsonl")
    with pytest.raises(ConfigError, match=r"another train_file .*two\.jsonl \(its content changed\)"):
        state_of(stage)
