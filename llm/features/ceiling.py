"""What a head on frozen features can reach on pairs, and how large a set it can bear: before any training."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dro_core import collapse_radius

from ..data.pairs import DataError, Pair, length_baseline
from ..data.questions import questions
from ..run.files import JsonObject
from ..statistics.crossfit import crossfit
from ..statistics.intervals import Interval, accuracy_interval
from ..statistics.ties import credit

Array = NDArray[np.float64]

SETS = ("tv", "cvar", "chi2", "kl", "burg")
MOST_PAIRS = 14_000
SHARE = 0.5
"""Of the radius that the data bear, what is suggested."""


@dataclass(frozen=True)
class Bearing:
    """How large a set the pairs, or groups of them, can bear: radii, for CVaR the alphas that collapse.

    Attributes:
        set: By name.
        by: The column whose groups are compared; "" where pairs are.
        scenarios: How many of them the adversary weighs.
        in_sample: Which is too large.
        null: The same for labels at random, median.
        held_out: Of directions on prompts that did not choose them.
        low: 95 % for it.
        high: 95 % for it.
        null_held_out: ``held_out`` for labels at random: what noise alone seems to bear.
        vacuous: Whether any labels at all would look as good in sample.
    """

    set: str
    by: str
    scenarios: int
    in_sample: float
    null: float
    held_out: float
    low: float
    high: float
    null_held_out: float
    vacuous: bool

    @property
    def least(self) -> float:
        """The cautious end of the interval, as how far a set may go from equal weights: 1 - alpha for CVaR."""
        return 1 - self.high if self.set == "cvar" else self.low

    @property
    def most(self) -> float:
        """The other end of the interval."""
        return 1 - self.low if self.set == "cvar" else self.high

    @property
    def noise(self) -> float:
        """What noise alone seems to bear, as far from equal weights."""
        return 1 - self.null_held_out if self.set == "cvar" else self.null_held_out

    @property
    def bears(self) -> bool:
        """Whether unseen prompts bear any set: more than noise alone seems to."""
        return self.least > self.noise

    @property
    def suggestion(self) -> str:
        """A set of half the size that unseen prompts bear at least, as text; "" where they bear none, or every one."""
        if not self.bears or np.isinf(self.least):
            return ""
        size = SHARE * self.least
        return f"{self.set}:{1 - size if self.set == 'cvar' else size:.2g}" + (f",by={self.by}" if self.by else "")


@dataclass(frozen=True)
class Ceiling:
    """What a head on frozen features can reach, and bear.

    Attributes:
        file: The pairs, by name.
        model: The backbone, by name.
        pairs: That were looked at.
        prompts: Different ones.
        width: Of the features.
        accuracy: Share of pairs ranked right by heads that saw none of their prompts, with 95 % over prompts.
        longer_wins: Share in which the longer answer was chosen.
        bearings: By set and grouping.
        left_out: Why pairs have no features -> how many.
    """

    file: str
    model: str
    pairs: int
    prompts: int
    width: int
    accuracy: Interval
    longer_wins: float
    bearings: tuple[Bearing, ...]
    left_out: Mapping[str, int]

    @property
    def learnable(self) -> bool:
        """Whether a plain head ranks unseen pairs better than a coin."""
        return self.accuracy.low > 0.5

    def verdicts(self) -> Iterator[str]:
        """Whether a worst case can pay, in a sentence for every grouping."""
        if self.learnable:
            for by in dict.fromkeys(bearing.by for bearing in self.bearings):
                yield _verdict(by, [bearing for bearing in self.bearings if bearing.by == by])
            return
        mean, low, high = (100 * value for value in self.accuracy)
        yield (
            "no sign that a worst case can pay here: on these features plain heads are not told from a coin on unseen "
            f"prompts, {mean:.1f} % [{low:.1f}, {high:.1f}]; take more pairs, another backbone, or tune this one"
        )

    def as_json(self) -> JsonObject:
        """All numbers, with suggestions and verdicts; infinite radii as text."""
        found = asdict(self)
        found["accuracy"] = self.accuracy._asdict()
        found["bearings"] = [_plain({**asdict(one), "suggestion": one.suggestion}) for one in self.bearings]
        return {**found, "left_out": dict(self.left_out), "verdicts": list(self.verdicts())}


def _plain(numbers: Mapping[str, object]) -> JsonObject:
    return {
        name: str(value) if isinstance(value, float) and not np.isfinite(value) else value
        for name, value in numbers.items()
    }


def _verdict(by: str, bearings: Sequence[Bearing]) -> str:
    """Whether a worst case over pairs, or over these groups, leaves anything to learn."""
    whom = f"groups by {by}" if by else "pairs"
    bearing = [one for one in bearings if one.bears]
    if not bearing and all(one.most <= one.noise for one in bearings):
        return f"{whom}: a worst case cannot pay: unseen prompts bear no more than labels at random seem to"
    if not bearing:
        return (
            f"{whom}: no sign that a worst case can pay, and none that it cannot: what unseen prompts bear is not told "
            "from what labels at random seem to bear; more pairs tell more"
        )
    if sets := ", ".join(one.suggestion for one in bearing if one.suggestion):
        return f"{whom}: a set inside the radius may pay; half of what unseen prompts bear at least: {sets}"
    return f"{whom}: unseen prompts bear every set"


def ceiling_of(
    differences: Array,
    pairs: Sequence[Pair],
    *,
    file: str,
    model: str,
    sets: Sequence[str] = SETS,
    by: Mapping[str, Sequence[object]] | None = None,
    folds: int = 5,
    seeds: Sequence[int] = (0, 1, 2),
    left_out: Mapping[str, int] | None = None,
) -> Ceiling:
    """Measure what the features of pairs allow.

    Args:
        differences: Shape ``(n, d)``, features of the chosen answers less those of the rejected ones.
        pairs: The n pairs, of weights above 0, which are the reference; those that share a question share a fold.
        file: The name of the pairs.
        model: The name of the backbone.
        sets: Names that ``collapse_radius`` knows.
        by: Column -> entries ``(n,)``: groups that an adversary may weigh instead of pairs.
        folds: At least 3.
        seeds: Of the labels at random; at least one.
        left_out: Why pairs have no features -> how many; only told.

    Raises:
        DataError: Fewer different prompts than folds.
        ValueError: A set without a known radius, or fewer than three folds.
    """
    clusters = [f"own {row}" if name is None else name for row, name in enumerate(questions(pairs))]
    codes = np.unique(np.array(clusters), return_inverse=True)[1]
    if (prompts := int(codes.max()) + 1) < max(folds, 3):
        raise DataError(
            f"{file}: {prompts} different prompts are too few for {max(folds, 3)} folds: take more pairs"
            + (f", or {prompts} folds" if prompts >= 3 else "")
        )
    if folds < 3:
        raise ValueError(f"folds must be at least 3, got {folds}: one is judged, the others choose a penalty")
    masses = None if len({pair.weight for pair in pairs}) == 1 else np.array([_weight(pair) for pair in pairs])
    right = credit(crossfit(differences, codes, folds=folds, masses=masses) - 0.5)
    bearings: list[Bearing] = []
    for name, labels in {"": None, **(by or {})}.items():
        reference = None if masses is None else masses / masses.sum()
        asked = {"groups": labels, "folds": folds, "clusters": codes, "reference": reference}
        bearings += [_bearing(differences, kind, name, seeds, asked) for kind in sets]
    return Ceiling(
        file=file,
        model=model,
        pairs=len(pairs),
        prompts=len(set(clusters)),
        width=differences.shape[1],
        accuracy=accuracy_interval(right, clusters),
        longer_wins=float(np.mean([length_baseline(pair) for pair in pairs])),
        bearings=tuple(bearings),
        left_out=left_out or {},
    )


def _bearing(differences: Array, kind: str, by: str, seeds: Sequence[int], asked: dict[str, Any]) -> Bearing:
    """The collapse radius of pairs, or of the ``groups`` that are asked for, and that of labels at random."""
    found = collapse_radius(differences, kind, seeds=seeds, **asked)
    signs = np.random.default_rng(seeds[0]).choice([-1.0, 1.0], size=len(differences))
    noise = collapse_radius(signs[:, None] * differences, kind, seeds=(), **asked)
    low, high = found.interval
    return Bearing(
        set=found.kind,
        by=by,
        scenarios=len(differences) if asked["groups"] is None else len(set(asked["groups"])),
        in_sample=found.radius,
        null=float(np.quantile(found.null, 0.5, method="inverted_cdf")),
        held_out=found.held_out,
        low=low,
        high=high,
        null_held_out=noise.held_out,
        vacuous=found.vacuous,
    )


def _weight(pair: Pair) -> float:
    return 1.0 if pair.weight is None else pair.weight


def drawn(pairs: Iterable[Pair], most: int) -> list[Pair]:
    """At most so many pairs, in their order; which ones are kept is a matter of a hash of their ids."""
    given = list(pairs)
    if len(given) <= most:
        return given
    by_hash = sorted(range(len(given)), key=lambda row: hashlib.sha256(given[row].id.encode()).digest())
    return [given[row] for row in sorted(by_hash[:most])]
