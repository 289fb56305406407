"""The slice of pairs that is never trained on, from which ``tv:auto=0.5`` takes its radius."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...data.overview import prompts_of
from ...data.pairs import Pair
from ..masses import masses_of
from .auto import Auto, auto_of
from .bearing import Array
from .settings import SliceSettings

LEAST = 16  # pairs: of fewer the lower end of what they bear is 0 or close to it


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
    apart = drawn_apart(places_of(pairs, seed=seed), settings.auto_slice)
    train, aside = ([pair for pair, own in zip(pairs, apart, strict=True) if own == wanted] for wanted in (False, True))
    return train, aside


def places_of(pairs: Sequence[Pair], *, seed: int) -> NDArray[np.str_]:
    """A hash of what each pair asks, ``(n,)``: the order in which prompts are drawn for the slice."""
    return np.array([_place(pair, seed) for pair in pairs], dtype="U32")


def drawn_apart(places: NDArray[np.str_], auto_slice: float) -> NDArray[np.bool_]:
    """Which pairs are those of the slice, ``(n,)``: the first places with all their pairs, until they are as many.

    Raises:
        ValueError: As of ``set_apart``.
    """
    wanted = auto_slice * (len(places) if auto_slice < 1 else 1)
    codes, sizes = np.unique(places, return_inverse=True, return_counts=True)[1:]
    apart = (np.cumsum(sizes) - sizes < wanted)[codes]
    count = int(apart.sum())
    if len(places) - count < count:
        raise ValueError(
            f"auto_slice {auto_slice:g} would hold out {count} of {len(places)} pairs, whole prompts each, to measure "
            "the radius of the set on: lower it to half or less, or give the set a number"
        )
    if count < LEAST:
        raise ValueError(
            f"auto_slice {auto_slice:g} holds out {count} pairs, too few to measure a radius on: raise it to {LEAST} "
            "pairs or more, or give the set a number"
        )
    return apart


def check_covers(rule: object, train: Mapping[str, Iterable[object]], aside: Mapping[str, Iterable[object]]) -> None:
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


def _place(pair: Pair, seed: int) -> str:
    asked = "\n".join(f"{message['role']}: {message['content']}" for message in pair.prompt)
    return hashlib.blake2b(f"{seed} {asked}".encode(errors="surrogatepass"), digest_size=16).hexdigest()


class HeldOut:
    """What is known of pairs that are never trained on, and the measure that is taken of their margins.

    Args:
        columns: What ``by=`` may name: one entry per pair each.
        prompts: What is resampled together has the same, ``(n,)``.
        every: Optimizer steps from one measure to the next.
        weights: How much each counts; None: as 1.
        preferences: Probabilities that the labels are right; None: certain.
    """

    def __init__(
        self,
        columns: Mapping[str, Sequence[object]],
        prompts: NDArray[np.str_],
        *,
        every: int,
        weights: Sequence[float | None],
        preferences: Sequence[float | None],
    ) -> None:
        self.columns, self.every = columns, every
        self.masses = None if (masses := masses_of(weights)) is None else masses.double().numpy()
        # what the label says of a margin
        self.certainty = 2 * np.array([1.0 if sure is None else sure for sure in preferences]) - 1
        self.clusters = np.unique(prompts, return_inverse=True)[1]

    def measure(
        self, auto: Auto, margins: Callable[[], Array], *, step: int, scheduled: bool, floor: float = 0.0
    ) -> None:
        """Take the radius where it is due: before the first step that has an adversary, then every so many.

        Args:
            auto: Of the run.
            margins: By the model as it is, ``(n,)``; asked for only then.
            step: Optimizer steps done.
            scheduled: Whether the step has an adversary.
            floor: Margins up to it are 0.

        Raises:
            ValueError: A margin is not finite.
        """
        if not scheduled or (auto.found.step >= 0 and step < auto.found.step + self.every):
            return
        told = self.certainty * margins()
        if not np.isfinite(told).all():
            raise ValueError(
                f"before step {step + 1} the margin of a pair held out for {auto} is not finite: lower the learning "
                "rate"
            )
        told = np.where(np.abs(told) > floor, told, 0.0)
        auto.measure(told, self.clusters, self.columns, step=step, masses=self.masses)


class Slice(HeldOut):
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
        columns: Mapping[str, Sequence[object]],
        *,
        every: int,
        soft: bool = False,
    ) -> None:
        sure = [pair.preference if soft else None for pair in pairs]
        weights = [pair.weight for pair in pairs]
        super().__init__(columns, prompts_of(pairs), every=every, weights=weights, preferences=sure)
        self.data = data

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

    def _batch(self, trainer: Any, rows: np.ndarray) -> dict[str, torch.Tensor]:
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
    step = trainer.state.global_step
    held_out.measure(
        auto,
        lambda: held_out.margins(trainer),
        step=step,
        scheduled=trainer.adversary.schedule(step, max(trainer.state.max_steps, 1)) > 0,
        floor=trainer.accuracy.absolute,
    )
