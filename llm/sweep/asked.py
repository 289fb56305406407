"""What a grid asks of the adversary: the text of a set or rule, and what only a sweep can do with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dro_core.spec import Spec

from ..adversary.matching import HOLE
from ..adversary.radius.auto import Auto, auto_of
from ..adversary.spec import parse_reweighting
from ..training.config import ConfigError

_ADAPTIVE, _AT, _SHARE = "adaptive:", "@", "ess="


@dataclass(frozen=True)
class Asked:
    """``[adaptive:]SET[@REFERENCE]``, taken apart; ``str`` puts it together again.

    Attributes:
        text: Of the set or rule; with a reference it has ``?`` in the place of the number to be found.
        adaptive: Whether validation pairs move its radius.
        reference: What it is matched to, the text of a set or ``ess=0.4``; None where it has its number.
    """

    text: str
    adaptive: bool = False
    reference: str | None = None

    @classmethod
    def of(cls, text: str) -> Asked:
        """Take the text of a cell apart."""
        own, at, reference = text.removeprefix(_ADAPTIVE).partition(_AT)
        return cls(own, adaptive=text.startswith(_ADAPTIVE), reference=reference if at else None)

    @property
    def share(self) -> float | None:
        """The effective share of the batch to be matched; None where a set gives it, nan where it cannot be read."""
        if self.reference is None or not self.reference.startswith(_SHARE):
            return None
        try:
            return float(self.reference.removeprefix(_SHARE))
        except ValueError:
            return float("nan")

    @property
    def measures(self) -> bool:
        """Whether it takes its radius from a slice of pairs that are not trained on."""
        return self.reference is None and auto_of(parse_reweighting(self.text)) is not None

    def names(self) -> set[str]:
        """The names of all sets and rules in it."""
        return {layer.name for text in (self.text, self.reference or "") for layer in Spec.of(text).layers()}

    def columns(self) -> list[str]:
        """The names of groups in it."""
        return [value for key, value in self._options() if key in ("by", "within") and value]

    def _options(self) -> Iterator[tuple[str, str | None]]:
        return (option for text in (self.text, self.reference or "") for option in Spec.of(text).options)

    def check(self) -> None:
        """Refuse what cannot be read.

        Raises:
            ValueError: One sentence with the remedy.
        """
        if self.reference is None:
            parse_reweighting(self.text)
            return
        if self.text.count(HOLE) != 1:
            raise ConfigError(f"{self}: what is matched needs one {HOLE} for its number, as in chi2:{HOLE}@tv:0.2")
        if any(key == Auto.spec for key, _ in self._options()):
            raise ConfigError(f"{self}: a set that measures its radius has no size to be matched: give it a number")
        if self.share is None:
            parse_reweighting(self.reference)
        elif not 0 < self.share < 1:
            raise ConfigError(f"{self}: ess is an effective share of the batch in (0, 1), as in chi2:{HOLE}@ess=0.4")

    def __str__(self) -> str:
        matched = "" if self.reference is None else f"{_AT}{self.reference}"
        return f"{_ADAPTIVE if self.adaptive else ''}{self.text}{matched}"
