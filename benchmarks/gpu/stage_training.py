"""What a robust step costs on the device: plain Trainer, our trainer, TRL, at the same settings, on random Llamas."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from clock import Record, Room, forget_peak, kept_going, matmul_rate, peak_gib, spread, timed, warm
from random_llamas import (
    LARGE,
    MICRO,
    MIDDLE,
    SMALL,
    TINY,
    WINDOW,
    PlainTrainer,
    Shape,
    arguments,
    collator,
    pairs,
    parameters,
    step_seconds,
)  # fmt: skip
from surroundings import Setting

from dro_core import parse_ambiguity, worst_case
from llm.kinds.dpo import DPOTrainer
from llm.kinds.reward import RewardTrainer
from llm.training.losses import Sigmoid

STEPS = 4  # the first warms up
PRODUCT = "bf16 matrix product of 8192"
Say = Callable[[Record], Any]


class Way(NamedTuple):
    """A contestant: who trains, the set, and whether one micro-batch holds the effective batch."""

    name: str
    ambiguity: str | None = None
    single: bool = False
    reference: str = ""


REWARD = (
    Way("transformers.Trainer"),
    Way("two passes", "tv:0.2"),
    Way("transformers.Trainer, one micro-batch", single=True),
    Way("single pass", "tv:0.2", single=True),
    Way("two passes", "tv:0.4"),
    Way("plain, ours"),
    Way("TRL, plain"),
)
DPO = (
    Way("plain, ours", reference="model"),
    Way("two passes", "tv:0.2", reference="model"),
    Way("plain, ours", reference="precomputed"),
    Way("two passes", "tv:0.2", reference="precomputed"),
)


def measure(setting: Setting, say: Say) -> None:
    """Middle, small and large models; reward models first."""
    warm(setting.device)
    rate = matmul_rate(setting.device, tiny=setting.tiny)
    if not setting.has(what=PRODUCT):
        say({"what": PRODUCT, "flops_per_second": float(f"{rate:.4g}")})
    for shape in (TINY,) if setting.tiny else (MIDDLE, SMALL, LARGE):
        for task, ways in (("reward", REWARD), ("dpo", DPO)):
            if setting.left > 0:
                task_on(shape, task, ways, setting, rate, say)


def task_on(shape: Shape, task: str, ways: tuple[Way, ...], setting: Setting, rate: float, say: Say) -> None:
    """All contestants of one kind of training on one model, one after the other."""
    what = {"shape": shape.name, "task": task}
    ways = tuple(way for way in ways if not setting.has(**what, **way._asdict()))
    if not ways:
        return
    if (needed := least_gib(shape, task)) > (has := device_gib(setting)):
        say({**what, "failed": f"needs about {needed:.0f} GiB, the device has {has:.0f}"})
        return
    with kept_going(say, **what):
        model, data = shape.model(task, setting.device), pairs(shape, MICRO * WINDOW * STEPS)
        solver, room = solver_seconds(setting), Room(setting)
        for way in ways:
            if not room.is_left():
                return
            told = {**what, **way._asdict()}
            with room.taken(), kept_going(say, **told), tempfile.TemporaryDirectory() as folder:
                forget_peak(setting.device)
                found = step_seconds(lambda times: trainer_of(way, task, model, data, setting, folder, times), setting.device)  # noqa: B023, E501  # fmt: skip
                say({**told, **costs(found, shape, task, model, rate), "peak_gib": peak_gib(setting.device), **solver})
            for part in model.parameters():
                part.grad = None


def costs(found: list[float], shape: Shape, task: str, model: Any, rate: float) -> Record:
    """Seconds of a step, tokens a second, and the share of the matrix rate that plain training's arithmetic is.

    6 N floating-point operations a token (2 more for a reference that is evaluated, which is not counted), attention
    scores left out: a lower bound, the same for all contestants.
    """
    tokens = 2 * MICRO * WINDOW * shape.tokens
    middle = spread(found)
    mfu = 6 * parameters(model) * tokens / middle["seconds"] / rate
    return {**middle, "tokens_per_second": round(tokens / middle["seconds"]), "mfu": float(f"{mfu:.3g}")}


def least_gib(shape: Shape, task: str) -> float:
    """Weights, gradients and Adam's moments in bfloat16, and a second model where DPO has one."""
    with torch.device("meta"):
        count = sum(part.numel() for part in shape.model(task, "meta").parameters())
    return count * 2 * (4 + (task == "dpo")) / 2**30


