"""Rollouts and updates of a policy on the device: tokens a second of each, plain and robust."""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from clock import Record, forget_peak, kept_going, peak_gib, settle, spread, warm
from random_llamas import MIDDLE, SMALL, TINY, Shape
from surroundings import Setting
from transformers import TrainingArguments

from llm.data.prompts import Prompt
from llm.policy.actor_critic import ActorCritic, Reference
from llm.policy.config import PolicyConfig
from llm.policy.trainer import PolicyTrainer
from llm.training.config import TRAINING_DEFAULTS

STEPS = 4  # the first warms up
WAYS = (("plain", "erm"), ("robust", "tv:0.2"))


class Watched:
    """A part of the trainer, with the time of its calls; the device is waited for."""

    def __init__(self, part: Any, device: str, seconds: list[float]) -> None:
        self._part, self._device, self._seconds = part, device, seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._part, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As the part does."""
        settle(self._device)
        begun = time.perf_counter()
        found = self._part(*args, **kwargs)
        settle(self._device)
        self._seconds.append(time.perf_counter() - begun)
        return found


def measure(setting: Setting, say: Callable[[Record], Any]) -> None:
    """RLOO on random Llamas, scores by length."""
    warm(setting.device)
    for shape in (TINY,) if setting.tiny else (MIDDLE, SMALL):
        for name, ambiguity in WAYS:
            if setting.left <= 0:
                return
            what = {"shape": shape.name, "way": name, "ambiguity": ambiguity}
            with kept_going(say, **what), tempfile.TemporaryDirectory() as folder:
                forget_peak(setting.device)
                say({**what, **steps(shape, ambiguity, setting, folder), "peak_gib": peak_gib(setting.device)})


def steps(shape: Shape, ambiguity: str, setting: Setting, folder: str) -> Record:
    """Take some steps; times of a step, of its rollout and of its updates, medians."""
    prompts, samples, tokens = (2, 2, 4) if setting.tiny else (8, 8, 128)
    config = PolicyConfig(
        train_file="-", reward_model="-", ambiguity=ambiguity, plain_share=0.0, prompts_per_step=prompts,
        samples=samples, max_new_tokens=tokens, max_length=shape.tokens, max_sampler_gap=10.0,
    )  # fmt: skip
    given = {
        "output_dir": folder, "per_device_train_batch_size": 16, "per_device_eval_batch_size": prompts * samples,
        "max_steps": STEPS, "save_strategy": "no", "disable_tqdm": True, "use_cpu": setting.tiny, "learning_rate": 1e-6,
    }  # fmt: skip
    model = shape.model("policy", setting.device)
    model.generation_config.eos_token_id = None  # every answer has its full length
    rng = np.random.default_rng(0)
    trainer = PolicyTrainer(
        module=ActorCritic(model, critic=None),
        reference=Reference(shape.model("policy", setting.device).eval()),
        tokenizer=Numbers(),
        prompts=[Prompt(str(i), ({"role": "user", "content": str(i)},)) for i in range(prompts * STEPS)],
        encoded=[rng.integers(2, shape.vocab_size, shape.tokens // 4).tolist() for _ in range(prompts * STEPS)],
        scorer=lambda asked, texts: np.array([float(len(text) % 17) for text in texts]),
        config=config,
        arguments=TrainingArguments(**{**TRAINING_DEFAULTS, **given}),
    )
    found: defaultdict[str, list[float]] = defaultdict(list)
    trainer.pen = Watched(trainer.pen, setting.device, found["rollout"])  # pyright: ignore
    trainer.update = Watched(trainer.update, setting.device, found["update"])  # pyright: ignore
    for _ in range(STEPS):
        begun = time.perf_counter()
        trainer.take_step()
        settle(setting.device)
        found["step"].append(time.perf_counter() - begun)
        trainer.step += 1
    middle = {name: spread(seconds[1:])["seconds"] for name, seconds in found.items()}
    written = prompts * samples * tokens
    return {
        **spread(found["step"][1:]), "rollout_seconds": middle["rollout"], "update_seconds": middle["update"],
        "answers": prompts * samples, "tokens_per_answer": tokens,
        "rollout_tokens_per_second": round(written / middle["rollout"]),
    }  # fmt: skip


class Numbers:
    """A tokenizer as far as a policy needs one: texts are the numbers of the tokens."""

    pad_token_id, eos_token_id, padding_side = 0, None, "left"

    def decode(self, ids: Any, **kwargs: Any) -> str:
        """The numbers."""
        del kwargs
        return " ".join(map(str, torch.as_tensor(ids).tolist()))
