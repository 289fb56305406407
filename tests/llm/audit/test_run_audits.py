"""Audits of runs: in the plan, on the screen, in the record, the card and the doctor; and runs that are not begun."""

from __future__ import annotations

import json

import pytest
from test_audit import KEYS

from llm.data.pairs import Pair, write_pairs
from robust_rlhf import main

KINDS = ["sft", "reward", "dpo"]
WORDS = ["amber", "blue", "green", "red", "violet", "white", "black", "brown"]


def pair(i, chosen, rejected, prompt="Which colour has the bird number"):
    return Pair(f"p{i}", ({"role": "user", "content": f"{prompt} {i}?"},), chosen, rejected, source="xy"[i % 2])


def sound(count):
    return [pair(i, f"The bird is {WORDS[i % 8]}.", f"It is {WORDS[(i + 3) % 8]}, they say.") for i in range(count)]


def dead(count):
    """What two answers differ in begins where sequences of 48 tokens end."""
    same = " ".join(WORDS) + " " + " ".join(WORDS[::-1]) + " " + " ".join(WORDS) * 4
    return [pair(1000 + i, f"{same} yes", f"{same} no") for i in range(count)]


@pytest.fixture
def data(tmp_path):
    pairs = [*sound(24), *[Pair(f"again{i}", p.prompt, p.chosen, p.rejected) for i, p in enumerate(sound(3))], *dead(5)]
    write_pairs(pairs, tmp_path / "train.jsonl")
    write_pairs(sound(30)[20:], tmp_path / "suite.jsonl")
    return tmp_path


def train(kind, folder, *more):
    files = ["--train_file", str(folder / "train.jsonl"), "--output_dir", str(folder / "run")]
    shape = [
        "--max_length",
        "48",
        "--max_steps",
        "2",
        "--logging_steps",
        "1",
        "--per_device_train_batch_size",
        "8",
        "--plain_share",
        "0",
    ]
    return main(["train", kind, "--config", f"{kind}-tiny", *files, *shape, "--disable_tqdm", "true", *more])


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_says_keeps_and_shows_what_its_model_saw(kind, data, capsys, caplog):
    assert train(kind, data, "--suites", str(data / "suite.jsonl")) == 0
    said = caplog.text
    assert "4 of 10 pairs of the suite suite are among the training pairs" in said
    assert "3 of 32 pairs stand there before" in said
    record = json.loads((data / "run" / "run.json").read_text())["data"]
    assert record["audit"].keys() == KEYS
    names = ("pairs", "duplicates", "token_identical", "same_window")
    counts = {name: record["audit"][name]["count"] for name in names}
    assert counts == {"pairs": 32, "duplicates": 3, "token_identical": 5, "same_window": 32}
    assert record["trained_on"] == 27
    assert record["audit"]["overlap"]["suite"]["pairs"]["exact"]["count"] == 4
    assert record["audit"]["sources"]["groups"]["source"]["batch"] == 8
    card = " ".join((data / "run" / "model" / "README.md").read_text().split())
    for sentence in ("Of 32 training pairs", "5 two answers with the same tokens", "4 of 10 pairs of the suite suite"):
        assert sentence in card
    capsys.readouterr()
    assert main(["doctor", str(data / "run"), "--json"]) in (0, 1)
    titles = "; ".join(finding["title"] for finding in json.loads(capsys.readouterr().out)["findings"])
    for title in ("the suite suite holds training pairs", "pairs stand twice", "pairs cannot be told apart"):
        assert title in titles
    assert titles.count("answers were cut") == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_plan_shows_the_audit(kind, data, capsys):
    assert train(kind, data, "--suites", str(data / "suite.jsonl"), "--dry_run", "true") == 0
    screen = capsys.readouterr().out
    assert "train.jsonl at max_length 48" in screen
    assert "suite suite, also in training: 4 (and" in screen
    assert "warning: 3 of 32 pairs stand there before" in screen
    assert not (data / "run").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_with_little_to_learn_from_is_not_begun_unless_told(kind, data, capsys):
    write_pairs([*sound(8), *dead(9)], data / "train.jsonl")
    assert train(kind, data) == 2
    said = capsys.readouterr().err
    assert "9 of 17 pairs have two answers with the same tokens" in said
    assert "--most_identical 1" in said
    assert not (data / "run" / "run.json").exists()
    assert train(kind, data, "--most_identical", "1") == 0


def test_a_limit_that_is_no_share_is_refused(data, capsys):
    assert train("reward", data, "--warn_share", "7") == 2
    assert "warn_share is a share" in capsys.readouterr().err


def test_limits_do_not_make_another_run(data):
    assert train("reward", data) == 0
    assert train("reward", data, "--resume", "true", "--most_identical", "0.9", "--warn_share", "0.5") == 0


def test_the_plan_and_the_report_of_a_sweep_say_what_each_model_sees(data, capsys):
    config = {
        "data": str(data),
        "models": {"small": {"kind": "head", "model": "tiny", "max_length": 32, "batch_size": 8, "epochs": 1}},
        "grid": {"seeds": 1},
    }
    write_pairs([*sound(60), *[Pair("twice", p.prompt, p.chosen, p.rejected) for p in sound(2)]], data / "train.jsonl")
    (data / "sweep.yaml").write_text(json.dumps(config))
    argv = ["sweep", "--config", str(data / "sweep.yaml"), "--output", str(data / "out")]
    argv += ["--cache", str(data / "cache")]
    assert main([*argv, "--dry-run"]) == 0
    screen = capsys.readouterr().out
    assert "small: of 62 pairs" in screen
    assert "10 of 10 pairs of the suite suite are among the training pairs" in screen
    assert main([*argv, "--jobs", "1"]) == 0
    assert main(["report", str(data / "out"), "--output", str(data / "page.html")]) == 0
    page = (data / "page.html").read_text()
    assert "What small saw of its training pairs: of 62 pairs" in page
    assert "10 of 10 pairs of the suite suite are among the training pairs" in page
