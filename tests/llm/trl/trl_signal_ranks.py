"""Called by test_trl_signal.py on two processes: one step against the mean over the groups of both ranks."""

from __future__ import annotations

import json
import os
from pathlib import Path

from accelerate.utils import gather_object
from robust_trl import load, trainer_for
from tiny_trl import Gradients, build, flat_gradient, relative_error
from trl_signal import Checked, drawn, groups, mean_of_those_with_a_signal

RUNS = [
    ("grpo", None, "leave_out"),
    ("rloo", "cvar:0.5", "leave_out"),
    ("grpo", "tv:0.25", "draw_again"),
    ("rloo", None, "draw_again"),
]


def step(tiny, folder, name, spec, silent_groups):
    """Three prompts with four completions each, one of them shared out between the ranks; to draw again, five."""
    config = {"scale_rewards": "none"} if name == "grpo" else {}
    gradients = Gradients()
    trainer = trainer_for(
        tiny,
        name,
        folder,
        spec,
        callbacks=[gradients],
        extra={"silent_groups": silent_groups},
        micro=2,
        steps=3 if silent_groups == "leave_out" else 5,
        **config,
    )
    trainer.reward_funcs[0] = judge = Checked()
    trainer.train()
    batch = drawn(trainer)
    judged, present = gather_object(judge.judged), set(gather_object([prompt for *_, prompt, _ in batch]))
    model = load(tiny, "causal")
    told = (judged, present)
    mean_of_those_with_a_signal(trainer, model, batch, spec, name=name, judged=told, share=0.5).backward()
    expected = trainer.accelerator.reduce(flat_gradient(model), "mean")
    assert all(len(group) == 4 for group in groups(judged).values())
    rounds = trainer.state.log_history[0].get("groups/rounds", 0.0)
    return (
        f"{name} {silent_groups}",
        relative_error(gradients.steps[0], expected),
        gather_object([sorted(map(int, trainer.ledger.visits.nonzero()[0]))]),
        gather_object([rounds]),
    )


def main(folder: Path) -> None:
    tiny = build(folder / f"rank{os.environ['RANK']}")
    first = list({prompt: row for row, prompt in reversed(list(enumerate(tiny.data["prompt"])))}.values())
    tiny = tiny._replace(data=tiny.data.select(sorted(first)))  # different prompts
    found = [step(tiny, folder, *run) for run in RUNS]
    if os.environ["RANK"] == "0":
        (folder / "found.json").write_text(json.dumps(found))
