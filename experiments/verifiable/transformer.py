"""Transformers from scratch on arithmetic: supervised warm start, then policy gradient at equal generated tokens.

A cell is an arm at a learning rate on a seed; each is kept as one file and not trained again.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from llm.run.files import write_json

from .arms import ARMS, ESTIMATORS, Arm, weighting
from .measures import FIFTH
from .tasks import END, LONGEST, PAD, SIGNS, SOURCES, Tasks, tasks, texts

NAMES = ("plain", "kl_penalty:0.3", "tv:0.3", "maxrl", "grpo_std")
SEEDS = tuple(range(8))
RATES = (3e-5, 1e-4, 3e-4)
PROMPTS, SHOWN, GROUP, BATCH = 300, 20_000, 8, 32


@dataclass(frozen=True)
class Sizes:
    """How large and how long.

    Attributes:
        hidden: Width of the model; four times as wide in the middle.
        layers: How many.
        warm: Supervised steps of 128 tasks.
        tokens: Generated tokens of a cell.
        every: Generated tokens between measurements.
    """

    hidden: int = 64
    layers: int = 3
    warm: int = 300
    tokens: int = 2_000_000
    every: int = 100_000

    def folder(self, kept: Path) -> Path:
        """Where cells of these sizes stand: others do not mix with them."""
        return kept / "-".join(str(value) for value in vars(self).values())


class Cell(NamedTuple):
    """One training."""

    arm: str
    rate: float
    seed: int

    def path(self, folder: Path) -> Path:
        """Where its numbers stand."""
        return folder / f"{self.arm.replace(':', '-')}-{self.rate:g}-{self.seed}.json"


def cells() -> list[Cell]:
    """All of them, seed by seed: what is finished when time ends has all arms."""
    return [Cell(name, rate, seed) for seed in SEEDS for rate in RATES for name in NAMES]


def built(sizes: Sizes, seed: int) -> nn.Module:
    """A Llama without a past."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    heads = max(1, sizes.hidden // 16)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(SIGNS), hidden_size=sizes.hidden, intermediate_size=4 * sizes.hidden,
            num_hidden_layers=sizes.layers, num_attention_heads=heads, num_key_value_heads=heads,
            max_position_embeddings=32, pad_token_id=None, bos_token_id=None, eos_token_id=None,
            attn_implementation="sdpa",
        )
    )  # fmt: skip


def log_probabilities(model: Any, prompts: Tensor, answers: Tensor) -> Tensor:
    """Of whole answers with their ends, ``(n,)``: by teacher forcing, what follows the end counts nothing."""
    logits = model(torch.cat([prompts, answers[:, :-1]], dim=1)).logits[:, prompts.shape[1] - 1 :]
    chosen = _policy(logits).gather(-1, answers[..., None])[..., 0]
    return torch.where(answers != PAD, chosen, 0.0).sum(dim=1)


def _policy(logits: Tensor) -> Tensor:
    """Log-probabilities of the next sign: padding is never one."""
    return logits.index_fill(-1, torch.tensor([PAD]), -torch.inf).log_softmax(dim=-1)


@torch.no_grad()
def sampled(model: Any, prompts: Tensor, generator: torch.Generator) -> Tensor:
    """One answer to each prompt, ``(n, LONGEST)``, padded after its end; the last sign is always the end or wrong."""
    found = torch.full((len(prompts), LONGEST), PAD)
    going, past, given = torch.ones(len(prompts), dtype=torch.bool), None, prompts
    for place in range(LONGEST):
        told = model(given, past_key_values=past, use_cache=True)
        past, chances = told.past_key_values, _policy(told.logits[:, -1]).exp()
        given = torch.multinomial(chances, 1, generator=generator)
        found[:, place] = torch.where(going, given[:, 0], PAD)
        going = going & (given[:, 0] != END)
        if not going.any():
            break
    return found


@torch.no_grad()
def rates_of(model: Any, part: Tasks) -> np.ndarray:
    """Exact pass rates ``(n,)``."""
    return log_probabilities(model, part.prompts, part.answers).double().exp().numpy()


