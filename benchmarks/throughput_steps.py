"""One contestant of throughput.py in a process of its own: it takes its steps and says on one line what they took.

    python benchmarks/throughput_steps.py dpo "TRL, plain" [--flops]

All contestants of a task read the same tokens with the same model, and every sequence has the same length.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent / "gpu"))

import torch
from random_llamas import PlainTrainer
from throughput import ANSWER, MICRO, PROMPT, RANK, TASKS, WINDOW
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from training_contestants import quiet, trained_a_little
from transformers import TrainerCallback, TrainingArguments, set_seed

from llm.kinds.dpo import DPOTrainer
from llm.kinds.reward import RewardTrainer
from llm.models.adapters import Adapter, with_adapter
from llm.models.loading import load_policy, load_reward_model
from llm.text.batches import PairCollator
from llm.text.encoding import EncodedPairs
from llm.text.truncation import Truncation
from llm.training.losses import Sigmoid


class Readings(TrainerCallback):
    """Clocks when training begins and after every step; the peak of memory begins anew with the training."""

    def __init__(self) -> None:
        self.found = list[tuple[float, float]]()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """All is loaded."""
        Path("/proc/self/clear_refs").write_text("5")
        self._read()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A step ends."""
        self._read()

    def _read(self) -> None:
        self.found.append((time.process_time(), time.perf_counter()))

    def told(self) -> dict[str, float]:
        """Processor and wall seconds of a step, and the most memory of the process, GiB."""
        steps = len(self.found) - 1
        cpu, wall = ((last - first) / steps for first, last in zip(self.found[0], self.found[-1], strict=True))
        return {"cpu": cpu, "wall": wall, "gib": memory("VmHWM"), "steps": steps}


def memory(name: str) -> float:
    """A line of what Linux says of this process, GiB."""
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found, name
    return int(found[1]) / 2**20


def texts(tokenizer: Any, rows: int) -> list[tuple[str, str, str]]:
    """Prompts and two answers, of words that are one token each wherever they stand."""
    mark = tokenizer.tokenize(" dog cat")[-1].removesuffix("cat")
    known = sorted(word.removeprefix(mark) for word in tokenizer.get_vocab() if re.fullmatch(mark + "[a-z]{4,6}", word))
    words = [word for word in known if len(tokenizer.tokenize(f" {word}")) == 1][:2000]
    rng = random.Random(0)

    def some(count: int) -> str:
        return "".join(f" {word}" for word in rng.choices(words, k=count))

    return [(some(PROMPT), some(ANSWER), some(ANSWER)) for _ in range(rows)]


def encoded(tokenizer: Any, rows: list[tuple[str, str, str]]) -> EncodedPairs:
    """The same texts as ids.

    Raises:
        RuntimeError: A text has another length than the others.
    """
    end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id

    def ids(prompt: str, answer: str) -> list[int]:
        return [*tokenizer(prompt + answer, add_special_tokens=False)["input_ids"], end]

    span = PROMPT, PROMPT + ANSWER + 1
    items: Any = [
        {"index": i, "chosen": ids(row[0], row[1]), "rejected": ids(row[0], row[2]), "chosen_span": span,
         "rejected_span": span} for i, row in enumerate(rows)
    ]  # fmt: skip
    if any(len(item[side]) != span[1] for item in items for side in ("chosen", "rejected")):
        raise RuntimeError("the texts have other lengths in tokens than was asked for")
    return EncodedPairs([], items, {}, Truncation())


def arguments(steps: int, folder: str) -> dict[str, Any]:
    """The same for every contestant; what is not here is each one's default."""
    return {"output_dir": folder, "per_device_train_batch_size": MICRO, "gradient_accumulation_steps": WINDOW,
            "max_steps": steps, "learning_rate": 1e-4, "lr_scheduler_type": "constant", "optim": "adamw_torch",
            "max_grad_norm": 1.0, "save_strategy": "no", "logging_strategy": "no", "report_to": "none",
            "disable_tqdm": True, "use_cpu": True, "bf16": False, "activation_checkpointing": False}  # fmt: skip


def trainer(task: str, way: str, folder: str) -> Any:
    """The contestant, ready to train."""
    told = TASKS[task]
    set_seed(0)
    model, tokenizer = (load_policy if task == "dpo" else load_reward_model)(told.model)
    rows, given = texts(tokenizer, told.steps * MICRO * WINDOW), arguments(told.steps, folder)
    if way == "TRL, plain":
        return trl_trainer(model, tokenizer, rows, given)
    ours = TrainingArguments(**given, remove_unused_columns=False, label_names=[])
    common: Any = {"args": ours, "train_dataset": encoded(tokenizer, rows), "data_collator": PairCollator(tokenizer)}
    if way == "transformers.Trainer":
        return PlainTrainer(model=model, **common)
    rule = None if way == "erm" else way
    if task == "reward":
        return RewardTrainer(model=model, ambiguity=rule, **common)
    model = with_adapter(model, Adapter(RANK), task="CAUSAL_LM")
    return DPOTrainer(model=model, ambiguity=rule, beta=0.1, pair_loss=Sigmoid(), **common)


def trl_trainer(model: Any, tokenizer: Any, rows: list[tuple[str, str, str]], given: dict[str, Any]) -> Any:
    """TRL's DPO with a new adapter, whose reference is the model without it, as ours."""
    import trl
    from datasets import Dataset, disable_progress_bars
    from peft import LoraConfig

    disable_progress_bars()
    data = [dict(zip(("prompt", "chosen", "rejected"), row, strict=True)) for row in rows]
    adapter = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    return trl.DPOTrainer(
        model=model,
        args=trl.DPOConfig(**given, beta=0.1),
        train_dataset=Dataset.from_list(data),
        processing_class=tokenizer,
        peft_config=adapter,
    )


def measured(task: str, way: str, *, flops: bool) -> dict[str, float]:
    """What a step takes, without loading; besides, in one step more, how many operations it has."""
    with tempfile.TemporaryDirectory() as folder:
        contestant, readings = trainer(task, way, folder), Readings()
        if task == "dpo":
            trained_a_little(contestant.model)
        contestant.add_callback(readings)
        contestant.train()
        return readings.told() | ({"flops": counted(contestant)} if flops else {})


def counted(contestant: Any) -> float:
    """Floating-point operations of a step, attention as plain matrix products, which the counter knows."""
    contestant.args.max_steps = 1
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        contestant.train()
    return counter.get_total_flops()


def main() -> None:
    """Train, and print one line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("way")
    parser.add_argument("--flops", action="store_true", help="also count the operations of a step")
    options = parser.parse_args()
    quiet()
    torch.set_num_threads(1)
    with contextlib.redirect_stdout(io.StringIO()):  # Trainer prints its logs
        found = measured(options.task, options.way, flops=options.flops)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
