"""Labels that a run fits itself: from features by the plainest code, read again on resuming, told where damaged."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_models import save_models
from whole_runs import train_command, wrong

from llm.data.corpus.corpus import generate
from llm.data.pairs import Pair, read_pairs, write_pairs
from llm.models.loading import load_policy, load_reward_model
from llm.statistics.crossfit import crossfit
from llm.text.batches import SIDES
from llm.text.encoding import encode_pairs
from llm.training.soft.crossfit import clusters_of
from robust_rlhf import main

KINDS = ("reward", "dpo")


@pytest.fixture(scope="module")
def crossfitted(once):
    """Of every kind a run on fitted labels, and the same interrupted before its first checkpoint and gone on with."""

    def build(folder):
        pairs = [replace(pair, preference=None) for pair in generate(40, seed=5)]
        write_pairs(pairs, folder / "a.jsonl")
        save_models(folder, pairs, max_length=96)
        told = {"max_length": 96, "max_steps": 3, "save_steps": 2, "plain_share": 0, "ambiguity": "regret:tv:0.3",
                "learning_rate": 1e-3, "soft_labels": "crossfit", "soft_folds": 4}  # fmt: skip
        for kind in KINDS:
            told["model"] = folder / ("rm" if kind == "reward" else "start")
            run = folder / f"{kind}-run"
            assert main(train_command(kind, folder / "a.jsonl", run, **told)) == 0
            begun = folder / f"{kind}-begun"  # after its first checkpoint, with labels that nobody would fit
            shutil.copytree(run, begun, ignore=shutil.ignore_patterns("model", "run.json", "sha256", "checkpoint-3"))
            lines = [json.loads(line) for line in (run / "soft_labels.jsonl").read_text().splitlines()]
            text = "".join(json.dumps(line | {"p": 1 - line["p"]}) + "\n" for line in lines)
            (begun / "soft_labels.jsonl").write_text(text)
            again = train_command(kind, folder / "a.jsonl", begun, "--resume", **told)
            assert main(again) == 0

    return once("crossfitted-runs", build)


@pytest.mark.slow("four runs are built")
@pytest.mark.parametrize("kind", KINDS)
def test_crossfitted_labels_are_those_of_features_that_have_not_seen_them(crossfitted, kind):
    """Features from the plainest code, folds and fits by the cross-fit that is tested by itself."""
    run = crossfitted / f"{kind}-run"
    lines = [json.loads(line) for line in (run / "soft_labels.jsonl").read_text().splitlines()]
    pairs = read_pairs(crossfitted / "a.jsonl").pairs
    assert [line["id"] for line in lines] == [pair.id for pair in pairs]
    load = load_reward_model if kind == "reward" else load_policy
    model, tokenizer = load(str(crossfitted / ("rm" if kind == "reward" else "start")))
    differences = []
    for item in encode_pairs(pairs, tokenizer, max_length=96):
        with torch.no_grad():
            read = [model.base_model(torch.tensor([item[side]])).last_hidden_state[0] for side in SIDES]
        differences.append((read[0].mean(0) - read[1].mean(0)).numpy())
    p = crossfit(np.array(differences), clusters_of(pairs), folds=4, seed=0)
    np.testing.assert_allclose([line["p"] for line in lines], p, atol=2e-3)
    said = json.loads((run / "run.json").read_text())["data"]["soft_labels"]
    assert said["kind"] == "crossfit"
    assert said["log_loss"] == pytest.approx(-np.log(p).mean(), abs=5e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_reads_the_labels_of_its_folder(crossfitted, kind):
    run, begun = (crossfitted / f"{kind}-{name}" for name in ("run", "begun"))
    said = [
        json.loads((folder / "run.json").read_text())["data"]["soft_labels"]["agreement"] for folder in (run, begun)
    ]
    assert said[0] == pytest.approx(1 - said[1], abs=1e-6)


@pytest.mark.parametrize("damage", ["not json\n", "", '{"id": "other", "p": 0.5}\n'])
def test_damaged_labels_are_told_and_not_trained_on(crossfitted, damage, tmp_path, capsys):
    begun = tmp_path / "run"
    shutil.copytree(
        crossfitted / "reward-run", begun, ignore=shutil.ignore_patterns("model", "run.json", "sha256", "checkpoint-3")
    )
    (begun / "soft_labels.jsonl").write_text(damage)
    told = {"max_length": 96, "max_steps": 3, "save_steps": 2, "plain_share": 0, "ambiguity": "regret:tv:0.3",
            "learning_rate": 1e-3, "soft_labels": "crossfit", "soft_folds": 4, "model": crossfitted / "rm"}  # fmt: skip
    message = wrong(capsys, *train_command("reward", crossfitted / "a.jsonl", begun, "--resume", "--force", **told))
    assert "put a whole copy back, or delete it, and the labels are fitted again" in message


def test_clusters_are_prompts():
    asked = ({"role": "user", "content": "Where?"},)
    pairs = [Pair("a", asked, "x", "y"), Pair("b", ({"role": "user", "content": "Who?"},), "x", "y"),
             Pair("c", ({"role": "user", "content": " Where?\n"},), "z", "y")]  # fmt: skip
    codes = clusters_of(pairs)
    assert codes[0] == codes[2] != codes[1]
