"""Called by test_trl_ranks.py on two processes: one step of each kind against the gradient of all ranks' examples."""

from __future__ import annotations

import json
import os
from pathlib import Path

from accelerate.utils import gather_object
from robust_trl import full_batch_gradient, load, seen, surrogate, trained
from tiny_trl import build, flat_gradient, relative_error

PAIRS = [  # several micro-batches, some skipped; one per rank, where one pass does
    ("reward", "tv:0.4", 4),
    ("dpo", "cvar:0.4,by=source", 4),
    ("dpo", "tv:0.25", 1),
]
ONLINE = [("grpo", "tv:0.25"), ("rloo", "cvar:0.5")]


def pairs_error(tiny, folder, name, spec, steps):
    trainer, (gradient,) = trained(tiny, name, folder, spec, steps=steps, dataloader_drop_last=True)
    rows = seen(trainer)
    return len(rows), 2 * steps, relative_error(gradient, full_batch_gradient(tiny, name, rows, spec))


def online_error(tiny, folder, name, spec):
    """Three prompts with four completions each: the second prompt's are shared out between the ranks."""
    config = {"scale_rewards": "none"} if name == "grpo" else {}
    trainer, (gradient,) = trained(tiny, name, folder, spec, micro=2, steps=3, **config)
    judged = gather_object(trainer.reward_funcs[0].judged)
    model = load(tiny, "causal")
    surrogate(trainer, model, spec, judged, name=name).backward()
    expected = trainer.accelerator.reduce(flat_gradient(model), "mean")
    return len(seen(trainer)), 3, relative_error(gradient, expected)


def main(folder: Path) -> None:
    rank, ranks = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE"))
    tiny = build(folder / f"rank{rank}")
    errors = [(f"{name} {spec}", *pairs_error(tiny, folder, name, spec, steps)) for name, spec, steps in PAIRS]
    errors += [(f"{name} {spec}", *online_error(tiny, folder, name, spec)) for name, spec in ONLINE]
    if rank == 0:
        (folder / "errors.json").write_text(json.dumps({"ranks": ranks, "errors": errors}))
