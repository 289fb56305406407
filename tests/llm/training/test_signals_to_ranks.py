"""A signal to one of several processes, or to their launcher, saves and stops all of them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoint_runs import same_end
from forked import start_ranks
from signalled_runs import (
    TRAINING_STEP,
    arguments,
    ended,
    history,
    place_of,
    running,
    wait_for,
)
from test_ranks import command

from llm.run.folder import is_complete
from llm.training.settings import recipe_folder
from robust_rlhf import main


@pytest.fixture(scope="module")
def place(once):
    return place_of(once)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.exhaustive)])
def test_a_signal_to_one_rank_alone_saves_and_stops_all(number, place, tmp_path):
    output = tmp_path / "run"
    ranks = start_ranks(main, command(place / "train.jsonl", output, "--save_steps", "2"))
    wait_for(lambda: is_complete(output / "checkpoint-2"), ranks[0])
    ranks[1].send_signal(number)
    said = ended(ranks)
    assert [rank.returncode for rank in ranks] == [128 + number] * 2, said
    assert "".join(said).count("robust-rlhf: interrupted") == 1
    latest = max(output.glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
    assert is_complete(latest)
    assert {path.name for path in latest.glob("rng_state*")} == {"rng_state_0.pth", "rng_state_1.pth"}


def test_a_signal_to_one_rank_of_a_policy_run_saves_and_stops_all(place, tmp_path):
    output = tmp_path / "run"
    ranks = start_ranks(main, arguments("policy", place, output, "--max_steps", "400", "--save_steps", "2"))
    wait_for(lambda: is_complete(output / "checkpoint-2"), ranks[0])
    ranks[1].send_signal(signal.SIGTERM)
    said = ended(ranks)
    assert [rank.returncode for rank in ranks] == [143, 143], said
    latest = max(output.glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
    assert is_complete(latest)


TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
ACCELERATE = ["accelerate.commands.launch", "--config_file", str(recipe_folder().parent / "accelerate" / "cpu.yaml"),
              "--main_process_port", "0"]  # fmt: skip


@pytest.mark.slow("a launcher of torch, and the imports of two processes")
@pytest.mark.exhaustive
@pytest.mark.parametrize("event", ["SIGTERM", "SIGKILL"])
@pytest.mark.parametrize(
    ("launcher", "kind"), [(TORCHRUN, "sft"), (TORCHRUN, "policy"), (ACCELERATE, "dpo"), (ACCELERATE, "reward")]
)
def test_a_run_under_a_launcher_goes_on_as_if_nothing_had_come_over_it(launcher, kind, event, place, tmp_path):
    """SIGTERM to the launcher alone, as a scheduler sends it; a rank killed with -9, as the kernel does."""
    more = ["--dataloader_drop_last", "true", "--save_steps", "2"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    ranks = start_ranks(main, arguments(kind, place, whole, *more))
    ended(ranks, 120)
    assert [rank.returncode for rank in ranks] == [0, 0]
    where = ("llm.policy.trainer:PolicyTrainer:take_step", 3) if kind == "policy" else (TRAINING_STEP, 5)
    script = [Path(__file__).parents[1] / "under_an_agent.py", event, *where, *arguments(kind, place, broken, *more)]
    surroundings = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", *launcher, *map(str, script)]
    with (tmp_path / "said").open("w") as said:
        agent = subprocess.Popen(command, env=surroundings, stdout=said, stderr=said, start_new_session=True)
    try:
        assert agent.wait(120) == 1  # as torch's launcher ends then, whatever its processes say
    finally:
        left = running(agent.pid)
        for process in left:
            os.kill(process, signal.SIGKILL)
    told = (tmp_path / "said").read_text()
    assert not left, told
    assert told.count("robust-rlhf: interrupted; it goes on with --resume") == (event == "SIGTERM"), told
    assert not (broken / "model").exists()
    latest = max(broken.glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
    assert (latest.name, is_complete(latest)) == ("checkpoint-3" if event == "SIGTERM" else "checkpoint-2", True)
    ranks = start_ranks(main, arguments(kind, place, broken, *more, "--resume"))
    ended(ranks, 120)
    assert [rank.returncode for rank in ranks] == [0, 0]
    assert same_end(whole, broken)


@pytest.mark.exhaustive
@pytest.mark.parametrize("ambiguity", ["erm", "tv:0.3"])
def test_the_history_of_a_run_on_two_ranks_goes_on_too(ambiguity, place, tmp_path):
    """A checkpoint between two logs: the first row after it is of the steps before it as well, of both ranks."""
    more = ["--ambiguity", ambiguity, "--dataloader_drop_last", "true", "--save_steps", "2", "--max_steps", "8"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for run in (whole, broken):
        ranks = start_ranks(main, arguments("reward", place, run, *more))
        ended(ranks, 120)
        assert [rank.returncode for rank in ranks] == [0, 0]
    for name in ("checkpoint-6", "checkpoint-8", "model"):
        shutil.rmtree(broken / name)
    assert [rank.returncode for rank in resumed(place, broken, more)] == [0, 0]
    rows = [[row for row in history(run) if "loss" in row or "train_loss" in row] for run in (whole, broken)]
    assert len(rows[0]) == len(rows[1]) > 2
    for name in ("loss", "mean_loss", "robust_loss", "train_loss"):
        first, second = ([row[name] for row in part if name in row] for part in rows)
        assert first == pytest.approx(second, rel=1e-5)


def resumed(place, run, more):
    ranks = start_ranks(main, arguments("reward", place, run, *more, "--resume"))
    ended(ranks, 120)
    return ranks
