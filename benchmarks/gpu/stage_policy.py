"""Rollouts and updates of a policy on the device: tokens a second of each, plain and robust."""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from clock import Record, Room, forget_peak, kept_going, peak_gib, settle, spread, warm
from random_llamas import MIDDLE, SMALL, TINY, Shape
from surroundings import Setting
from transformers import TrainingArguments

from llm.data.prompts import Prompt
from llm.policy.actor_critic import ActorCritic, Reference
from llm.policy.config import PolicyConfig
from llm.policy.trainer import PolicyTrainer
from llm.training.settings import TRAINING_DEFAULTS

STEPS = 4  # the first warms up
WAYS = (("plain", "erm"), ("robust", "tv:0.2"))
PROBE, LONGEST = 8, 128  # tokens of an answer: in the step that tells how long one takes, and at most


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
    """RLOO on random Llamas, scores by length; answers as long as the time allows, the same for both ways."""
    warm(setting.device)
    shapes = (TINY,) if setting.tiny else (MIDDLE, SMALL)
    for index, shape in enumerate(shapes):
        ways = [way for way in WAYS if not setting.has(shape=shape.name, way=way[0])]
        if ways:
            on_shape(shape, ways, setting.left / (len(shapes) - index), setting, say)


def on_shape(
    shape: Shape, ways: list[tuple[str, str]], seconds: float, setting: Setting, say: Callable[[Record], Any]
) -> None:
    """Both ways on one model, within about ``seconds``."""
    begun, known, room = time.perf_counter(), earlier_length(shape, setting), Room(setting)
    with Room(setting).taken(), kept_going(say, shape=shape.name), tempfile.TemporaryDirectory() as folder:
        if known is None:
            probe = steps(shape, WAYS[0][1], setting, folder, PROBE, count=2)["seconds"]
            known = length_for(seconds - (time.perf_counter() - begun), probe, len(ways), tiny=setting.tiny)
    for name, ambiguity in ways if known else ():
        if not room.is_left():
            return
        what = {"shape": shape.name, "way": name, "ambiguity": ambiguity}
        with room.taken(), kept_going(say, **what), tempfile.TemporaryDirectory() as folder:
            forget_peak(setting.device)
            say({**what, **steps(shape, ambiguity, setting, folder, known), "peak_gib": peak_gib(setting.device)})


def earlier_length(shape: Shape, setting: Setting) -> int | None:
    """The length of answers that an earlier start chose for a model, so that both ways stay comparable."""
    fitting = (tokens for tokens in range(1, LONGEST + 1) if setting.has(shape=shape.name, tokens_per_answer=tokens))
    return next(fitting, None)


def length_for(seconds: float, probe: float, ways: int, *, tiny: bool) -> int:
    """Tokens of an answer, a power of two, so that the steps of all ways fit: a step grows at most with its tokens."""
    tokens = PROBE if tiny else LONGEST
    while tokens > PROBE and STEPS * ways * probe * tokens / PROBE > seconds:
        tokens //= 2
    return tokens


def steps(shape: Shape, ambiguity: str, setting: Setting, folder: str, tokens: int, count: int = STEPS) -> Record:
    """Take ``count`` steps; times of a step, of its rollout and of its updates, medians without the first."""
    prompts, samples = (2, 2) if setting.tiny else (8, 8)
    config = PolicyConfig(
        train_file="-", reward_model="-", ambiguity=ambiguity, plain_share=0.0, prompts_per_step=prompts,
        samples=samples, max_new_tokens=tokens, max_length=shape.tokens, max_sampler_gap=10.0,
    )  # fmt: skip
    given = {
        "output_dir": folder, "per_device_train_batch_size": 16, "per_device_eval_batch_size": prompts * samples,
        "max_steps": count, "save_strategy": "no", "disable_tqdm": True, "use_cpu": setting.tiny, "learning_rate": 1e-6,
    }  # fmt: skip
    model = shape.model("policy", setting.device)
    model.generation_config.eos_token_id = None  # every answer has its full length
    rng = np.random.default_rng(0)
    trainer = PolicyTrainer(
        module=ActorCritic(model, critic=None),
        reference=Reference(shape.model("policy", setting.device).eval()),
        tokenizer=Numbers(),
        prompts=[Prompt(str(i), ({"role": "user", "content": str(i)},)) for i in range(prompts * count)],
        encoded=[rng.integers(2, shape.vocab_size, shape.tokens // 4).tolist() for _ in range(prompts * count)],
        scorer=lambda asked, texts: np.array([float(len(text) % 17) for text in texts]),
        config=config,
        arguments=TrainingArguments(**{**TRAINING_DEFAULTS, **given}),
    )
    found: defaultdict[str, list[float]] = defaultdict(list)
    trainer.pen = Watched(trainer.pen, setting.device, found["rollout"])  # pyright: ignore
    trainer.update = Watched(trainer.update, setting.device, found["update"])  # pyright: ignore
    for _ in range(count):
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

    pad_token_id, eos_token_id, padding_side, chat_template = 0, None, "left", None

    def decode(self, ids: Any, **kwargs: Any) -> str:
        """The numbers."""
        del kwargs
        return " ".join(map(str, torch.as_tensor(ids).tolist()))
