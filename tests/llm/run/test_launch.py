"""The accelerate configurations say what they are called, read by accelerate itself; wrong launches are refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.parallelism_config import ParallelismConfig
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env
from command_lines import flags
from forked import finished, start_ranks
from torch.utils.data import IterableDataset
from transformers import TrainingArguments

from llm.data.corpus.corpus import generate
from llm.data.pairs import write_pairs
from llm.run.launch import LaunchError
from llm.run.launch import launched as launched_by
from llm.training.guards import check_dataset, check_setup
from llm.training.settings import recipe_folder
from robust_rlhf import COMMANDS, main

FOLDER = recipe_folder().parent / "accelerate"
NAMES = ["cpu", "ddp", "fsdp2", "single", "zero2", "zero3"]


def launched(name, monkeypatch):
    """What ``accelerate launch`` makes of a configuration: its arguments, and the environment of the ranks."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    told = ["--config_file", str(FOLDER / f"{name}.yaml"), "--main_process_port", "0"]  # another test may have 29500
    arguments = launch_command_parser().parse_args([*told, "train.py"])
    arguments, defaults, _ = _validate_launch_command(arguments)
    if not arguments.use_deepspeed:
        return arguments, prepare_multi_gpu_env(arguments)
    arguments.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
    return arguments, prepare_deepspeed_cmd_env(arguments)[1]


def test_there_is_a_configuration_for_every_launcher():
    assert sorted(path.stem for path in FOLDER.glob("*.yaml")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_accelerate_starts_what_the_name_says(name, monkeypatch):
    arguments, _ = launched(name, monkeypatch)
    assert arguments.num_processes == {"single": 1, "cpu": 2}.get(name, 8)
    assert (arguments.multi_gpu, arguments.use_fsdp, arguments.use_deepspeed) == (
        name in ("ddp", "cpu"),  # which means: started by torchrun
        name == "fsdp2",
        name.startswith("zero"),
    )
    assert not arguments.cpu


def test_fsdp2_shards_and_saves_whole_models(monkeypatch):
    environment = launched("fsdp2", monkeypatch)[1]
    assert (environment["ACCELERATE_USE_FSDP"], environment["FSDP_VERSION"]) == ("true", "2")
    assert environment["FSDP_STATE_DICT_TYPE"] == "FULL_STATE_DICT"


@pytest.mark.parametrize("stage", ["2", "3"])
def test_deepspeed_clips_only_as_max_grad_norm_says(stage, monkeypatch):
    environment = launched(f"zero{stage}", monkeypatch)[1]
    assert environment["ACCELERATE_DEEPSPEED_ZERO_STAGE"] == stage
    assert environment["ACCELERATE_GRADIENT_CLIPPING"] == "auto"
    assert environment["ACCELERATE_GRADIENT_ACCUMULATION_STEPS"] == "auto"


def check(tmp_path, *, deepspeed=None, mesh=None, model=None):
    plugin = None if deepspeed is None else SimpleNamespace(deepspeed_config=deepspeed)
    state = SimpleNamespace(deepspeed_plugin=plugin)
    accelerator = SimpleNamespace(num_processes=1, state=state, parallelism_config=mesh)
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, max_grad_norm=0.5)
    check_setup(arguments, accelerator, model or torch.nn.Linear(1, 1), two_passes=True)


def test_silent_clipping_of_deepspeed_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"set it to \"auto\", which is max_grad_norm \(now 0.5\)"):
        check(tmp_path, deepspeed={"zero_optimization": {"stage": 2}})
    check(tmp_path, deepspeed={"gradient_clipping": 0.0})  # chosen, though off


def test_ranks_that_share_examples_are_refused(tmp_path):
    for size in ({"tp_size": 2}, {"cp_size": 2}, {"sp_size": 2}):
        mesh = ParallelismConfig(dp_shard_size=2, **size)
        with pytest.raises(ValueError, match="2 ranks work on the same examples"):
            check(tmp_path, mesh=mesh)
    check(tmp_path, mesh=ParallelismConfig(dp_replicate_size=2, dp_shard_size=2))
    split = torch.nn.Linear(1, 1)
    split._tp_size = 4
    with pytest.raises(ValueError, match="4 ranks work on the same examples"):
        check(tmp_path, model=split)


def test_a_set_without_length_or_without_a_whole_batch_is_refused(tmp_path):
    class Stream(IterableDataset):
        def __iter__(self):
            yield from ()

    flags = {"per_device_train_batch_size": 3, "dataloader_drop_last": True, "use_cpu": True}
    arguments = TrainingArguments(output_dir=str(tmp_path), **flags)
    with pytest.raises(ValueError, match="Stream has no length"):
        check_dataset(Stream(), arguments)
    with pytest.raises(ValueError, match="2 examples are less than one batch of 3"):
        check_dataset([1, 2], arguments)
    for enough in ([1, 2, 3], None):
        check_dataset(enough, arguments)
    arguments.dataloader_drop_last = False
    check_dataset([1, 2], arguments)


