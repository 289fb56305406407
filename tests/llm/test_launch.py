"""The accelerate configurations say what they are called, read by accelerate itself; wrong setups are refused."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.parallelism_config import ParallelismConfig
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env
from torch.utils.data import IterableDataset
from transformers import TrainingArguments

from llm.guards import check_dataset, check_setup
from llm.settings import recipe_folder

FOLDER = recipe_folder().parent / "accelerate"
NAMES = ["ddp", "fsdp2", "single", "zero2", "zero3"]


def launched(name, monkeypatch):
    """What ``accelerate launch`` makes of a configuration: its arguments, and the environment of the ranks."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    arguments = launch_command_parser().parse_args(["--config_file", str(FOLDER / f"{name}.yaml"), "train.py"])
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
    assert arguments.num_processes == (1 if name == "single" else 8)
    assert (arguments.multi_gpu, arguments.use_fsdp, arguments.use_deepspeed) == (
        name == "ddp",
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


def test_a_stream_of_examples_is_refused():
    class Stream(IterableDataset):
        def __iter__(self):
            yield from ()

    with pytest.raises(ValueError, match="Stream has no length"):
        check_dataset(Stream())
    check_dataset([1, 2])
    check_dataset(None)
