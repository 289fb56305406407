"""What finished runs say of themselves and each other: an adversary that did not act, and what else two differ in."""

from __future__ import annotations

import json

import pytest
from command_lines import flags

from llm.data.corpus.corpus import generate
from llm.data.pairs import write_pairs
from llm.kinds.registry import config_of
from llm.run.kinds import KINDS
from llm.run.resumption import OPTIONAL
from llm.run.run_differences import differences, record_of, remarks
from llm.training.identity import identity
from llm.training.settings import parse_train
from robust_rlhf import main


def test_what_two_runs_differ_in_is_named():
    data = {"train": {"file": "t.jsonl", "sha256": "a" * 64}, "trained_on": 1024}
    config = {"ambiguity": "tv:0.2", "max_length": 64, "model": "/a/b/start"}
    one = {"config": config, "steps": 32, "effective_batch": 32, "data": data, "learning_rate": 1e-4}
    config = {"ambiguity": "erm", "max_length": 128, "model": "/a/b/other", "beta": 0.1}
    data = data | {"train": {"file": "t.jsonl", "sha256": "b" * 64}}
    other = {"config": config, "steps": 8, "effective_batch": 128, "data": data, "learning_rate": 1e-4}
    assert differences(one, other) == [
        "steps 32 against 8", "effective batch 32 against 128",
        "training data t.jsonl (aaaaaaaa) against t.jsonl (bbbbbbbb)",
        "max_length 64 against 128", "start a/b/start against a/b/other",
    ]  # fmt: skip
    assert remarks(["a", "b"], [one, None]) == []
    assert remarks(["a", "b"], [one, one | {"inaction": "it did not act"}]) == [
        "b: it did not act", "The records of the two runs differ in the ambiguity set at most",
    ]  # fmt: skip


def test_steps_that_a_set_leaves_out_come_with_their_cure():
    """Plain training takes what is left of an epoch; against a set it is left out, unless kept."""
    plain = {"config": {"ambiguity": "erm", "last_window": "drop"}, "steps": 13}
    for last_window, cured in (("drop", True), ("keep", False)):
        robust = {"config": {"ambiguity": "tv:0.2", "last_window": last_window}, "steps": 12}
        for said in (*differences(plain, robust), *differences(robust, plain)):
            assert ("--last_window keep" in said) is cured
    assert differences(plain, plain | {"steps": 12}) == ["steps 13 against 12"]


SAID_BY_THEIR_RESULT = {  # which run.json holds: steps, effective batch, data, start
    "ambiguity", "learning_rate", "max_length", "model", "seed", "final", "lora_rank", "loss", "beta", "samples",
    "reward_model", "estimator", "kl_coefficient", "max_steps", "num_train_epochs", "per_device_train_batch_size",
    "gradient_accumulation_steps", "world_size", "prompts_per_step", "sha256 of the train file",
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_setting_that_decides_a_result_is_compared(kind):
    policy = ["--reward_model", "r"] if kind == "policy" else []
    told = ["--model", "m", "--train_file", "t", "--output_dir", "o", "--ambiguity", "tv:0.2", *policy]
    settings = identity(*parse_train(config_of(kind), told), {"train": {"sha256": "a"}})
    one = {"config": {}, "settings": settings}
    assert remarks(["a", "b"], [one, one]) == ["The records of the two runs differ in the ambiguity set at most"]
    for name in settings.keys() - SAID_BY_THEIR_RESULT - {OPTIONAL}:
        said = differences(one, {"config": {}, "settings": settings | {name: "another"}})
        assert [line.startswith(f"{name} ") for line in said] == [True], name
    plain = {"config": {}, "settings": settings | {"ambiguity": "erm", "plain_share": 0.9, "optim": "sgd"}}
    assert [line.split()[0] for line in differences(one, plain)] == ["optim"]


def test_a_run_that_did_not_act_says_so_everywhere(tmp_path, capsys, caplog):
    pairs, runs = tmp_path / "train.jsonl", {}
    write_pairs(generate(40, seed=3), pairs)
    for name, spec, size in (("plain", "erm", 8), ("robust", "tv:0.3", 8), ("idle", "tv:0", 16)):
        runs[name], length = tmp_path / name, {"last_window": "keep"} if name == "idle" else {"max_steps": 2}
        settings = {"config": "reward-tiny", "train_file": pairs, "output_dir": runs[name], "ambiguity": spec,
                    "num_train_epochs": 1, **length, "plain_share": 0, "ramp_share": 0,
                    "per_device_train_batch_size": size, "max_length": 48,
                    "logging_steps": 1, "disable_tqdm": True, "use_cpu": True}  # fmt: skip
        assert main(["train", "reward", *flags(settings)]) == 0
    records = {name: json.loads((folder / "run.json").read_text()) for name, folder in runs.items()}
    assert [records[name]["acted"] for name in runs] == [None, True, False]
    verdict = "the adversary did not act: tv:0 holds nothing but equal weights"
    assert [records[name]["inaction"] for name in runs] == [None, None, verdict]
    assert caplog.text.count(verdict) == 1
    cards = {name: " ".join((folder / "model" / "README.md").read_text().split()) for name, folder in runs.items()}
    assert [verdict in cards[name] for name in runs] == [False, False, True]
    assert ["against the worst reweighting" in cards[name] for name in runs] == [False, True, False]
    capsys.readouterr()
    assert main(["doctor", str(runs["idle"])]) == 1
    assert verdict in capsys.readouterr().out
    assert "the adversary did not act" not in (main(["doctor", str(runs["robust"])]), capsys.readouterr().out)[1]
    read = record_of(runs["idle"])
    assert read is not None
    assert record_of(runs["idle"] / "model") == read
    assert {name: read[name] for name in records["idle"]} == records["idle"]
    told = ["evaluate", str(runs["plain"] / "model"), "--suite", str(pairs), "--eval-pairs", "20", "--against"]
    assert main([*told, str(runs["idle"] / "model")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"{runs['idle'] / 'model'}: {verdict}" in said
    assert "differ in: steps 2 against 3, effective batch 8 against 16" in said
