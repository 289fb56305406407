"""SIGTERM, as schedulers send it: what Ctrl-C keeps is kept, one sentence is said, and nothing is left running."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import kills
import numpy as np
import pytest
import torch
import yaml
from forked import Forked, finished, start_ranks
from safetensors.torch import load_file
from test_pipeline import write as write_pipeline
from test_ranks import command
from transformers import Trainer

from dro_core.locks import LOCK
from llm.data.corpus.corpus import generate
from llm.data.pairs import write_pairs
from llm.models.loading import tiny_policy
from llm.policy.trainer import PolicyTrainer
from llm.run.folder import is_complete
from llm.training.interrupts import StopRequest
from llm.training.settings import recipe_folder
from robust_rlhf import main

KINDS = ["sft", "reward", "dpo", "policy"]
STEPS, STOPPED = 6, 4


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("signals")
    pairs = generate(64, seed=11)
    write_pairs(pairs, folder / "train.jsonl")
    torch.manual_seed(0)
    for part in tiny_policy((pair.prompt[-1]["content"] for pair in pairs), max_length=64):
        part.save_pretrained(folder / "start")
    return folder


def arguments(kind, place, output, *more):
    told = {"config": f"{kind}-tiny", "train_file": place / "train.jsonl", "output_dir": output, "max_steps": STEPS,
            "max_length": 64, "ambiguity": "tv:0.3", "logging_steps": 3, "save_steps": 50, "plain_share": 0,
            "use_cpu": "true", "disable_tqdm": "true"}  # fmt: skip
    if kind == "policy":
        told |= {
            "model": place / "start",
            "reward_model": "builtin",
            "prompts_per_step": 4,
            "samples": 4,
            "max_new_tokens": 6,
        }
    else:
        told |= {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    return ["train", kind, *(text for name, value in told.items() for text in (f"--{name}", str(value))), *more]


def signalled(monkeypatch, kind, numbers, at):
    """Let the process signal itself within its ``at``-th step."""
    owner, name = (PolicyTrainer, "take_step") if kind == "policy" else (Trainer, "training_step")
    step, per_step, calls = getattr(owner, name), 1 if kind == "policy" else 2, []

    def hit(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == per_step * at:
            for number in numbers:
                os.kill(os.getpid(), number)
        return step(self, *args, **kwargs)

    monkeypatch.setattr(owner, name, hit)


def weights(run):
    return load_file(run / "model" / "model.safetensors")


@pytest.mark.parametrize("kind", KINDS)
def test_a_terminated_run_saves_and_ends_as_if_it_had_not_been(kind, place, tmp_path, monkeypatch, capsys):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert main(arguments(kind, place, whole)) == 0
    with monkeypatch.context() as patch:
        # Twice: schedulers send it to every process, and launchers pass theirs on.
        signalled(patch, kind, [signal.SIGTERM, signal.SIGTERM], STOPPED)
        before = signal.getsignal(signal.SIGTERM)
        assert main(arguments(kind, place, broken)) == 143
        assert signal.getsignal(signal.SIGTERM) == before
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1] == "robust-rlhf: interrupted; it goes on with --resume"
    assert [path.name for path in broken.glob("checkpoint-*")] == [f"checkpoint-{STOPPED}"]
    assert not (broken / "model").exists()
    assert main(arguments(kind, place, broken, "--resume")) == 0
    first, second = weights(whole), weights(broken)
    assert all(torch.equal(first[name], second[name]) for name in first)
    check_record(whole, broken)
    once = json.loads((broken / "run.json").read_text())
    (broken / "run.json").unlink()  # and the machine broke before the export: now there is no step left to take
    assert main(arguments(kind, place, broken, "--resume")) == 0
    check_record(whole, broken)
    assert losses(broken)[-1:] == losses(whole)[-1:]
    assert json.loads((broken / "run.json").read_text())["seconds"] == pytest.approx(once["seconds"], abs=2)


def history(run):
    return json.loads((run / "run.json").read_text())["history"]


def losses(run):
    return [row["train_loss"] for row in history(run) if "train_loss" in row]


def check_record(whole, broken):
    """The history is that of a run in one go; what is a matter of time counts all sessions."""
    timed = {"train_runtime", "train_samples_per_second", "train_steps_per_second"}
    rows = [[{k: v for k, v in row.items() if k not in timed} for row in history(run)] for run in (whole, broken)]
    keys = {"total_flos", "epoch"}  # of the last row: not known when only the export is made again
    assert rows[0][:-1] == rows[1][:-1]
    assert {k: v for k, v in rows[0][-1].items() if k not in keys} == {
        k: v for k, v in rows[1][-1].items() if k not in keys
    }
    assert len(losses(whole)) == len(losses(broken))
    clock = json.loads((broken / f"checkpoint-{STOPPED}" / "clock.json").read_text())["seconds"]
    record = json.loads((broken / "run.json").read_text())
    assert record["seconds"] > clock
    for row in history(broken):
        assert row.get("train_runtime", np.inf) >= round(clock, 4)
        assert row.get("train_steps_per_second", 0) <= STEPS / clock


def wait_for(condition, process, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.said()
        assert time.monotonic() < end, process.said()
        time.sleep(0.02)


def running(session):
    """The living processes of a session: their numbers, and their command lines."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, owner = (folder / "stat").read_text().rpartition(") ")[2].split()[:4]
            said = (folder / "cmdline").read_text().replace("\0", " ")
        except OSError:  # it has just ended
            continue
        if int(owner) == session and state != "Z":
            found[int(folder.name)] = said
    return found


