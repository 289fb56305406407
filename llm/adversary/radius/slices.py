"""The slice of pairs that is never trained on, from which ``tv:auto=0.5`` takes its radius."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ...data.pairs import Pair
from ..masses import masses_of
from .auto import auto_of
from .bearing import Array

LEAST = 16  # pairs: of fewer the lower end of what they bear is 0 or close to it


@dataclass
class SliceSettings:
    """How the running radius is measured; a block of the settings of every run on pairs."""

    auto_slice: float = field(
        default=256,
        metadata={"help": "ambiguity tv:auto=0.5: pairs held out to measure the radius on, or below 1 a share of them"},
    )
    auto_every: int = field(default=50, metadata={"help": "ambiguity tv:auto=0.5: steps from one measure to the next"})


def check_slice(settings: SliceSettings) -> None:
    """Refuse settings by which nothing could be measured.

    Raises:
        ValueError: Naming it.
    """
    if not settings.auto_slice > 0:
        raise ValueError(
            f"auto_slice is a number of pairs, or below 1 a share, and positive; got {settings.auto_slice}"
        )
    if settings.auto_every < 1:
        raise ValueError(f"auto_every must be at least 1, got {settings.auto_every}")


def set_apart(
    pairs: Sequence[Pair], rule: object, settings: SliceSettings, *, seed: int
) -> tuple[list[Pair], list[Pair]]:
    """The pairs to train on and those of the slice: whole prompts, drawn by a hash of what they ask.

    Args:
        pairs: All.
        rule: Of the run; one that measures nothing needs no slice.
        settings: How many.
        seed: Other seeds draw other prompts.

    Raises:
        ValueError: What would be left to train on, or to measure on, is too little; one sentence with the remedy.
    """
    if auto_of(rule) is None:
        return list(pairs), []
    wanted = settings.auto_slice * (len(pairs) if settings.auto_slice < 1 else 1)
    rest: dict[bytes, list[Pair]] = {}
    for pair in pairs:
        rest.setdefault(_place(pair, seed), []).append(pair)
    chosen: list[Pair] = []
    for place in sorted(rest):
        if len(chosen) >= wanted:
            break
        chosen += rest.pop(place)
    left = sum(map(len, rest.values()))
    if left < len(chosen):
        raise ValueError(
            f"auto_slice {settings.auto_slice:g} would hold out {len(chosen)} of {len(pairs)} pairs, whole prompts "
            "each, to measure the radius of the set on: lower it to half or less, or give the set a number"
        )
    if len(chosen) < LEAST:
        raise ValueError(
            f"auto_slice {settings.auto_slice:g} holds out {len(chosen)} pairs, too few to measure a radius on: raise "
            f"it to {LEAST} pairs or more, or give the set a number"
        )
    apart = {id(pair) for pair in chosen}
    return [pair for pair in pairs if id(pair) not in apart], [pair for pair in pairs if id(pair) in apart]


def check_covers(rule: object, train: Mapping[str, Any], aside: Mapping[str, Any]) -> None:
    """Refuse a slice that lacks a group of the training pairs: nothing would be measured of it.

    Args:
        rule: Of the run, its groups named.
        train: What the training pairs can be grouped by.
        aside: The same of the slice.

    Raises:
        ValueError: One sentence with the remedy.
    """
    name = getattr(auto_of(rule), "inner", None)
    name = getattr(name, "groups", None)
    if isinstance(name, str) and (lacking := set(map(str, train[name])) - set(map(str, aside[name]))):
        raise ValueError(
            f"{rule} measures its radius on pairs that are held out, and these hold none of {name}={min(lacking)}: "
            "raise auto_slice, name other groups, or give the set a number"
        )


def _place(pair: Pair, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed} {_prompt(pair)}".encode(errors="surrogatepass"), digest_size=16).digest()


def _prompt(pair: Pair) -> str:
    return "\n".join(f"{message['role']}: {message['content']}" for message in pair.prompt)


class Slice:
    """Pairs that are never trained on, and what a rule's names of columns mean on them.

    Args:
        data: The encoded pairs: items of a collator, with ``index`` from 0 on.
        pairs: The same pairs, for their prompts.
        columns: What ``by=`` may name: one entry per pair each.
        every: Optimizer steps from one measure to the next.
        soft: Whether labels are right with the probabilities that the pairs give, where they give one.
    """

    def __init__(
        self,
        data: Any,
        pairs: Sequence[Pair],
        columns: Mapping[str, Sequence[Any]],
        *,
        every: int,
        soft: bool = False,
    ) -> None:
        self.data, self.columns, self.every = data, columns, every
        self.masses = (
            None if (masses := masses_of([pair.weight for pair in pairs])) is None else masses.double().numpy()
        )
        sure = [1.0 if pair.preference is None or not soft else pair.preference for pair in pairs]
        self.certainty = 2 * np.array(sure) - 1  # what the label says of a margin
        prompts = [_prompt(pair) for pair in pairs]
        self.clusters = np.unique(np.array(prompts, dtype=object).astype(str), return_inverse=True)[1]

    @torch.no_grad()
    def margins(self, trainer: Any) -> Array:
        """Margins of all pairs ``(n,)`` by the model as it is, the same on every rank; each computes its share."""
        accelerator, model = trainer.accelerator, trainer.model_wrapped
        world, size, n = accelerator.num_processes, trainer.args.per_device_eval_batch_size, len(self.data)
        lengths = [max(len(item["chosen"]), len(item["rejected"])) for item in (self.data[row] for row in range(n))]
        rows = np.argsort(lengths)[::-1]
        per_rank = -(-n // world)
        mine = np.resize(rows, per_rank * world)[accelerator.process_index :: world]  # as many for every rank
        model.eval()  # every step of training sets it back
        with trainer.compute_loss_context_manager():
            batches = [self._batch(trainer, mine[at : at + size]) for at in range(0, per_rank, size)]
            parts = [trainer.margins(model, batch) for batch in batches]
        told = torch.cat(parts).double() if parts[0].device.type != "mps" else torch.cat(parts).float()
        everyone = accelerator.gather(told).cpu().numpy().reshape(world, per_rank)
        found = np.empty(n)
        found[np.resize(rows, per_rank * world)] = everyone.T.reshape(-1)
        return found

    def _batch(self, trainer: Any, rows: np.ndarray) -> dict[str, Any]:
        return trainer._prepare_inputs(trainer.data_collator([self.data[int(row)] for row in rows]))


def measured(trainer: Any, held_out: Slice | None) -> None:
    """Let a rule that measures its radius do so where it is due: before its first step, then every so many.

    Raises:
        ValueError: There is no slice, or a margin of it is not finite.
    """
    if (auto := auto_of(trainer.ambiguity)) is None:
        return
    if held_out is None:
        raise ValueError(f"{auto} takes its radius from pairs that are never trained on: set the trainer's `slice`")
    step, last = trainer.state.global_step, auto.found.step
    scheduled = trainer.adversary.schedule(step, max(trainer.state.max_steps, 1)) > 0
    if not scheduled or (last >= 0 and step < last + held_out.every):
        return
    margins = held_out.certainty * held_out.margins(trainer)
    if not np.isfinite(margins).all():
        raise ValueError(
            f"before step {step + 1} the margin of a pair held out for {auto} is not finite: lower the learning rate"
        )
    auto.measure(
        np.where(np.abs(margins) > trainer.accuracy.absolute, margins, 0.0),
        held_out.clusters,
        held_out.columns,
        step=step,
        masses=held_out.masses,
    )