TORCHRUN = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}
SRUN = {
    "SLURM_JOB_ID": "7",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "4",
}


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({}, None),
        (TORCHRUN, (2, 1)),
        ({"OMPI_COMM_WORLD_SIZE": "3", "OMPI_COMM_WORLD_RANK": "2"}, (3, 2)),
        ({"MV2_COMM_WORLD_SIZE": "3", "MV2_COMM_WORLD_RANK": "0"}, (3, 0)),
        ({"PMI_SIZE": "4", "PMI_RANK": "1"}, (4, 1)),
        (SRUN, (4, 3)),
        (SRUN | TORCHRUN, (2, 1)),  # torchrun in every task: the nearest counts
        (SRUN | {"WORLD_SIZE": "1"}, (1, 0)),  # a run of its own in every task
        ({"SLURM_NTASKS": "4"}, None),  # salloc: a shell in an allocation
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}, None),  # sbatch
        (SRUN | {"SLURM_PROCID": "0", "SLURM_PTY_PORT": "4242", "PMI_SIZE": "4", "PMI_RANK": "0"}, None),  # --pty bash
        ({"WORLD_SIZE": "8"}, None),  # left behind: nobody says which of the eight this is
        ({"WORLD_SIZE": "two", "RANK": "0"}, None),
    ],
)
def test_only_a_launcher_that_names_this_process_is_believed(environment, says):
    found = launched_by(environment)
    assert (None if found is None else (found.processes, found.rank)) == says


@pytest.fixture(scope="module")
def pairs_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "train.jsonl"
    write_pairs(generate(24, seed=3), path)
    return path


def training(kind, pairs_file, output, *more):
    told = {"config": f"{kind}-tiny", "train_file": pairs_file, "output_dir": output, "max_steps": 1, "max_length": 48}
    told |= {"disable_tqdm": "true", "ambiguity": "tv:0.3", "plain_share": 0, "dataloader_drop_last": "true"}
    return ["train", kind, *flags(told), *more]


def refused(processes):
    """What two processes that were refused said, each with status 2."""
    said = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [2, 2], said
    return said


@pytest.mark.parametrize("kind", ["sft", "reward", "dpo", "policy"])
def test_two_processes_without_a_gpu_are_no_two_runs(kind, pairs_file, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    first, second = refused(start_ranks(main, training(kind, pairs_file, tmp_path / "run")))
    assert first.count("robust-rlhf: ") == 1
    assert "started 2 processes (WORLD_SIZE)" in first
    assert "add --use_cpu true" in first
    assert second.count("robust-rlhf: ") == 0  # said once
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("asked", [(), ("--ddp_backend", "gloo"), ("--use_cpu", "false")])
def test_processes_without_a_gpu_are_refused_before_they_meet(asked, pairs_file, tmp_path, capsys, monkeypatch):
    """Nobody listens at the address: who connects first would wait, and who leaves first would tear the other out."""
    for name, value in (TORCHRUN | {"RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert main([*training("reward", pairs_file, tmp_path / "run", "--ddp_timeout", "3"), *asked]) == 2
    assert "add --use_cpu true" in capsys.readouterr().err


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in ("train", "pipeline")])
def test_a_command_of_one_process_is_not_started_twice(command, capsys, monkeypatch):
    for name, value in (TORCHRUN | {"RANK": "0"}).items():
        monkeypatch.setenv(name, value)
    assert main([command]) == 2
    assert f"{command} is the work of one process, and the launcher started 2" in capsys.readouterr().err


def test_trainers_refuse_a_launch_that_lies(tmp_path, monkeypatch):
    """Those who write their own script see it too."""
    for name, value in SRUN.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(LaunchError, match=r"started 4 processes \(SLURM_STEP_NUM_TASKS\).*start torchrun"):
        check(tmp_path)


@pytest.mark.exhaustive
@pytest.mark.slow("torch's launcher and the imports of three processes")
def test_two_processes_of_the_command_line_are_one_run(pairs_file, tmp_path):
    """As scaling.md prints it: accelerate's launcher, our configuration, the command line."""
    launcher = ["-m", "accelerate.commands.launch", "--config_file", FOLDER / "cpu.yaml", "--main_process_port", 0]
    command = [*launcher, "-m", "robust_rlhf", *training("reward", pairs_file, tmp_path / "run", "--use_cpu", "true")]
    more = ["--per_device_train_batch_size", "4", "--gradient_accumulation_steps", "1"]
    surroundings = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, *map(str, command), *more], env=surroundings, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["effective_batch"] == 8


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", ["sft", "dpo"])  # policies: test_policy_runs.py
def test_two_processes_on_cpus_are_one_run_of_every_kind(kind, pairs_file, tmp_path):
    size = ["--use_cpu", "true", "--per_device_train_batch_size", "4"]
    finished(start_ranks(main, training(kind, pairs_file, tmp_path / "run", *size)))
    assert json.loads((tmp_path / "run" / "run.json").read_text())["effective_batch"] == 8