def warmed(sizes: Sizes, seed: int) -> tuple[nn.Module, Tasks, Tasks]:
    """A model that has seen other tasks of these kinds, and the training and held-out tasks."""
    rng = np.random.default_rng([seed, 9])
    train = tasks(rng, PROMPTS)
    held_out = tasks(rng, PROMPTS, without=texts(train))
    shown = tasks(rng, SHOWN, without=texts(train) | texts(held_out), again=True)
    model = built(sizes, seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    for _ in range(sizes.warm):
        rows = torch.as_tensor(rng.integers(0, len(shown.prompts), 128))
        loss = -log_probabilities(model, shown.prompts[rows], shown.answers[rows]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model, train, held_out


def advantages(arm: Arm, rewards: Tensor) -> Tensor:
    """Of rewards ``(n, GROUP)``, times the weights of the prompts."""
    found = ESTIMATORS[arm.estimator](rewards)
    if arm.weighting is None:
        return found
    _, weights = weighting(arm.weighting)(None, rewards.mean(dim=1).numpy())
    return found * torch.as_tensor(weights)[:, None]


def measures(
    rates: Sequence[np.ndarray], starts: Sequence[np.ndarray], source: Sequence[np.ndarray]
) -> dict[str, float]:
    """Of pass rates of the training and the held-out tasks; the worst fifth is fixed at the start."""
    told = {}
    for name, rate, start, places in zip(("train", "held-out"), rates, starts, source, strict=True):
        told |= {f"{name} pass@{k}": float((1 - (1 - rate) ** k).mean()) for k in (1, 4, 16)}
        told[f"{name} worst fifth"] = float(rate[np.argsort(start)[: len(rate) // FIFTH]].mean())
        told[f"{name} worst source"] = float(min(rate[places == s].mean() for s in range(len(SOURCES))))
    return told


def train_cell(cell: Cell, sizes: Sizes) -> dict[str, Any]:
    """Train one cell; what it tells is written as JSON."""
    model, *parts = warmed(sizes, cell.seed)
    policy: Any = model
    arm = next(one for one in ARMS if one.name == cell.arm)
    rng, generator = np.random.default_rng([cell.seed, 1]), torch.Generator().manual_seed(cell.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=cell.rate, weight_decay=0.0)
    starts = [rates_of(policy, part) for part in parts]
    sources = [part.source for part in parts]
    curve: list[dict[str, float]] = [{"tokens": 0.0, **measures(starts, starts, sources)}]
    tokens, steps = 0, 0
    while tokens < sizes.tokens:
        rows = torch.as_tensor(rng.permutation(PROMPTS)[:BATCH]).repeat_interleave(GROUP)
        prompts, right = parts[0].prompts[rows], parts[0].answers[rows]
        answers = sampled(policy, prompts, generator)
        rewards = (answers == right).all(dim=1).double().view(BATCH, GROUP)
        factors = advantages(arm, rewards).view(-1).float()
        if factors.any():
            loss = -(factors * log_probabilities(policy, prompts, answers)).mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        before, steps = tokens, steps + 1
        tokens += int((answers != PAD).sum())
        if tokens // sizes.every > before // sizes.every or tokens >= sizes.tokens:
            rates = [rates_of(policy, part) for part in parts]
            curve.append({"tokens": float(tokens), **measures(rates, starts, sources)})
    size = sum(one.numel() for one in model.parameters())
    return {**cell._asdict(), "parameters": size, "steps": steps, "curve": curve, "sizes": vars(sizes)}


def work(cell: Cell, sizes: Sizes, folder: Path) -> Path:
    """Train a cell unless it is there."""
    path = cell.path(sizes.folder(folder))
    if not path.exists():
        torch.set_num_threads(1)
        write_json(path, train_cell(cell, sizes))
    return path


def finished(folder: Path, sizes: Sizes, workers: int, told: Callable[[], None], wanted: Sequence[Cell] = ()) -> None:
    """Train all cells, say how it goes, and call ``told`` whenever a seed is through and at the end."""
    here = sizes.folder(folder)
    here.mkdir(parents=True, exist_ok=True)
    todo = [cell for cell in wanted or cells() if not cell.path(here).exists()]
    begun = time.monotonic()
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        waiting = {pool.submit(work, cell, sizes, folder): cell for cell in todo}
        for done, future in enumerate(as_completed(waiting), start=1):
            future.result()
            cell, left = waiting[future], (time.monotonic() - begun) * (len(todo) - done) / done
            sys.stderr.write(
                f"{cell.arm} at {cell.rate:g}, seed {cell.seed}: {len(todo) - done} left, {left / 60:.0f} minutes\n"
            )
            if done % (len(NAMES) * len(RATES)) == 0:
                told()
    told()


def collected(folder: Path, sizes: Sizes) -> list[dict[str, Any]]:
    """The ends of all cells of these sizes that are there."""
    paths = sorted(sizes.folder(folder).glob("*.json"))
    found = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    kept = ("arm", "rate", "seed", "parameters", "steps")
    return [{name: one[name] for name in kept} | {"start": one["curve"][0], "end": one["curve"][-1]} for one in found]
