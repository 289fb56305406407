"""A small run of every kind, whole and as a kill after its second of three steps leaves it, and harm to its files."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import PartialState
from command_lines import flags
from safetensors.torch import load_file
from tiny_models import save_models
from transformers import Trainer

from llm.data.corpus.corpus import generate
from llm.data.pairs import write_pairs
from llm.policy import checkpoints as policy_checkpoints
from llm.policy.config import PolicyConfig
from llm.policy.run import build_policy_trainer
from llm.run.folder import LISTED, by_step
from llm.run.manifest import MANIFEST
from llm.run.progress import MEASURED
from llm.training.settings import parse_train
from robust_rlhf import main

# Between them they write every file that a checkpoint may hold on one process.
KINDS: dict[str, dict[str, Any]] = {
    "sft": {"ambiguity": "tv:0.2", "gradient_accumulation_steps": 2},
    "reward": {"ambiguity": "gr_dpo:0.5,by=source", "final": "average", "average_after": 0.3, "validation_share": 0.3,
               "adapt_radius": True},
    "dpo": {"ambiguity": "tv:0.2", "lora_rank": 2},
    "policy": {"ambiguity": "running:0.5:gr_dpo:0.5,by=source", "estimator": "ppo", "prompts_per_step": 4, "samples": 2,
               "max_new_tokens": 6, "lr_scheduler_type": "linear"},
}  # fmt: skip


def untimed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of a log without what is a matter of time and machine."""
    ends = ("runtime", "per_second", *MEASURED)
    return [{name: value for name, value in row.items() if not name.endswith(ends)} for row in rows]


class Place(NamedTuple):
    """Where data and models are, and where a whole run of every kind."""

    inputs: Path
    runs: Path


def place_of(once: Any) -> Place:
    inputs = once("checkpoint-inputs", _make_inputs)
    return Place(inputs, once("checkpoint-runs", lambda folder: _make_runs(Place(inputs, folder))))


def _make_inputs(folder: Path) -> None:
    pairs = generate(64, seed=5)
    write_pairs(pairs, folder / "train.jsonl")
    save_models(folder, pairs, max_length=96)


def _make_runs(place: Place) -> None:
    for kind in KINDS:
        assert main(command(place, kind, place.runs / kind)) == 0


def command(place: Place, kind: str, output: Path, **more: Any) -> list[str]:
    told = {
        "config": f"{kind}-tiny", "model": place.inputs / ("rm" if kind == "reward" else "start"),
        "train_file": place.inputs / "train.jsonl", "output_dir": output, "max_steps": 3, "save_steps": 1,
        "save_total_limit": 9, "per_device_train_batch_size": 4, "max_length": 96, "plain_share": 0, "logging_steps": 1,
        "disable_tqdm": True, "use_cpu": True, **({"reward_model": place.inputs / "rm"} if kind == "policy" else {}),
        **KINDS[kind], **more,
    }  # fmt: skip
    return ["train", kind, *flags(told)]


def halted(place: Place, kind: str, output: Path) -> Path:
    """The run of that kind in ``output`` as it stood after its second step."""
    shutil.copytree(place.runs / kind, output)
    shutil.rmtree(output / "checkpoint-3")
    shutil.rmtree(output / "model")
    (output / "run.json").unlink()
    return output


def of_earlier_version(run: Path) -> None:
    """Take away what versions before the manifest did not write."""
    for manifest in run.glob(f"checkpoint-*/{MANIFEST}"):
        manifest.unlink()
    settings = json.loads((run / "settings.json").read_text())
    (run / "settings.json").write_text(json.dumps({name: settings[name] for name in settings if name != LISTED}))


def earlier(place: Place, kind: str, output: Path) -> Path:
    """A halted run as the version before wrote it: a policy's checkpoints were of accelerate's making."""
    run = halted(place, kind, output)
    if kind == "policy":
        for step, checkpoint in by_step(run).items():
            trainer, _ = build_policy_trainer(*parse_train(PolicyConfig, command(place, kind, run)[2:]))
            trainer.load(checkpoint)
            for name in ("model.safetensors", "optimizer.pt", "schedule.json", "rng_state_0.json"):
                (checkpoint / name).unlink()
            trainer.accelerator.register_for_checkpointing(trainer.schedule)
            trainer.accelerator.save_state(str(checkpoint))
            assert (checkpoint / "custom_checkpoint_0.pkl").exists()
            assert trainer.step == step
    of_earlier_version(run)
    return run


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def same_end(one: Path, other: Path) -> bool:
    """Whether two runs exported the same weights, to the last bit."""
    ours, theirs = weights(one), weights(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def parts(checkpoint: Path) -> list[Path]:
    """Every file of a checkpoint."""
    return sorted(path for path in checkpoint.rglob("*") if path.is_file())


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x04
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


DAMAGES = {"missing": Path.unlink, "cut off": cut, "one bit": flipped}


def said_by(capsys: Any, caplog: Any, argv: list[str]) -> tuple[int, str]:
    """Exit status, and what was said on standard error and in the log."""
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        status = main(argv)
    return status, capsys.readouterr().err + caplog.text


def main_with_a_slow_rank(argv: list[str]) -> int:
    """The command line, where process 1 takes its time over its part of a checkpoint."""
    for place, name in ((Trainer, "_save_rng_state"), (policy_checkpoints, "_drawing")):
        setattr(place, name, _slow(getattr(place, name)))
    return main(argv)


def _slow(prompt: Callable[..., Any]) -> Callable[..., Any]:
    def slow(*arguments: Any) -> Any:
        time.sleep(0.7 * PartialState().process_index)
        return prompt(*arguments)

    return slow
