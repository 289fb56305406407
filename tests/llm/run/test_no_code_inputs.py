"""Nothing that is loaded runs code: recipes, data, caches, and folders of sweeps, demos, pipelines and claims."""

from __future__ import annotations

import json
import pickle
import shutil

import pytest
import yaml
from checkpoint_runs import command, place_of
from payloads import Payload, disguises, mark_in, planted, tagged

from llm.data.corpus.corpus import generate
from llm.data.pairs import write_pairs
from robust_rlhf import main


@pytest.fixture
def mark(tmp_path, monkeypatch):
    return mark_in(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def place(once):
    return place_of(once)


def test_yaml(place, tmp_path, mark):
    """Recipes, sweeps, pipelines, and the card beside a starting model."""
    recipe = tmp_path / "recipe.yaml"
    for text in (tagged(mark), f"learning_rate: {tagged(mark)}"):
        recipe.write_text(text)
        for argv in (
            command(place, "reward", tmp_path / "run", config=recipe),
            ["sweep", "--config", str(recipe), "--output", str(tmp_path / "sweep")],
            ["pipeline", "--config", str(recipe)],
            ["demo", "--set", f"model={tagged(mark)}", "--output", str(tmp_path / "demo")],
        ):
            assert main(argv) == 2, argv
            assert not mark.exists(), argv
    model = shutil.copytree(place.inputs / "start", tmp_path / "model")
    (model / "README.md").write_text(f"---\nlicense: {tagged(mark)}\n---\n")
    assert main(command(place, "sft", tmp_path / "trained", model=model)) == 0
    assert not mark.exists()


def test_data_files(place, tmp_path, mark):
    """By the ending, whatever is inside; and a table that names a class."""
    for ending in ("jsonl", "json", "csv", "parquet", "jsonl.gz", "pkl", "arrow", "npz", "txt"):
        file = tmp_path / f"train.{ending}"
        file.write_bytes(pickle.dumps(Payload(mark)))
        assert main(["data", "show", str(file)]) == 2
        assert not mark.exists(), ending


SWEEP = {
    "data": "builtin",
    "builtin": {"train": 96, "test": 24},
    "models": {"tiny": {"kind": "head", "model": "tiny", "max_length": 32, "epochs": 1, "batch_size": 16}},
    "grid": [{"ambiguity": ["erm", "tv:0.2"], "seeds": 1}],
    "shift_budget": True,
}


@pytest.fixture(scope="module")
def swept(once):
    """A finished sweep with its cache."""

    def build(folder):
        (folder / "sweep.yaml").write_text(yaml.safe_dump(SWEEP))
        assert main(sweep_in(folder)) == 0

    return once("sweep-without-code", build)


def sweep_in(folder):
    flags = ["--output", str(folder / "sweep"), "--cache", str(folder / "cache"), "--jobs", "1"]
    return ["sweep", "--config", str(folder / "sweep.yaml"), *flags]


@pytest.mark.exhaustive(turns=8)
def test_feature_caches(swept, tmp_path, mark):
    folder = shutil.copytree(swept, tmp_path / "of-a-sweep")
    shutil.rmtree(folder / "sweep")  # all is trained anew

    def again():
        shutil.rmtree(folder / "sweep", ignore_errors=True)
        return main(sweep_in(folder))

    assert planted(folder / "cache", mark, again) >= 4


def test_results_folders(swept, tmp_path, mark):
    """All arrays at once, then the table: the page says what it could not read."""
    folder = shutil.copytree(swept / "sweep", tmp_path / "sweep")
    arrays = list(folder.rglob("*.npz"))
    assert len(arrays) >= 3
    for path in arrays:
        *_, hide = disguises(path, mark)
        hide()
    assert main(["report", str(folder)]) == 0
    (folder / "results.parquet").write_bytes(pickle.dumps(Payload(mark)))
    assert main(["report", str(folder)]) == 0
    assert not mark.exists()


@pytest.mark.exhaustive
@pytest.mark.slow("a page is made for every file of a sweep")
def test_results_folders_file_by_file(swept, tmp_path, mark):
    folder = shutil.copytree(swept / "sweep", tmp_path / "sweep")
    assert planted(folder, mark, lambda: main(["report", str(folder)])) >= 6


@pytest.mark.exhaustive
@pytest.mark.slow("a sweep is begun again for every one of its files")
def test_sweep_folders(swept, tmp_path, mark):
    folder = shutil.copytree(swept, tmp_path / "of-a-sweep")
    assert planted(folder / "sweep", mark, lambda: main(sweep_in(folder)), every=True) >= 8


def test_reference_caches(place, tmp_path, mark):
    cache = tmp_path / "cache" / "reference.npz"
    argv = command(
        place, "dpo", tmp_path / "run", max_steps=1, lora_rank=0, reference="precomputed", reference_cache=cache
    )
    assert main(argv) == 0
    assert planted(cache.parent, mark, lambda: main([*argv, "--overwrite", "true"])) == 2


@pytest.mark.slow("a demo and a pipeline, each begun again for every one of their files")
@pytest.mark.exhaustive
def test_demo_folders(tmp_path, mark):
    argv = [
        "demo",
        "--ambiguity",
        "tv:0.2",
        "--max-pairs",
        "32",
        "--eval-pairs",
        "8",
        "--output",
        str(tmp_path / "demo"),
    ]
    argv += ["--set", "max_steps=2", "use_cpu=true", "max_length=32"]
    assert main(argv) == 0
    assert planted(tmp_path / "demo", mark, lambda: main([*argv, "--resume"])) >= 8


@pytest.mark.slow("a demo and a pipeline, each begun again for every one of their files")
@pytest.mark.exhaustive
def test_pipeline_folders(tmp_path, mark):
    write_pairs(generate(48, seed=3), tmp_path / "train.jsonl")
    common = {"use_cpu": True, "disable_tqdm": True, "max_length": 64, "per_device_train_batch_size": 8, "max_steps": 2}
    policy = {"max_new_tokens": 8, "prompts_per_step": 4, "samples": 2, "logging_steps": 1, "eval_prompts": 4}
    config = tmp_path / "rlhf.yaml"
    settings = {
        "output_dir": str(tmp_path / "run"),
        "train_file": str(tmp_path / "train.jsonl"),
        "sft": {"recipe": "sft-tiny", **common},
        "reward": {"recipe": "reward-tiny", **common},
        "policy": {"recipe": "policy-tiny", "robust": "tv:0.2,by=source", **policy, **common},
        "evaluation": {"pairs": [str(tmp_path / "train.jsonl")], "prompts": [str(tmp_path / "train.jsonl")]},
    }
    config.write_text(yaml.safe_dump(settings))
    assert main(["pipeline", "--config", str(config)]) == 0
    assert planted(tmp_path / "run", mark, lambda: main(["pipeline", "--config", str(config)])) >= 8


@pytest.mark.slow("a process of its own")
def test_replays(tmp_path, mark):
    """Stored instances name a claim, never a module."""
    stored = tmp_path / "stored" / "replay.json"
    stored.parent.mkdir()
    assert main(["verify", "kl-penalty-gap", "--json", str(stored), "--jobs", "1"]) == 0
    assert planted(stored.parent, mark, lambda: main(["verify", "--replay", str(stored)]), every=True) == 1
    (tmp_path / "evil_claims.py").write_text(f"import os\nos.mkdir({str(mark)!r})\n")
    text = stored.read_text()
    found = json.loads(text)
    found["registry"] = "evil_claims:CLAIMS"
    for report in found["reports"]:
        report |= {"module": "evil_claims", "registry": "evil_claims:CLAIMS"}
    stored.write_text(json.dumps(found))
    assert main(["verify", "--replay", str(stored)]) in (0, 2)
    assert not mark.exists()