def device_gib(setting: Setting) -> float:
    """Memory of the device; on a CPU without bound."""
    return float("inf") if setting.tiny else torch.cuda.get_device_properties(0).total_memory / 2**30


def solver_seconds(setting: Setting) -> Record:
    """What ``worst_case`` takes on the losses of a step of this size."""
    losses, rule = torch.rand(MICRO * WINDOW, device=setting.device), parse_ambiguity("tv:0.2")
    return {"solver_seconds": timed(lambda: worst_case(losses, rule), setting.device, budget=0.05)["seconds"]}


def trainer_of(way: Way, task: str, model: Any, data: Any, setting: Setting, folder: str, times: Any) -> Any:
    """The contestant."""
    given = arguments(setting.device, folder, single=way.single, steps=STEPS)
    if way.name.startswith("TRL"):
        return _trl(model, data, given, times)
    common: dict[str, Any] = {"model": model, "args": given, "train_dataset": data, "callbacks": [times]}
    if way.name.startswith("transformers"):
        return PlainTrainer(data_collator=collator(), **common)
    robust = {"ambiguity": way.ambiguity, "passes": "two" if way.ambiguity and not way.single else "auto"}
    if task == "reward":
        return RewardTrainer(data_collator=collator(), **common, **robust)
    reference = elsewhere(model) if way.reference == "model" else None
    collate = collator() if reference is not None else known_reference
    return DPOTrainer(beta=0.1, pair_loss=Sigmoid(), reference=reference, data_collator=collate, **common, **robust)


def elsewhere(model: Any) -> Any:
    """A reference a little away from the policy: at the start of DPO all losses are equal, and no set can choose."""
    reference = copy.deepcopy(model).requires_grad_(requires_grad=False).eval()
    generator = torch.Generator(next(model.parameters()).device).manual_seed(1)
    for weight in reference.parameters():
        weight += 0.02 * torch.randn(weight.shape, generator=generator, device=weight.device, dtype=weight.dtype)
    return reference


def known_reference(items: Any) -> Any:
    """A batch with log-probabilities of the reference in it, as if they had been computed beforehand."""
    batch = collator()(items)
    generator = torch.Generator().manual_seed(int(batch["index"][0]))
    return {**batch, "reference": -5.0 * torch.rand(len(batch["input_ids"]), generator=generator)}


def _trl(model: Any, data: Any, given: Any, times: Any) -> Any:
    if find_spec("trl") is None:
        raise ModuleNotFoundError("trl is not there")
    import trl
    from datasets import Dataset

    ids = [{f"{side}_ids": data[row][side] for side in ("chosen", "rejected")} for row in range(len(data))]
    kept = {
        name: getattr(given, name)
        for name in (
            "output_dir", "per_device_train_batch_size", "gradient_accumulation_steps", "max_steps", "learning_rate",
            "lr_scheduler_type", "save_strategy", "logging_strategy", "disable_tqdm", "use_cpu", "optim", "report_to",
        )
    }  # fmt: skip
    tokenizer = _word_tokenizer()
    args = trl.RewardConfig(**kept, max_length=None, bf16=False, activation_checkpointing=False)
    return trl.RewardTrainer(
        model=model, args=args, train_dataset=Dataset.from_list(ids), processing_class=tokenizer, callbacks=[times]
    )


def _word_tokenizer() -> Any:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"[PAD]": 0, "[SEP]": 1}, unk_token="[PAD]"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", eos_token="[SEP]")
