"""How strong the adversary is at each step of training."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..run.files import write_json


@dataclass(frozen=True)
class RadiusSchedule:
    """Plain training for a first share of the steps, then a linear ramp to the full ambiguity set.

    Worst-case weights on a model that has learned nothing yet chase noise: they can hold a small
    encoder at log 2 for as long as plain training needs to fall well below it.

    Args:
        plain_share: Share of all steps with uniform weights, in [0, 1].
        ramp_share: Share of all steps over which the strength then rises linearly to 1.

    ``RadiusSchedule()`` is the constant schedule of the paper: full strength from step 0.

    >>> schedule = RadiusSchedule(plain_share=0.5, ramp_share=0.25)
    >>> [schedule(step, 8) for step in range(8)]
    [0.0, 0.0, 0.0, 0.0, 0.5, 1.0, 1.0, 1.0]
    """

    plain_share: float = 0.0
    ramp_share: float = 0.0

    def __post_init__(self) -> None:
        for name in ("plain_share", "ramp_share"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"{name} is a share of the training steps and must lie in [0, 1], got {value}")
        if self.plain_share + self.ramp_share > 1.0:
            raise ValueError(
                f"plain_share + ramp_share = {self.plain_share + self.ramp_share:g} exceeds 1: "
                "the full radius would never be reached; lower one of them"
            )

    def __call__(self, step: int, total: int) -> float:
        """Strength in [0, 1] for the zero-based ``step`` of ``total`` steps."""
        after_plain = step - self.plain_share * total
        if after_plain < 0:
            return 0.0
        ramp = self.ramp_share * total
        return 1.0 if ramp == 0 else min(1.0, (after_plain + 1) / ramp)


class AdaptiveStrength(TrainerCallback):
    """Validation-driven strength: raise it while the held-out metric improves, back off when it does not.

    After each evaluation the level is multiplied by ``growth`` if ``metric`` is better than ever before, else by
    ``decay``; it stays in [``least``, 1]. The level multiplies what the schedule says.

    Args:
        metric: Name of the held-out metric, larger is worse if it ends in ``loss``.
        level: Where to begin, in (0, 1].
        growth: Factor after an improvement, above 1.
        decay: Factor after none, in (0, 1).
        least: Where backing off ends, in [0, level].
    """

    def __init__(
        self,
        metric: str = "worst_category_loss",
        *,
        level: float = 0.25,
        growth: float = 1.5,
        decay: float = 0.5,
        least: float = 0.05,
    ) -> None:
        if not (0 <= least <= level <= 1 and growth > 1 and 0 < decay < 1 and level > 0):
            raise ValueError(
                f"adaptive strength needs 0 <= least <= level <= 1, growth > 1 and 0 < decay < 1, got least {least}, "
                f"level {level}, growth {growth}, decay {decay}"
            )
        self.metric, self.level, self.growth, self.decay, self.least = metric, level, growth, decay, least
        self.best: float | None = None

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        """Look at the metric and move the level."""
        found = kwargs["metrics"].get(f"eval_{self.metric}")
        if found is None:
            raise ValueError(f"the evaluation has no {self.metric}, which the radius should follow")
        self.observe(found)

    def observe(self, found: float) -> None:
        """Move the level by the latest value of the metric."""
        value = -found if self.metric.endswith("loss") else found
        improved = self.best is None or value > self.best
        self.best = value if improved else self.best
        self.level = min(1.0, self.level * self.growth) if improved else max(self.least, self.level * self.decay)

    def save(self, folder: Path) -> None:
        """Write level and best value to ``folder/adaptive.json``."""
        write_json(folder / "adaptive.json", {"level": self.level, "best": self.best})

    def load(self, folder: Path) -> None:
        """Continue from ``folder/adaptive.json``."""
        stored = json.loads((folder / "adaptive.json").read_text(encoding="utf-8"))
        self.level, self.best = stored["level"], stored["best"]