def terminated(process, seconds=60):
    """Send SIGTERM to that process alone; its status and what it said, when nothing it started is left."""
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=seconds)[0]
    end = time.monotonic() + 10
    while left := running(process.pid):
        assert time.monotonic() < end, left
        time.sleep(0.05)
    assert "Traceback" not in said
    return process.returncode, said


SWEEP = {
    "data": "builtin",
    "builtin": {"train": 160, "test": 40},
    "models": {"tiny": {"kind": "head", "model": "tiny", "max_length": 32, "epochs": 30, "batch_size": 16}},
    "grid": [{"ambiguity": ["erm", "tv:0.2", "tv:0.4"], "seeds": 40}],
}


@pytest.mark.slow("two workers that load torch")
def test_a_terminated_sweep_keeps_what_is_done_and_leaves_no_worker(tmp_path):
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(SWEEP))
    argv = ["sweep", "--config", "sweep.yaml", "--output", "out", "--cache", "cache", "--jobs", "2"]
    process = Forked(main, argv, cwd=tmp_path, new_session=True)
    wait_for(lambda: len(list((tmp_path / "out").glob("runs/*"))) >= 2, process)
    assert len(running(process.pid)) > 1  # the workers
    status, said = terminated(process)
    assert (status, "it goes on when started again" in said) == (143, True), said
    assert (tmp_path / "out" / "results.parquet").exists()


def test_a_terminated_simulation_keeps_its_points_and_leaves_no_worker(tmp_path):
    argv = ["simulate", "bias", "--grid", "full", "--output", "out", "--jobs", "2"]
    process = Forked(main, argv, cwd=tmp_path, new_session=True)
    points = tmp_path / "out" / "points"
    wait_for(lambda: len(list(points.glob("*.json"))) >= 2, process)
    status, said = terminated(process)
    assert status == 143, said
    assert f"{len(list(points.glob('*.json')))} of 192 points are kept" in " ".join(said.split())


def test_a_terminated_verification_keeps_its_verdicts_and_leaves_no_worker(tmp_path):
    argv = ["verify", "--jobs", "2", "--json", "out.json"]
    process = Forked(main, argv, cwd=tmp_path, new_session=True)
    wait_for(lambda: "upheld" in process.said(), process)
    status, said = terminated(process)
    assert status == 143, said
    stored = json.loads((tmp_path / "out.json").read_text())
    assert stored["reports"]
    assert stored["unchecked"]


def hit_in(place, at, argv, event=lambda: os.kill(os.getpid(), signal.SIGTERM)):
    """Run a command that something happens to, SIGTERM if not told otherwise, at the ``at``-th call of a function."""
    module, *names = place.split(":")
    owner = importlib.import_module(module)
    for name in names[:-1]:
        owner = getattr(owner, name)
    function, calls = getattr(owner, names[-1]), []

    def hit(*args, **kwargs):
        calls.append(1)
        if len(calls) == at:
            event()
        return function(*args, **kwargs)

    setattr(owner, names[-1], hit)
    return main(argv)


