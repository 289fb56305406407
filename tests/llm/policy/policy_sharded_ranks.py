"""Called by test_policy_ranks.py on one and on two processes: gradients, what is gathered when, and checkpoints."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from torch.utils._python_dispatch import TorchDispatchMode

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

import ranks
from exact_cells import Adapter, Launcher
from exact_policies import PolicyCell, begin
from policy_ranks import ran, trainer_of
from torch.distributed.tensor import DTensor

from llm.commands.shell import one_sentence_errors
from llm.policy.config import PolicyConfig
from llm.policy.generation.engine import Sampling
from llm.policy.observation import observed
from llm.policy.ranks.gathering import gathered
from llm.policy.ranks.states import whole_weights
from llm.policy.rollouts import Answers
from llm.policy.run import train_policy
from llm.run.folder import CheckpointError
from llm.training.config import ConfigError
from llm.training.settings import parse_train

CELLS = [
    PolicyCell(Launcher.DDP),
    PolicyCell(Launcher.FSDP2, estimator="ppo"),
    PolicyCell(Launcher.FSDP2, Adapter.LORA, estimator="grpo"),
    PolicyCell(Launcher.FSDP2, steps=3),
]
UNITS = 4 + 1  # of the policy that FSDP2 spreads: its layers, and what is left; the reference is one more


class Collectives(TorchDispatchMode):
    """Names of the operations between processes."""

    def __init__(self) -> None:
        super().__init__()
        self.names = list[str]()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "c10d":
            self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


class RolloutDone(Exception):
    pass


def subject(launcher: Launcher, folder: Path, world: int, **changes):
    arguments = ranks.policy_arguments(launcher, str(folder / "run"), max_steps=3, learning_rate=1e-3, **changes)
    cell = PolicyCell(launcher, estimator="ppo")
    made = trainer_of(cell, begin(cell.adapter), arguments, world)
    assert ran(made) is launcher
    return made


def message_of(action) -> str:
    try:
        action()
    except (CheckpointError, ConfigError) as error:
        return str(error)
    return ""


def refused(folder: Path, **fsdp) -> str:
    return message_of(lambda: subject(Launcher.FSDP2, folder, 2, fsdp_config=fsdp))


def rollout(made, *lengths: int) -> list[str]:
    """The collectives of one whose answers have at most so many tokens on each rank; before its update."""

    def stopped(*_):
        raise RolloutDone

    made.pen = Answers(made.pen.tokenizer, Sampling(lengths[made.rank]), batch_size=3)
    made.weigh = stopped
    with Collectives() as seen:
        try:
            made.take_step()
        except RolloutDone:
            del made.weigh
    return seen.names


def gathering(launcher: Launcher, folder: Path) -> dict:
    """What a rollout gathers, whether a step ends after answers of other lengths, and what is freed."""
    made = subject(launcher, folder, 2)
    short, long = rollout(made, 1, 1), rollout(made, 2, 6)
    with gathered(made.update.module), gathered(made.reference.model):
        inside = [*made.core.parameters(), *made.reference.model.parameters()]
        whole = sum(part.numel() for part in inside if not isinstance(part, DTensor))
        with Collectives() as seen:
            ids = made.encoded[: 1 + made.rank]
            Answers(made.pen.tokenizer, Sampling(2 + made.rank), batch_size=3)(made.core.policy, ids, _Lots())
    made.pen = Answers(made.pen.tokenizer, Sampling((1, 6)[made.rank]), batch_size=3)
    said = made.take_step()
    return {
        "short": short,
        "long": long,
        "inside": seen.names,
        "whole": whole,
        "left": sum(part.untyped_storage().size() for part in inside),
        "tokens": said["answer_tokens"],
    }


def rounded(folder: Path) -> bool:
    """Whether what a policy in bfloat16 says of tokens was rounded on its way out, too."""
    made = subject(Launcher.FSDP2, folder, 2, bf16=True)
    answers = made.pen(None, None, None, samples=3, positions=[0])
    with made.accelerator.autocast():
        logps = observed(made.update.module, made.reference, answers, pad=0, size=4).logps
    made.take_step()
    return logps.dtype != torch.float32 or torch.equal(logps, logps.bfloat16().float())


class _Lots:
    """Numbers in the middle."""

    def of(self, prompt, sample, count):
        return torch.full((count,), 0.5).numpy()


def parameters(made) -> list[float]:
    """Some of each, wherever they are."""
    whole = whole_weights(made.update.module, keep=True)
    return torch.cat([part.flatten()[:50] for part in whole.values()]).tolist()


def resumed(launcher: Launcher, folder: Path, world: int) -> list[float]:
    """Where the third step leads from the checkpoint after the second."""
    made = subject(launcher, folder, world)
    made.load(folder / "run" / "checkpoint-2")
    assert made.step == 2
    made.take_step()
    return parameters(made)


def checkpoints(launcher: Launcher, folder: Path) -> dict[str, list[float]]:
    """The end of a run in one go, and of one that is resumed from its checkpoint after the second step."""
    made = subject(launcher, folder, 2)
    for _ in range(2):
        made.take_step()
        made.step += 1
    made.save()
    made.take_step()
    return {"whole": parameters(made), "resumed": resumed(launcher, folder, 2)}


def main(folder: Path) -> None:
    """On two processes."""
    found = {
        "cells": [ranks.measured_policy(cell, str(folder), 2) for cell in CELLS],
        "gathering": gathering(Launcher.FSDP2, folder),
        "checkpoints": checkpoints(Launcher.FSDP2, folder),
        "elsewhere": resumed(Launcher.DDP, folder, 2),
        "rounded": rounded(folder),
        "refused": [
            refused(folder, version=1, sync_module_states="false"),
            refused(folder, cpu_ram_efficient_loading=True),
        ],
    }
    written(found, folder)


def deepspeed(folder: Path) -> None:
    """The same for DeepSpeed, one stage after the other."""
    stages = {launcher: folder / launcher.name for launcher in (Launcher.ZERO2, Launcher.ZERO3)}
    cells = [PolicyCell(launcher, adapter, "ppo") for launcher in stages for adapter in Adapter]
    found = {
        "cells": [ranks.measured_policy(cell, str(folder), 2) for cell in cells],
        "gathering": [gathering(launcher, place) for launcher, place in stages.items()],
        "checkpoints": [checkpoints(launcher, place) for launcher, place in stages.items()],
        "elsewhere": message_of(lambda: resumed(Launcher.FSDP2, stages[Launcher.ZERO3], 2)),
    }
    written(found, folder)


def written(found: dict, folder: Path) -> None:
    """What this process found, and the end of its group."""
    (folder / f"found-{torch.distributed.get_rank()}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


def whole_run(argv: list[str]) -> int:
    """A run as ``accelerate launch`` with fsdp2.yaml starts it, which on a CPU would fall back to DDP."""
    os.environ |= {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_RESHARD_AFTER_FORWARD": "true"}
    os.environ |= {"FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP", "FSDP_CPU_RAM_EFFICIENT_LOADING": "false"}

    def train(told):
        config, arguments = parse_train(PolicyConfig, told)
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
        trained = train_policy(config, arguments)
        whole = not any(isinstance(part, DTensor) for part in trained.model.parameters())
        assert whole == (arguments.process_index == 0)
        return 0

    return one_sentence_errors(train)(argv)


def alone(folder: Path) -> None:
    """On one process, from the checkpoint of two."""
    (folder / "alone.json").write_text(json.dumps(resumed(Launcher.SINGLE, folder, 1)))
