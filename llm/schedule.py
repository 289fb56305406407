"""How strong the adversary is at each step of training."""

from __future__ import annotations

from dataclasses import dataclass


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
