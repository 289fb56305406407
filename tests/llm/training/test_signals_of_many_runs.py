"""SIGTERM to commands of many runs: sweeps, studies, demos and pipelines keep what is done and go on."""

from __future__ import annotations

import json

import kills
import numpy as np
import pytest
import yaml
from forked import Forked, finished
from safetensors.torch import load_file
from signalled_runs import SWEEP, TRAINING_STEP, hit_in, running, terminated, wait_for
from test_pipeline import write as write_pipeline

from dro_core.locks import LOCK
from robust_rlhf import main


@pytest.mark.exhaustive(turns=8)
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


@pytest.mark.exhaustive(turns=8)
def test_a_terminated_verification_keeps_its_verdicts_and_leaves_no_worker(tmp_path):
    argv = ["verify", "--jobs", "2", "--json", "out.json"]
    process = Forked(main, argv, cwd=tmp_path, new_session=True)
    wait_for(lambda: "upheld" in process.said(), process)
    status, said = terminated(process)
    assert status == 143, said
    stored = json.loads((tmp_path / "out.json").read_text())
    assert stored["reports"]
    assert stored["unchecked"]


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
