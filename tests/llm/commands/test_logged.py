"""docs/reference/logged.md names what runs log, no more and no less, and a tracker gets the same numbers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from command_lines import flags
from tiny_models import save_models
from whole_runs import files_of, train_command

from llm.data.corpus.corpus import generate
from robust_rlhf import main

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "logged.md"
HELD_OUT = {"validation_share": 0.25, "eval_strategy": "steps", "eval_steps": 2, "max_steps": 4, "logging_steps": 2,
            "plain_share": 0, "save_strategy": "no"}  # fmt: skip
RUNS = {  # kind -> runs that log all there is between them
    "reward": [{"ambiguity": "tv:0.2"}, {"ambiguity": "regret:tv:0.2,by=source"}],
    "dpo": [{"ambiguity": "tv:0.2"}, {"ambiguity": "regret:tv:0.2,by=source"}],
    "sft": [{"ambiguity": "tv:0.2,by=source"}],
    "policy": [
        {"estimator": "ppo", "value_model": "shared", "gold": "regex:a", "ambiguity": "tv:0.3"},
        {"optimizer": "npg", "reward_model": ["regex:a:2", "@rewards.py:brief"]},
    ],
}


def rows():
    """Name -> for which kinds the page has it."""
    found = re.findall(r"^\| `([^`]+)` \| ([^|]+) \|[^|]+\|[^|]+\|[^|]*\|$", PAGE.read_text(), re.MULTILINE)
    assert len(found) == len(dict(found)) > 50
    return dict(found)


def of(kind):
    """The names that the page has for a kind of training."""
    said = {
        "policy": {"policies", "policies with a server"},
        "sft": {"pairs", "SFT"},
        "dpo": {"pairs", "DPO"},
        "reward": {"pairs", "reward"},
    }
    return {name for name, kinds in rows().items() if {"all", *said[kind]} & set(kinds.split(", "))}


@pytest.fixture(scope="module")
def files(once):
    return files_of(once)


def run(kind, files, output, tmp_path, told):
    """A run with TensorBoard; its history, and the folder of the events."""
    told = told | {"report_to": "tensorboard"}
    if kind != "policy":
        assert main(train_command(kind, files / "train.jsonl", output, **HELD_OUT | told)) == 0
    else:
        if not (tmp_path / "start").exists():
            save_models(tmp_path, generate(48, seed=11), max_length=96)
            (tmp_path / "rewards.py").write_text(
                "def brief(completions, **kwargs):\n    return [1.0] * len(completions)\n"
            )
        told = {name: _placed(value, tmp_path) for name, value in told.items()}
        told = {"reward_model": "regex:a", "config": "policy-tiny", "model": tmp_path / "start", "max_steps": 2,
                "train_file": files / "train.jsonl", "output_dir": output, "prompts_per_step": 4, "samples": 4,
                "max_new_tokens": 6, "max_length": 96, "logging_steps": 1, "save_strategy": "no", "plain_share": 0,
                "disable_tqdm": True, "use_cpu": True, **told}  # fmt: skip
        assert main(["train", "policy", *flags(told)]) == 0
    return json.loads((output / "run.json").read_text())["history"]


def _placed(value, folder):
    return [text.replace("@", f"{folder}/") for text in value] if isinstance(value, list) else value


def plain(name):
    """A name as the page has it: parts of a mixture of rewards by their kind."""
    return re.sub(r"^(reward|unscored)/.*", r"\1/LABEL", name)


@pytest.mark.parametrize(
    "kind", ["reward", *(pytest.param(kind, marks=pytest.mark.exhaustive) for kind in list(RUNS)[1:])]
)
def test_the_page_names_what_runs_log_and_tensorboard_gets_it(kind, files, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="no tensorboard")
    logged = set()
    for number, told in enumerate(RUNS[kind]):
        output = tmp_path / f"run-{number}"
        history = run(kind, files, output, tmp_path, told)
        numbers = {name: value for row in history for name, value in row.items() if isinstance(value, int | float)}
        logged |= {plain(name) for name in numbers}
        events = min((path.parent for path in output.rglob("events.out.tfevents*")), key=lambda path: len(path.parts))
        board = accumulator.EventAccumulator(str(events)).Reload()
        tags = {re.sub("^eval/", "eval_", tag).removeprefix("train/"): tag for tag in board.Tags()["scalars"]}
        left = {name for name in numbers if name not in tags and f"train_{name}" not in tags and name != "step"}
        assert not {name for name in left if not name.startswith(("train_", "total_"))}
        for name, tag in tags.items():
            if name in numbers:
                assert board.Scalars(tag)[-1].value == pytest.approx(numbers[name], rel=1e-4, nan_ok=True)
    assert logged - of(kind) == set(), "not on the page"
    missing = {name for name in of(kind) - logged if "a server" not in rows()[name]}  # which none is started for here
    assert missing <= ({"collapse_radius"} if kind in ("reward", "dpo") else set()), "on the page, and not logged"
