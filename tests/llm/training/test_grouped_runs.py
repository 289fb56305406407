"""Runs against groups by name: each is the run on a file whose sources are these groups, and says what it weighed."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file
from test_mixed_runs import command
from tiny_models import save_models

from llm.data.corpus.corpus import generate
from llm.data.grouping.named import NamedGroups
from llm.data.pairs import write_pairs
from llm.kinds.reward import RewardTask
from llm.run.kinds import KINDS
from llm.training.config import RewardConfig
from llm.training.run import load_training_pairs
from robust_rlhf import main

BY = {"policy": "tag*level/2"} | dict.fromkeys(("sft", "reward", "dpo"), "tag*length_gap/3")
PAIRS = [
    replace(pair, kept=(("tag", ["de", "en"][place % 2]), ("level", str(place / 7))))
    for place, pair in enumerate(generate(36, seed=4))
]


def labels(kind):
    """The groups as pandas makes them."""
    gaps = [abs(len(pair.chosen) - len(pair.rejected)) for pair in PAIRS]
    values, count = (gaps, 3) if kind != "policy" else ([float(dict(pair.kept)["level"]) for pair in PAIRS], 2)
    inner = np.unique(np.quantile(values, np.arange(1, count) / count))
    bins = pd.cut(pd.Series(values, dtype=float), [-np.inf, *inner, np.inf], labels=False)
    return [f"{dict(pair.kept)['tag']} {place}" for pair, place in zip(PAIRS, bins, strict=True)]


@pytest.fixture(scope="module")
def data(once):
    def build(folder):
        write_pairs(PAIRS, folder / "tagged.jsonl")
        write_pairs(PAIRS[:15], folder / "held_out.jsonl")
        for kind in ("reward", "policy"):
            named = [replace(p, source=label, kept=()) for p, label in zip(PAIRS, labels(kind), strict=True)]
            write_pairs(named, folder / f"{kind}.jsonl")
        save_models(folder, PAIRS, max_length=96)

    return once("grouped-data", build)


@pytest.mark.slow("two runs of a kind are compared")
@pytest.mark.parametrize("kind", BY)
def test_groups_by_name_are_the_sources_that_they_mean(kind, data, tmp_path):
    """Weights to the bit, although the one file says its groups and the other is asked for them."""
    assert set(BY) == set(KINDS)
    by_name = command(kind, data, tmp_path / "named", data / "tagged.jsonl", ambiguity=f"tv:0.3,by={BY[kind]}")
    file = data / ("policy.jsonl" if kind == "policy" else "reward.jsonl")
    assert main(by_name) == 0
    assert main(command(kind, data, tmp_path / "source", file)) == 0
    one, other = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("named", "source"))
    assert one.keys() == other.keys()
    assert all((one[name] == other[name]).all() for name in one)
    said, meant = (json.loads((tmp_path / name / "run.json").read_text())["adversary"] for name in ("named", "source"))
    if kind == "policy":
        assert sorted(said["tag"]) == ["de", "en"]
        return
    found = said["by_group"][BY[kind]]
    assert sorted(group["multiplier"] for group in found.values()) == sorted(
        group["multiplier"] for group in meant["by_source"].values()
    )


@pytest.mark.parametrize("kind", ["reward", "sft"])
def test_the_worst_held_out_group_is_told(kind, data, tmp_path):
    """Bins are those of the training pairs; a file of each group alone is judged beside it."""
    told = {"ambiguity": "tv:0.3,by=tag", "eval_strategy": "steps", "eval_steps": 3}
    parts = {tag: [pair for pair in PAIRS[:15] if dict(pair.kept)["tag"] == tag] for tag in ("de", "en")}
    for tag, pairs in parts.items():
        write_pairs(pairs, tmp_path / f"{tag}.jsonl")
    files = [str(tmp_path / f"{tag}.jsonl") for tag in parts]
    argv = [*command(kind, data, tmp_path / "run", data / "tagged.jsonl", **told), "--eval_file", *files]
    assert main(argv) == 0
    (row,) = [row for row in json.loads((tmp_path / "run" / "run.json").read_text())["history"] if "eval_loss" in row]
    assert row["eval_worst_group_loss"] == pytest.approx(max(row["eval_loss_de"], row["eval_loss_en"]), rel=1e-6)
    assert row["eval_worst_group_accuracy"] == min(row["eval_accuracy_de"], row["eval_accuracy_en"])


@pytest.mark.parametrize("kind", ["reward", pytest.param("dpo", marks=pytest.mark.exhaustive)])
def test_pairs_across_prompts_are_trained_on_and_told_apart(kind, data, tmp_path):
    told = {"ambiguity": "tv:0.3,by=drawn", "cross_prompt": 0.5}
    assert main(command(kind, data, tmp_path / "run", data / "tagged.jsonl", **told)) == 0
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["data"]["trained_on"] == 36 + 18
    assert record["data"]["train"]["cross_prompt"] == 18
    assert set(record["adversary"]["by_group"]["drawn"]) == {"own", "cross_prompt"}
    assert record["data"]["audit"]["pairs"]["count"] == 36


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"ambiguity": "tv:0.3,by=tagg"}, "by=tagg: there is no column 'tagg', did you mean 'tag'? The columns are: "),
        ({"ambiguity": "tv:0.3,by=length_gap/1"}, "length_gap/1 asks for 1 bins"),
        ({"cross_prompt": -0.5}, "cross_prompt is a share of the training pairs to add"),
        ({"cross_prompt": 0.5, "max_pairs": 1}, "all 1 training pairs have the same one"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_leaves_no_folder(told, message, data, tmp_path, capsys):
    assert main(command("reward", data, tmp_path / "run", data / "tagged.jsonl", **told)) != 0
    said = " ".join(capsys.readouterr().err.split())
    assert message in said
    assert not (tmp_path / "run").exists()


def test_the_labels_of_permuted_groups_are_dealt_by_the_seed_of_the_run(data, tmp_path):
    config = RewardConfig(train_file=str(data / "tagged.jsonl"), ambiguity="permuted_groups:tv:0.3,by=tag")
    assert RewardTask(config).config.ambiguity == "permuted_groups:tv:0.3,by=tag"
    tags = [dict(pair.kept)["tag"] for pair in load_training_pairs(config).train]
    assert NamedGroups({"tag": tags}, seed=1).permuted()["tag"] != NamedGroups({"tag": tags}, seed=2).permuted()["tag"]
    runs = []
    for seed in (1, 2):
        told = {"ambiguity": "permuted_groups:tv:0.3,by=tag", "seed": seed, "max_steps": 1}
        assert main(command("reward", data, tmp_path / f"{seed}", data / "tagged.jsonl", **told)) == 0
        runs.append(json.loads((tmp_path / f"{seed}" / "run.json").read_text())["adversary"]["by_group"]["tag"])
    assert runs[0] != runs[1]
