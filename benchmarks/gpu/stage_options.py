"""What torch.compile, attention kernels and checkpointed activations bring to plain and to robust steps."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from clock import Record, Room, forget_peak, kept_going, peak_gib, spread, warm
from random_llamas import MICRO, SMALL, TINY, WINDOW, arguments, collator, pairs, step_seconds
from surroundings import Setting

from llm.kinds.reward import RewardTrainer

STEPS = 6
OPTIONS: dict[str, Record] = {
    "sdpa": {},
    "eager attention": {"attention": "eager"},
    "flash attention 2": {"attention": "flash_attention_2"},
    "activation checkpointing": {"activation_checkpointing": True},
    # Left to itself transformers turns TF32 on by half of torch's flags, and the compiler then refuses to read them.
    "torch.compile": {"torch_compile": True, "tf32": False},
}
WAYS = (("plain", None, True), ("single pass", "tv:0.2", True), ("two passes", "tv:0.2", False))


def measure(setting: Setting, say: Callable[[Record], Any]) -> None:
    """Every option under plain training and under both passes; the compiler last, since it takes longest to begin."""
    warm(setting.device)
    shape = TINY if setting.tiny else SMALL
    data, room = pairs(shape, MICRO * WINDOW * STEPS), Room(setting)
    for option, chosen in OPTIONS.items():
        changed = dict(chosen)
        attention = changed.pop("attention", "sdpa")
        if attention == "flash_attention_2" and (find_spec("flash_attn") is None or setting.tiny):
            say({"option": option, "skipped": "the package flash_attn is not there"})
            continue
        if setting.tiny and "torch_compile" in changed:
            continue  # minutes on a CPU, and a C++ compiler
        for way, ambiguity, single in WAYS:
            what = {"shape": shape.name, "option": option, "way": way}
            if not room.is_left():
                return
            if setting.has(**what):
                continue
            with room.taken(), kept_going(say, **what), tempfile.TemporaryDirectory() as folder:
                model = shape.model("reward", setting.device, attention=attention)
                given = arguments(setting.device, folder, single=single, steps=STEPS, **changed)
                forget_peak(setting.device)

                def make(times: Any, model: Any = model, given: Any = given, ambiguity: Any = ambiguity) -> Any:
                    return RewardTrainer(
                        model=model,
                        args=given,
                        train_dataset=data,
                        data_collator=collator(),
                        ambiguity=ambiguity,
                        passes="auto" if given.gradient_accumulation_steps == 1 else "two",
                        callbacks=[times],
                    )

                found = spread(step_seconds(make, setting.device)[1:])
                rate = round(2 * MICRO * WINDOW * shape.tokens / found["seconds"])
                say({**what, **found, "tokens_per_second": rate, "peak_gib": peak_gib(setting.device)})
                torch.compiler.reset()
