"""The template for SLURM, run: its own lines, with an srun and an scontrol that do on one machine what SLURM's do."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time

import pytest
from command_lines import flags
from slurm_stand_ins import allocation, stand_ins

from llm.data.corpus.corpus import generate
from llm.data.pairs import write_pairs
from llm.run.folder import latest_checkpoint
from llm.run.manifest import MANIFEST
from llm.training.settings import recipe_folder

TEMPLATE = recipe_folder().parent / "accelerate" / "slurm.sh"
STEPS = 30


@pytest.fixture
def batch(tmp_path):
    """``batch(*words)``: the script as SLURM starts it on the first node of an allocation of two."""
    environment = stand_ins(tmp_path / "bin") | allocation() | {"CONFIG": "cpu", "PROCESSES": "1"}
    return lambda *words, **more: subprocess.Popen(
        ["bash", str(TEMPLATE), *words],
        env=os.environ | environment | more,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def command(folder, steps):
    write_pairs(generate(64, seed=3), folder / "train.jsonl")
    told = {
        "config": "reward-tiny", "train_file": folder / "train.jsonl", "output_dir": folder / "run", "max_length": 48,
        "ambiguity": "tv:0.2", "max_steps": steps, "save_steps": 1, "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2, "dataloader_drop_last": True, "disable_tqdm": True, "use_cpu": True,
    }  # fmt: skip
    return ["train", "reward", *flags(told)]


@pytest.mark.exhaustive
@pytest.mark.timeout(900)
def test_two_nodes_train_one_run_that_stops_in_time_and_goes_on(tmp_path, batch):
    """SIGTERM to the tasks, as --signal sends it, leaves a checkpoint; the same line again ends the run."""
    words = command(tmp_path, STEPS)
    job = batch(*words)
    while not list((tmp_path / "run").glob(f"checkpoint-*/{MANIFEST}")):  # looked at: only a run may tidy its folder
        assert job.poll() is None, job.communicate()[0]
        time.sleep(0.5)
    job.send_signal(signal.SIGTERM)
    said, _ = job.communicate(timeout=300)
    assert job.returncode != 0, said
    stopped = latest_checkpoint(tmp_path / "run")
    assert stopped is not None, said
    after = int(stopped.name.rpartition("-")[2])
    assert 1 <= after < STEPS
    again = batch(*command(tmp_path, STEPS), "--save_steps", "100")
    said, _ = again.communicate(timeout=500)
    assert again.returncode == 0, said
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (record["steps"], record["effective_batch"]) == (STEPS, 4 * 2 * 2)
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["world_size"] == 2


def test_what_the_script_lacks_it_names(batch):
    job = batch("train", "reward", PROCESSES="")
    said, _ = job.communicate(timeout=60)
    assert job.returncode != 0
    assert "sbatch --gpus-per-node" in said


def test_the_cores_of_a_node_reach_the_launcher(tmp_path, batch):
    """srun inherits none since 22.05, and the processes of a node would share one core."""
    srun, words = tmp_path / "bin" / "srun", tmp_path / "words"
    srun.write_text(f'#!/bin/bash\nprintf "%s\\n" "$@" > {words}\n')
    for cores, given in (("48", ["--cpus-per-task=48"]), ("", [])):
        job = batch("train", "reward", CONFIG=str(TEMPLATE), SLURM_CPUS_PER_TASK=cores)
        said, _ = job.communicate(timeout=60)
        assert job.returncode == 0, said
        assert [word for word in words.read_text().splitlines() if "cpus" in word] == given


def test_a_misspelt_configuration_is_answered_with_those_there_are(batch):
    job = batch("train", "reward", CONFIG="fspd2")
    said, _ = job.communicate(timeout=60)
    assert job.returncode == 2
    assert said == "CONFIG=fspd2 is no file, and none of cpu ddp fsdp2 single zero2 zero3\n"


def test_the_scheduler_is_told_what_the_pages_say():
    """One launcher a node, whose tasks are signalled in time: the batch script, by B:TERM, would pass nothing on."""
    text = TEMPLATE.read_text()
    told = dict(re.findall(r"^#SBATCH --(\S+) (.*)$", text, re.MULTILINE))
    assert told["ntasks-per-node"] == "1"
    assert int(told["cpus-per-task"]) > 1
    assert (told["open-mode"], "#SBATCH --requeue" in text.splitlines()) == ("append", True)
    number, seconds = re.fullmatch(r"(\w+)@(\d+)", told["signal"]).groups()
    assert number == "TERM"
    kills = int(re.search(r"PET_SHUTDOWN_TIMEOUT:-(\d+)", text)[1])
    assert kills < int(seconds)
    assert (TEMPLATE.stat().st_mode & 0o111) != 0