def made(folder):
    """Weights and margins of every run in it, and what its reports say, but for what is a matter of time."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if "checkpoint-" not in str(path)):
        name = str(path.relative_to(folder))
        if path.suffix == ".safetensors":
            found |= {f"{name}/{part}": values.numpy() for part, values in load_file(path).items()}
        elif path.suffix == ".npz":
            with np.load(path) as arrays:
                found |= {f"{name}/{part}": arrays[part] for part in arrays}
        elif path.name in ("metrics.json", "ablation.json"):
            found[name] = np.frombuffer(path.read_bytes(), np.uint8)
    return found


def many_runs(kind, folder):
    """The command line of some trainings one after the other."""
    if kind == "pipeline":
        files = {"pairs": [str(folder / "train.jsonl")], "prompts": [str(folder / "train.jsonl")], "gold": "builtin"}
        return ["pipeline", "--config", str(write_pipeline(folder, arms=["robust/robust"], evaluation=files))]
    told = ["max_steps=4", "logging_steps=1", "max_length=48", "per_device_train_batch_size=8", "use_cpu=true"]
    flags = ["--ambiguity", "erm", "tv:0.3", "--max-pairs", "64", "--eval-pairs", "16", "--set", *told]
    return ["demo", "--output", str(folder / "run"), *flags, *(["--resume"] if (folder / "run").exists() else [])]


TRAINING_STEP = "transformers:Trainer:training_step"
MOMENTS = {  # 4 steps for each run of the demo, 2 for each stage of the pipeline: sft, reward, policy
    "demo, second run": ("demo", TRAINING_STEP, 6),
    "demo, judging": ("demo", "llm.sweep.demo:judge_trained", 1),
    "demo, report": ("demo", "llm.sweep.demo:build_content", 1),
    "pipeline, reward": ("pipeline", TRAINING_STEP, 3),
    "pipeline, policy": ("pipeline", "llm.policy.trainer:PolicyTrainer:take_step", 1),
    "pipeline, between": ("pipeline", "llm.pipeline.run:note", 4),
}
ALWAYS = ("demo, second run", "pipeline, reward", "pipeline, policy")


@pytest.mark.slow("each trains all of its runs twice")
@pytest.mark.parametrize(
    "moment", [pytest.param(name, marks=[] if name in ALWAYS else pytest.mark.exhaustive) for name in MOMENTS]
)
def test_a_terminated_demo_or_pipeline_goes_on_and_ends_as_if_it_had_not_been(moment, once, tmp_path):
    kind, where, at = MOMENTS[moment]

    def build(folder):
        finished([Forked(main, many_runs(kind, folder))])

    process = Forked(hit_in, where, at, many_runs(kind, tmp_path), new_session=True)
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 143, said
    goes_on = {"demo": "with --resume", "pipeline": "when started again"}[kind]
    assert said.endswith(f"robust-rlhf: interrupted; it goes on {goes_on}\n")
    assert "Traceback" not in said
    assert not running(process.pid)
    assert not list((tmp_path / "run").rglob(LOCK))
    [said] = finished([Forked(main, many_runs(kind, tmp_path))])
    whole, broken = made(once(f"whole {kind}", build) / "run"), made(tmp_path / "run")
    assert len(whole) > 20
    assert kills.differences(broken, whole) == []


def sleeping(function, argv):
    """Run a command that sleeps where it would begin its work."""
    module, name = function.split(":")

    def sleep(*_, **__):
        sys.stdout.write("ready\n")
        time.sleep(60)

    setattr(__import__(module, fromlist=[name]), name, sleep)
    return main(argv)


STATELESS = {
    "evaluate": ("llm.api.judged:evaluate", ["evaluate", "model", "--suite", "train.jsonl"]),
    "report": ("llm.commands.report:build_content", ["report", "folder"]),
    "export": ("llm.export.export:export_model", ["export", "model", "--to", "lm-eval", "-o", "out"]),
    "doctor": ("llm.doctor.record:read_run", ["doctor", "run"]),
    "data": ("llm.data.pairs:read_pairs", ["data", "show", "train.jsonl"]),
    "models": ("llm.models.fetching:fetch", ["models", "fetch", "minilm"]),
}


@pytest.mark.parametrize(
    "name", ["evaluate", *(pytest.param(name, marks=pytest.mark.exhaustive) for name in list(STATELESS)[1:])]
)
def test_a_command_without_a_state_just_ends(name, place):
    process = Forked(sleeping, *STATELESS[name], cwd=place, new_session=True)
    wait_for(lambda: "ready" in process.said(), process)
    assert terminated(process) == (143, "ready\nrobust-rlhf: interrupted\n")


def ended(ranks, seconds=60):
    """What all ranks said; none outlives the test."""
    try:
        return [rank.communicate(timeout=seconds)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()


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
    script = [Path(__file__).with_name("under_an_agent.py"), event, *where, *arguments(kind, place, broken, *more)]
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
    first, second = weights(whole), weights(broken)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_second_ctrl_c_stops_at_once_and_an_echo_does_not(monkeypatch):
    """A launcher passes on what the terminal has sent to its processes already."""
    now = [100.0]
    monkeypatch.setattr("llm.training.interrupts.time.monotonic", lambda: now[0])
    stop = StopRequest()
    stop.handle(signal.SIGINT, None)
    stop.handle(signal.SIGINT, None)
    now[0] += 5
    stop.handle(signal.SIGTERM, None)
    with pytest.raises(KeyboardInterrupt):
        stop.handle(signal.SIGINT, None)


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
