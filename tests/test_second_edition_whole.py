"""The stage of whole models, small: trained, judged, kept, and what becomes of H8; and folders of other backbones."""

from __future__ import annotations

import json

import numpy as np
import pytest

from experiments.second_edition import study, whole
from llm.data.corpus.corpus import generate
from llm.data.pairs import write_pairs


@pytest.mark.exhaustive
def test_whole_models_are_trained_and_judged_and_decide_h8(tmp_path, monkeypatch):
    """Two steps of tiny models; what is there is not trained again."""
    monkeypatch.setattr(whole, "WHOLE_SEEDS", (0, 1))
    pairs = list(generate(400, seed=0))
    write_pairs(pairs, tmp_path / "train.jsonl.gz")
    write_pairs(list(generate(60, seed=1)), tmp_path / "id_test.jsonl.gz")
    asked = ["--data", str(tmp_path), "--folder", str(tmp_path / "out"), "--stage", "whole", "--tiny", "--workers", "0"]
    study.main([*asked, "--only", "dpo"])
    assert {path.name.partition("-")[0] for path in (tmp_path / "out/whole").glob("*.npz")} == {"dpo"}
    found = json.loads((tmp_path / "out/whole.json").read_text())
    assert {row["outcome"] for row in found["beside"]} == {"not run"}
    study.main(asked)
    assert json.loads((tmp_path / "out/whole.json").read_text())["hypothesis"] == found["hypothesis"]
    found = json.loads((tmp_path / "out/whole.json").read_text())
    [test] = found["hypothesis"]["ways"][0]["tests"]
    assert found["hypothesis"]["outcome"] == test["outcome"] in ("confirmed", "refuted", "undecided")
    models = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/whole").glob("*.npz")}
    assert len(models) == 8
    one, other = (
        np.load(tmp_path / f"out/whole/dpo-{arm}-{seed}.npz")["test"] for arm, seed in (("tv-0.4", 0), ("erm", 0))
    )
    assert one.shape == other.shape == (40,)
    study.main(asked)
    assert {path: path.stat().st_mtime_ns for path in models} == models


def test_a_folder_holds_the_features_of_one_backbone(tmp_path):
    """What is trained on them does not say whose they are."""
    plan, other = ["--data", str(tmp_path), "--stage", "plan", "--folder"], ["--model", "static:x"]
    study.main([*plan, str(tmp_path / "a")])
    (tmp_path / "of-earlier/bench").mkdir(parents=True)
    for folder in ("a", "of-earlier"):
        with pytest.raises(SystemExit, match="holds features of MiniLM, tuned: name another --folder"):
            study.main([*plan, str(tmp_path / folder), *other])
    study.main([*plan, str(tmp_path / "b"), *other])
