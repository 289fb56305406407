"""What travels with `make gpu` to another machine, and what the pages say of its results."""

from __future__ import annotations

import json
import shutil
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks" / "gpu"))

import gpu_page
import gpu_results
import pack
import run
import surroundings
from gpu_samples import found_in, of


@pytest.fixture(scope="module")
def found(once):
    return found_in(once)


def test_packed_weights_come_back_to_half_a_step(tmp_path):
    rng, model = np.random.default_rng(0), tmp_path / "model"
    model.mkdir()
    weights = {"a.weight": rng.normal(size=(7, 5)).astype(np.float32), "a.bias": rng.normal(size=7).astype(np.float32)}
    weights["zero.weight"] = np.zeros((2, 3), dtype=np.float32)
    save_file(weights, model / "model.safetensors")
    (model / "config.json").write_text("{}")
    pack.rounded(model, tmp_path / "packed")
    from safetensors.numpy import load_file

    back = load_file(pack.restored(tmp_path / "packed", tmp_path / "back") / "model.safetensors")
    step = np.abs(weights["a.weight"]).max(axis=1, keepdims=True) / 127
    assert back.keys() == weights.keys()
    assert np.all(np.abs(back["a.weight"] - weights["a.weight"]) <= 0.501 * step)
    assert np.array_equal(back["a.bias"], weights["a.bias"])
    assert (tmp_path / "back" / "config.json").exists()


def test_carried_wheels_come_first_and_are_seen(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "numpy-99.5.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("numpy-99.5.0.dist-info/METADATA", "Name: numpy\nVersion: 99.5.0\n")
    env = run.environment(surroundings.unpacked(tmp_path, tmp_path / "site"))
    assert surroundings.missing(("numpy>=99.5", "scipy"), env) == []
    assert surroundings.missing(("numpy>=99.6",), env) == ["numpy >= 99.6, found 99.5.0"]


# the pages


def test_the_page_in_the_repository_is_that_of_the_results():
    text = gpu_page.PAGE.read_text()
    assert gpu_page.rendered(gpu_results.measured()) in text


@pytest.mark.slow("it runs every stage on a CPU")
def test_the_page_shows_every_stage(found, tmp_path):
    page = tmp_path / "gpu.md"
    page.write_text(f"before\n{gpu_page.BEGIN}\nold\n{gpu_page.END}\nafter\n")
    gpu_page.write(found, page)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    for stage in run.STAGES:
        assert f"### {stage.name.capitalize()}" in text
    widths = [line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("|")]
    assert min(widths) > 2
    assert "the package flash_attn is not there" in text


def test_a_stage_without_results_says_so(found):
    bare = found | {"stages": {"solver": {"status": "failed", "why": "x|y", "seconds": 1.0, "records": []}}}
    text = gpu_page.rendered(bare)
    assert "failed: x\\|y" in text
    assert text.count("Not measured.") == len(run.STAGES)


def test_the_pages_take_over_the_file_that_is_named(found, tmp_path, monkeypatch):
    file, kept = tmp_path / "found.json", tmp_path / "kept.json"
    written: list = []
    monkeypatch.setattr(run, "RESULTS", kept)
    monkeypatch.setattr(gpu_page, "write_every", lambda: written.append(json.loads(kept.read_text())))
    file.write_text(json.dumps(found))
    assert run.main(["--page", "--json", str(file)]) == 0
    assert written == [found]
    file.write_text(json.dumps(found | {"dry": True}))
    with pytest.raises(run.NoRun, match="is a dry run"):
        run.main(["--page", "--json", str(file)])
    assert json.loads(kept.read_text()) == found
    monkeypatch.setattr(gpu_page, "write_every", lambda: import_module("no_such_package"))
    with pytest.raises(run.NoRun, match="need an environment of this project"):
        run.main(["--page", "--json", str(kept)])


def test_the_other_pages_read_the_same_results(found, tmp_path):
    path = tmp_path / "gpu.json"
    path.write_text(json.dumps(found))
    import exactness
    import training_page

    assert gpu_results.measured(path) == found
    assert "a GPU" in "\n".join(exactness._on_gpu(found))
    for row in found["stages"]["training"]["records"]:
        row["peak_gib"] = 2.0
    rows = training_page._on_gpu(gpu_results.records("training", found))
    plain, robust = (of(found, "training", task="reward", name=n)[0] for n in ("transformers.Trainer", "two passes"))
    assert rows[0][2] == f"{robust['seconds'] / plain['seconds']:.2f}"
    path.write_text(json.dumps(found | {"dry": True}))
    assert gpu_results.measured(path) is None
    path.write_text(json.dumps(found | {"schema": 0}))
    with pytest.raises(ValueError, match="another version"):
        gpu_results.measured(path)
    shutil.rmtree(tmp_path)
    assert gpu_results.measured(path) is None
