"""One mapping, wherever files are read: commands and the Python face do with raw files what they do with our own."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pandas as pd
import pytest
import yaml
from safetensors.numpy import load_file

import llm
from llm.data.corpus.corpus import generate
from llm.data.mixing import mixed_prompts
from llm.data.pairs import DataError, read_pairs, write_pairs
from llm.kinds.registry import config_of
from llm.pipeline.plan import read_pipeline
from llm.results.store import read_training_pairs
from llm.sweep.plan import read_sweep
from llm.training.config import ConfigError
from llm.training.run import load_training_pairs
from llm.training.settings import parse_train
from robust_rlhf import main

TRAIN = [replace(pair, question_id=None) for pair in generate(32, seed=1)]
TEST = [replace(pair, question_id=None) for pair in generate(24, seed=2)]
KEYS = {"prompt": "ask", "first": "left", "second": "right", "winner": "says", "id": "nr", "source": "from",
        "category": "about"}  # fmt: skip
COLUMNS = "prompt=ask,first=left,second=right,winner=says,id=nr,source=from,category=about"
SWAPPED = COLUMNS.replace("left", "RIGHT").replace("right", "left").replace("RIGHT", "right")
FLAGS = ["--use_cpu", "true", "--max_length", "48", "--per_device_train_batch_size", "8", "--max_steps", "2",
         "--logging_steps", "1", "--plain_share", "0"]  # fmt: skip


def raw(pairs):
    """Records of another shape: two sides in changing order, and who won."""
    rows = []
    for number, pair in enumerate(pairs):
        sides = (pair.chosen, pair.rejected) if number % 3 else (pair.rejected, pair.chosen)
        row = {"ask": pair.prompt[0]["content"], "left": sides[0], "right": sides[1], "says": "ab"[number % 3 == 0]}
        rows.append(row | {"nr": pair.id, "from": pair.source, "about": pair.category})
    return rows


@pytest.fixture(scope="module")
def data(once):
    """train and two suites in a folder, raw but for one suite; and the same in our own layout."""

    def build(folder):
        for name in ("raw", "plain"):
            (folder / name).mkdir()
            write_pairs(TEST, folder / name / "plain_test.jsonl")
        for name, pairs in (("train", TRAIN), ("raw_test", TEST)):
            lines = "".join(json.dumps(row) + "\n" for row in raw(pairs))
            (folder / "raw" / f"{name}.jsonl").write_text(lines)
            write_pairs(pairs, folder / "plain" / f"{name}.jsonl")

    return once("mapped-data", build)


def trained(folder, data, *more):
    flags = ["--config", "reward-tiny", "--train_file", str(data / "train.jsonl"), *FLAGS, "--output_dir", str(folder)]
    suites = [str(data / name) for name in ("raw_test.jsonl", "plain_test.jsonl")]
    return main(["train", "reward", *flags, "--suites", *suites, *more])


@pytest.fixture(scope="module")
def runs(once, data):
    """A reward model of raw files and one of canonical files."""

    def build(folder):
        assert trained(folder / "raw", data / "raw", "--columns", COLUMNS) == 0
        assert trained(folder / "plain", data / "plain") == 0

    return once("mapped-runs", build)


def margins(folder):
    rows = map(json.loads, (folder / "margins.jsonl").read_text().splitlines())
    return {(row["suite"], row["id"]): row["margin"] for row in rows}


def test_a_mapped_run_is_the_run_on_the_pairs_that_it_means(runs):
    weights = [load_file(runs / name / "model" / "model.safetensors") for name in ("raw", "plain")]
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[1])
    assert margins(runs / "raw") == margins(runs / "plain")
    assert len(margins(runs / "raw")) == 2 * len(TEST)
    record = json.loads((runs / "raw" / "run.json").read_text())
    assert record["config"]["columns"] == record["data"]["train"]["columns"] == COLUMNS
    assert "columns" not in json.loads((runs / "plain" / "run.json").read_text())["data"]["train"]


def test_another_mapping_is_another_run(runs, data, tmp_path, capsys):
    shutil.copytree(runs / "raw", tmp_path / "run")
    assert trained(tmp_path / "run", data / "raw", "--resume", "true", "--columns", SWAPPED) == 2
    assert "columns" in capsys.readouterr().err


@pytest.mark.parametrize("way", ["flag", "yaml"])
@pytest.mark.parametrize("kind", ["sft", "reward", "dpo", "policy"])
def test_every_kind_reads_by_the_mapping(data, tmp_path, kind, way):
    argv = [
        "--train_file",
        str(data / "raw" / "train.jsonl"),
        "--output_dir",
        str(tmp_path / "run"),
        "--use_cpu",
        "true",
    ]
    if way == "flag":
        argv += ["--columns", COLUMNS]
    else:
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"columns": KEYS}))
        argv += ["--config", str(tmp_path / "recipe.yaml")]
    argv += ["--eval_file", str(data / "plain" / "plain_test.jsonl")] if kind != "policy" else []
    config, _ = parse_train(config_of(kind), argv)
    assert config.columns == COLUMNS
    if kind == "policy":
        read = mixed_prompts(config.train_file, distinct=False, columns=config.columns)
        assert [(p.id, p.messages, p.source) for p in read.items] == [(p.id, p.prompt, p.source) for p in TRAIN]
        assert read.describe()["columns"] == COLUMNS
        return
    train, held_out, files, *_ = load_training_pairs(config)
    assert (train, held_out) == (TRAIN, TEST)
    assert (files["train"]["columns"], files["eval"].get("columns")) == (COLUMNS, None)


def test_a_slip_in_the_mapping_stops_before_anything_is_written(data, tmp_path, capsys):
    wrong = COLUMNS.replace("ask", "asked")
    assert trained(tmp_path / "run", data / "raw", "--columns", wrong) == 2
    assert ".jsonl: columns: there is no column for prompt=asked, did you mean 'ask'?" in capsys.readouterr().err
    assert trained(tmp_path / "run", data / "raw", "--columns", "promt=ask") == 2
    assert "there is no key 'promt', did you mean 'prompt'?" in capsys.readouterr().err
    assert trained(tmp_path / "run", data / "raw") == 2
    assert "nothing says which of left and right is better: name the column that does" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_evaluate_and_export_by_the_mapping(runs, data, tmp_path, capsys):
    model = str(runs / "plain")
    suites = ["--suite", str(data / "raw" / "raw_test.jsonl"), str(data / "raw" / "plain_test.jsonl")]
    assert main(["evaluate", model, *suites, "--columns", COLUMNS, "--output", str(tmp_path / "judged")]) == 0
    assert margins(tmp_path / "judged") == pytest.approx(margins(runs / "plain"), abs=1e-6)
    assert (
        main(["export", model, "--to", "rewardbench", "-o", str(tmp_path / "out"), *suites, "--columns", COLUMNS]) == 0
    )
    one, other = (next((tmp_path / "out").rglob(f"{name}_test.json*")) for name in ("raw", "plain"))
    assert one.read_text() == other.read_text()
    assert main(["evaluate", str(runs / "raw"), *suites, "--output", str(tmp_path / "told")]) == 0  # the run knows it
    assert margins(tmp_path / "told") == margins(tmp_path / "judged")
    capsys.readouterr()
    alone = ["--suite", str(data / "plain" / "plain_test.jsonl"), "--columns", COLUMNS]
    assert main(["evaluate", model, *alone]) == 2
    assert "none of plain_test has the columns of" in capsys.readouterr().err


def test_a_sweep_and_a_demo_by_the_mapping(data, tmp_path):
    grid = {"models": {"tiny": {"kind": "head", "model": "tiny", "max_length": 32, "epochs": 1, "batch_size": 8}},
            "grid": {"ambiguity": "erm"}, "validation_share": 0.0, "final": ["last"]}  # fmt: skip
    tables = {}
    for name, settings in (("raw", {"columns": KEYS}), ("plain", {})):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(grid | settings))
        argv = [
            "--config",
            str(tmp_path / f"{name}.yaml"),
            "--data",
            str(data / name),
            "--output",
            str(tmp_path / name),
        ]
        assert main(["sweep", *argv, "--jobs", "1", "--cache", str(tmp_path / "cache")]) == 0
        tables[name] = read_training_pairs(tmp_path / name)
    pd.testing.assert_frame_equal(*tables.values())
    told = read_sweep(str(tmp_path / "plain.yaml"), data="x", columns=COLUMNS)
    assert (told[0].columns, yaml.safe_load(told[1])["columns"]) == (COLUMNS, COLUMNS)
    argv = ["demo", "--ambiguity", "erm", "--output", str(tmp_path / "demo"), "--set", "max_steps=1", "use_cpu=true"]
    assert main([*argv, "--columns", COLUMNS]) == 2  # the built-in corpus has its own
    assert main([*argv, "--data", str(data / "raw"), "--columns", COLUMNS]) == 0
    record = json.loads((tmp_path / "demo" / "runs" / "erm" / "seed-0" / "run.json").read_text())
    assert record["data"]["train"]["columns"] == COLUMNS


def test_a_pipeline_by_the_mapping(data, tmp_path):
    said = {"output_dir": str(tmp_path / "out"), "train_file": str(data / "raw" / "train.jsonl"), "columns": KEYS,
            "sft": {"recipe": "sft-tiny"}, "policy": {"recipe": "policy-tiny"},
            "reward": {"recipe": "reward-tiny", "train_file": str(data / "plain" / "train.jsonl")}}  # fmt: skip
    (tmp_path / "rlhf.yaml").write_text(yaml.safe_dump(said))
    by_kind = {stage.kind: stage.parsed()[0].columns for stage in read_pipeline(tmp_path / "rlhf.yaml").stages()}
    assert by_kind == {"sft": COLUMNS, "policy": COLUMNS, "reward": None}  # it goes with the file that it is for
    other = read_pipeline(tmp_path / "rlhf.yaml", columns="prompt=ask,chosen=left,rejected=right")
    assert next(iter(other.stages())).parsed()[0].columns == "prompt=ask,chosen=left,rejected=right"
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(said | {"columns": {"promt": "ask"}}))
    with pytest.raises((ConfigError, DataError), match="did you mean 'prompt'"):
        read_pipeline(tmp_path / "bad.yaml")


def test_the_python_face_by_the_mapping(runs):
    small = {"max_length": 48, "max_steps": 2, "logging_steps": 1, "use_cpu": True, "disable_tqdm": True,
             "plain_share": 0, "per_device_train_batch_size": 8}  # fmt: skip
    frame, suite = pd.DataFrame(raw(TRAIN)), raw(TEST)
    run = llm.train("reward", frame, columns=KEYS, model="tiny", suites={"mine": suite}, **small)
    there = load_file(runs / "plain" / "model" / "model.safetensors")
    assert all((value.numpy() == there[name]).all() for name, value in run.model.state_dict().items())
    assert run.config.columns == COLUMNS
    own, told = llm.evaluate(run), llm.evaluate(run, suite, columns=COLUMNS)
    truth = [value for (name, _), value in margins(runs / "plain").items() if name == "plain_test"]
    assert own.result["margins"]["mine"] == pytest.approx(truth, abs=1e-6)
    assert told.result["margins"]["suite"] == pytest.approx(truth, abs=1e-6)
    assert llm.compare(told, runs / "plain", columns=KEYS).suites["suite"]["overall"]["pairs"] == len(TEST)
    assert llm.read_pairs(frame, columns=KEYS).pairs == TRAIN
    assert read_pairs(run.config.train_file, columns=run.config.columns).pairs == TRAIN
    with pytest.raises(DataError, match="none of suite has the columns"):
        llm.evaluate(run, TEST, columns=COLUMNS)
