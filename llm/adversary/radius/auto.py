"""Sets that take a share of what the data bear as their radius: ``tv:auto=0.5``.

The radius is measured on a slice of pairs that are never trained on (``llm.adversary.radius.slices``), so it holds no
optimism of fitted pairs; what is left is the noise of a sample, and for that the lower end of its interval counts:
twenty to one the pairs bear more. While that end is 0 nothing is shown to be learned, and weights are equal.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dro_core import AmbiguitySet, CVaR, Grouped, worst_case
from dro_core.sets.ambiguity import in_text
from dro_core.spec import Form
from dro_core.texts import Spec, number_in

from ...run.files import write_json
from ..rules import Reweighting, Stateful
from .bearing import EXACT, Array, bearable, has_bearing, moved, resized, summed

_RESAMPLES, _LEVEL = 200, 0.05
_KEPT = 1e-9  # of what was not drawn: the adversary still sees it, so that draws do not lose the least margin
_FILE = "auto.json"


@dataclass
class Found:
    """What was measured last; every view of a rule shares it.

    Attributes:
        bears: The lower end of what the slice bears of the set: a radius, of CVaR 1 - alpha. 0: nothing is learned.
        estimate: What the slice itself bears.
        step: Before which it was measured; negative: never.
    """

    bears: float = 0.0
    estimate: float = 0.0
    step: int = -1


@dataclass(frozen=True, eq=False)
class Auto(Stateful):
    """A set whose radius is ``share`` times what the slice bears of it; of CVaR, 1 - alpha is.

    Args:
        share: In (0, 1].
        inner: The set, over examples or groups, trimmed or not, of whatever size.
        template: The same with its groups named, as it is bound to the slice.
        found: What was measured; changed in place, and travels in checkpoints.
    """

    share: float
    inner: AmbiguitySet
    template: AmbiguitySet | None = None
    found: Found = field(default_factory=Found)
    spec: ClassVar[str] = "auto"

    def __post_init__(self) -> None:
        if not has_bearing(self.inner):
            raise ValueError(
                f"{self} asks for a share of the collapse radius, which is not known for this set: take a number, or "
                "leave out all options but by=, trim= and max_ratio="
            )

    @property
    def sized(self) -> AmbiguitySet:
        """The set at the radius it has now."""
        return resized(self.inner, float(moved(self.inner, self.share * self.found.bears)))

    @property
    def acts(self) -> bool:
        """Whether it has a radius above 0."""
        return self.found.bears > 0

    def bind(self, columns: Mapping[str, Sequence[object]]) -> Self:
        """Fill in the columns of the training examples."""
        return replace(self, inner=self.inner.bind(columns), template=self.template or self.inner)

    def take(self, rows: np.ndarray) -> Self:
        """The rule for these examples; what was measured is shared."""
        return replace(self, inner=self.inner.take(rows))

    def with_strength(self, fraction: float) -> Self:
        """A smaller share."""
        return replace(self, share=self.share * fraction)

    def weights(self, losses: Tensor, masses: Tensor) -> Tensor:
        """Worst-case weights ``(n,)``; the masses while nothing is learned."""
        return worst_case(losses, self.sized, reference=masses).weights if self.acts else masses

    def advance(self, losses: Tensor, masses: Tensor) -> None:
        """Steps of training do not move it."""

    def measure(
        self,
        margins: Array,
        clusters: NDArray[np.int64],
        columns: Mapping[str, Sequence[object]],
        *,
        step: int,
        masses: Array | None = None,
    ) -> None:
        """Take the radius from the slice.

        Args:
            margins: Of its pairs, ``(n,)``.
            clusters: Codes of their prompts: what is resampled together, ``(n,)``.
            columns: One entry per pair each.
            step: Before which optimizer step.
            masses: How much they count, ``(n,)``; None: alike.
        """
        bound = _uncapped((self.template or self.inner).bind(columns))
        low, estimate = lower_end(bound, margins, clusters, masses)
        self.found.bears, self.found.estimate, self.found.step = low, estimate, step

    def save(self, folder: Path) -> None:
        """Write what was measured to ``folder/auto.json``."""
        write_json(folder / _FILE, vars(self.found))

    def load(self, folder: Path) -> None:
        """Take over what was measured."""
        vars(self.found).update(json.loads((folder / _FILE).read_text(encoding="utf-8")))

    def __str__(self) -> str:
        named = self.template or self.inner
        return f"{named.core.spec}:auto={in_text(self.share)}{str(named).removeprefix(named.core.size_text)}"


class LowerEnd(NamedTuple):
    """What a sample bears of a set, as it grows with the set: the lower end of its interval, and the value itself."""

    low: float
    estimate: float


def lower_end(
    ambiguity: AmbiguitySet, margins: Array, clusters: NDArray[np.int64], masses: Array | None = None
) -> LowerEnd:
    """What the population of a sample bears at least, 95 % one-sided, by a bootstrap over clusters.

    Over examples, one pair more is counted, of the median margin against its label: that n pairs are right does not
    show that the next one is. Over groups there are no further ones, and where all are right what is borne is the
    whole set.

    Args:
        ambiguity: A set of whatever size, its groups those of the sample.
        margins: Shape ``(n,)``.
        clusters: Codes of what is drawn together, ``(n,)``.
        masses: How much each counts, ``(n,)``; None: alike.
    """
    codes = np.unique(clusters, return_inverse=True)[1]
    k, draws = codes.max() + 1, np.random.default_rng(0)
    drawn = draws.multinomial(k, np.full(k, 1 / k), size=_RESAMPLES)
    counts = np.vstack([np.ones(k), drawn + _KEPT])[:, codes]
    counts = counts if masses is None else counts * (masses / masses.mean())
    if not _over_groups(ambiguity):
        margins = np.append(margins, -np.median(np.abs(margins)))
        counts = np.hstack([counts, np.ones((len(counts), 1))])
    shares = counts / counts.sum(axis=1, keepdims=True)
    found = np.minimum(moved(ambiguity, bearable(ambiguity, margins, shares)), _whole(ambiguity, shares[:1]))
    return LowerEnd(float(np.quantile(found[1:], _LEVEL, method="lower")), float(found[0]))


def _uncapped(ambiguity: Any) -> Any:
    """The set without ``max_ratio``, which only lets it bear more."""
    if hasattr(ambiguity, "inner"):
        return replace(ambiguity, inner=_uncapped(ambiguity.inner))
    return replace(ambiguity, max_ratio=None) if getattr(ambiguity, "max_ratio", None) else ambiguity


def _over_groups(ambiguity: Any) -> bool:
    return isinstance(ambiguity, Grouped) or (hasattr(ambiguity, "inner") and _over_groups(ambiguity.inner))


def _whole(ambiguity: Any, masses: Array) -> Array:
    """The size at which a set may put everything on the lightest scenario, ``(batch,)``."""
    if hasattr(ambiguity, "inner"):
        return _whole(ambiguity.inner, summed(ambiguity, masses) if isinstance(ambiguity, Grouped) else masses)
    least = np.where(masses > 0, masses, np.inf).min(axis=1)
    if ambiguity.core.spec in ("tv", "cvar"):
        return np.ones(len(masses))
    return (1 / least - 1) / 2 if ambiguity.core.spec == "chi2" else -np.log(least)


def auto_of(rule: object) -> Auto | None:
    """The set with a measured radius that a rule is, or has inside."""
    while rule is not None and not isinstance(rule, Auto):
        rule = getattr(rule, "inner", None)
    return rule


FORM: Form[Reweighting | None] = Form(Auto, "tv:auto=0.5", "share", inner="set")


def in_share(text: str) -> str | None:
    """A text with ``NAME:auto=SHARE`` as ``auto:SHARE:NAME:SIZE``, which ``FORM`` reads; None where it has no auto.

    Raises:
        ValueError: In one sentence: a set without a collapse radius, a number beside auto, a share outside (0, 1].

    >>> in_share("shuffled:tv:auto=0.5,by=source")
    'shuffled:auto:0.5:tv:0,by=source'
    """
    spec = Spec.of(text)
    said = [value or "" for key, value in spec.options if key == Auto.spec]
    if not said:
        return None
    *outer, last = spec.layers()
    name, share = last.name, number_in(said[0])
    if name not in EXACT or last.numbers or last.plus or len(said) > 1:
        raise ValueError(
            f"ambiguity {text!r}: auto= takes the place of the number of {', '.join(EXACT)}, whose collapse radius is "
            "known; write for example 'tv:auto=0.5', or a number."
        )
    if share is None or not 0 < share <= 1:
        raise ValueError(
            f"ambiguity {text!r} has {said[0]!r} where a share of the running radius in (0, 1] belongs, as in "
            "'tv:auto=0.5'."
        )
    made = Spec(Auto.spec, (share,), Spec(name, (1.0 if name == CVaR.spec else 0.0,)))
    for layer in reversed(outer):
        made = replace(layer, inner=made, options=())
    return str(replace(made, options=tuple(option for option in spec.options if option[0] != Auto.spec)))
