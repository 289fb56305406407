"""Any of the published weightings as a rule: named, weakened, with a memory that travels in checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from dro_core.sets.ambiguity import in_text
from dro_core.spec import Form

from ...run.stored_arrays import read_array
from ..rules import Placeless, Reweighting, Stateful
from . import formulas

_ROUNDING = 1e-5  # by which a mean of rewards in float32 may leave [0, 1]


class Parameter(NamedTuple):
    """What a formula is called with: its name, where it lies, and its value where none is given."""

    name: str
    least: float
    most: float = inf
    default: float | None = None
    open: bool = False  # whether ``least`` itself is refused
    whole: bool = False


class Weighing(NamedTuple):
    """A formula and its parameters; a first one without a default is the number after the name."""

    formula: Callable[..., tuple[formulas.State, Tensor]]
    parameters: Sequence[Parameter] = ()
    size: bool = False
    remembers: bool = False


WEIGHTINGS: dict[str, Weighing] = {
    "maxrl": Weighing(formulas.maxrl),
    "rs_grpo": Weighing(formulas.rs_grpo, [Parameter("beta", 0, open=True)], size=True),
    "pass_at_k": Weighing(formulas.pass_at_k, [Parameter("k", 1)], size=True),
    "entropic": Weighing(formulas.entropic, [Parameter("temperature", 0, open=True)], size=True),
    "difficulty_filter": Weighing(formulas.difficulty_filter),
    "difficulty_band": Weighing(formulas.difficulty_band, [Parameter("low", 0, 1), Parameter("high", 0, 1)]),
    "grpo_std": Weighing(formulas.grpo_std),
    "dgpo": Weighing(formulas.dgpo, [Parameter("temperature", 0, default=2.0, open=True)]),
    "riskpo": Weighing(
        formulas.riskpo,
        [
            Parameter("low", 0, 1, 0.2, open=True),
            Parameter("high", 0, 1, 0.8, open=True),
            Parameter("mix", 0, default=1.5),
        ],
    ),
    "curverl": Weighing(
        formulas.curverl,
        [Parameter("window", 0, 10**6, 10, whole=True), Parameter("bins", 2, 10**6, 9, whole=True)],
        remembers=True,
    ),
    "gdro": Weighing(
        formulas.gdro,
        [
            Parameter("rate", 0, default=0.65),
            Parameter("decay", 0, 1, 0.12, open=True),
            Parameter("bins", 1, 10**6, 10, whole=True),
            Parameter("cap", 1, default=15.0),
        ],
        remembers=True,
    ),
}


@dataclass
class Memory:
    """What every view of a rule shares and a step moves; None before the first one."""

    state: np.ndarray | Tensor | None = None

    def save(self, path: Path) -> None:
        """Write the array, an empty one where there is none yet."""
        np.save(path, np.zeros(0) if self.state is None else np.asarray(self.state))

    def load(self, path: Path) -> None:
        """Take it over."""
        found = read_array(path)
        self.state = np.array(found) if found.size else None  # not a view of the file


@dataclass(frozen=True, eq=False)
class Weighting(Placeless):
    """Weights proportional to the reference times a published function of pass rates, which are the values of prompts.

    Args:
        name: Of the function, in ``WEIGHTINGS``.
        parameters: All that it is called with.
        share: How far from the reference, in (0, 1]: weights are mixed with it while the adversary is weaker.
        memory: Of a function that looks at earlier steps.
    """

    name: str
    parameters: Mapping[str, float]
    share: float = 1.0
    memory: Memory = field(default_factory=Memory)

    def __post_init__(self) -> None:
        for known in WEIGHTINGS[self.name].parameters:
            value, least = self.parameters[known.name], "above" if known.open else "at least"
            if not known.least <= value <= known.most or (known.open and value == known.least):
                up_to = "" if known.most == inf else f" and at most {known.most:g}"
                raise ValueError(f"{self.name} takes a {known.name} of {least} {known.least:g}{up_to}, got {value:g}")
        if not self.parameters.get("low", 0) < self.parameters.get("high", 1):
            raise ValueError(f"{self.name} takes a low that lies below its high, got {self}")

    def bind(self, columns: Mapping[str, Sequence[object]]) -> Self:
        """Nothing is named: the rule with a memory of its own."""
        del columns
        return replace(self, memory=Memory())

    def with_strength(self, fraction: float) -> Self:
        """That share of the way from the reference to the weights; the memory is shared."""
        return replace(self, share=self.share * fraction)

    def weights(self, losses: Tensor, masses: Tensor) -> Tensor:
        """Weights ``(n,)`` of prompts of these losses, the negative pass rates.

        Raises:
            ValueError: Values outside [0, 1], which are no pass rates.
        """
        here, reference = masses > 0, masses.double()
        weighed = self._asked(losses[here])[1] * reference[here]
        full = torch.zeros_like(reference)
        full[here] = weighed / weighed.sum()
        return ((1 - self.share) * reference + self.share * full).to(losses.dtype)

    def _asked(self, losses: Tensor) -> tuple[Any, Tensor]:
        rates = -losses.double()
        least, most = float(rates.min()), float(rates.max())
        if not -_ROUNDING <= least <= most <= 1 + _ROUNDING:
            raise ValueError(
                f"{self} weighs prompts by their share of right answers, and values lie between {least:.4g} and "
                f"{most:.4g} here: let a checker of 0 and 1 score, and the adversary see it alone (adversary_sees "
                "score, missing_end_penalty 0), or choose a set"
            )
        kept = None if self.memory.state is None else torch.as_tensor(self.memory.state).to(rates)
        whole = {known.name for known in WEIGHTINGS[self.name].parameters if known.whole}
        told = {name: int(value) if name in whole else value for name, value in self.parameters.items()}
        return WEIGHTINGS[self.name].formula(kept, rates.clamp(0, 1), **told)

    def __str__(self) -> str:
        known = WEIGHTINGS[self.name]
        size = f":{in_text(self.parameters[known.parameters[0].name])}" if known.size else ""
        rest = [one for one in known.parameters[known.size :] if self.parameters[one.name] != one.default]
        return self.name + size + "".join(f",{one.name}={in_text(self.parameters[one.name])}" for one in rest)


@dataclass(frozen=True, eq=False)
class Remembering(Weighting, Stateful):
    """One whose function looks at earlier steps; its memory needs the same values in the same order on all ranks."""

    def advance(self, losses: Tensor, masses: Tensor) -> None:
        """Take the step into the memory."""
        self.memory.state = self._asked(losses[masses > 0])[0].cpu().numpy()

    def save(self, folder: Path) -> None:
        """Write the memory to ``folder/weighting.npy``."""
        self.memory.save(folder / "weighting.npy")

    def load(self, folder: Path) -> None:
        """Take it over from there."""
        self.memory.load(folder / "weighting.npy")


def weighting(name: str, *size: float, **options: float) -> Weighting:
    """The rule of that name.

    Args:
        name: In ``WEIGHTINGS``.
        size: The number after the name, where it takes one.
        options: Its other parameters, as far as they are not left at their defaults.
    """
    known = WEIGHTINGS[name]
    given = {one.name: value for one, value in zip(known.parameters, size, strict=False)} | options
    parameters = {one.name: given.get(one.name, one.default) for one in known.parameters}
    return (Remembering if known.remembers else Weighting)(name, parameters)  # type: ignore[arg-type]


def _form(name: str, known: Weighing) -> Form[Reweighting | None]:
    first, rest = known.parameters[: known.size], known.parameters[known.size :]
    needed = [one.name for one in rest if one.default is None]
    told = zip(needed, (0.2, 0.8), strict=False)
    example = f"{name}:2" if known.size else ",".join([name, *(f"{one}={at}" for one, at in told)])
    return Form(
        partial(weighting, name), example, "".join(one.name for one in first),
        options={one.name: float for one in rest}, needed=needed,
    )  # fmt: skip


FORMS: dict[str, Form[Reweighting | None]] = {name: _form(name, known) for name, known in WEIGHTINGS.items()}
