"""How the heads of a sweep are trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ..adversary.radius.settings import SliceSettings, check_slice
from ..adversary.schedule import RadiusSchedule
from ..training.config import ConfigError

Optimizer = Literal["adam", "sgd"]
RateSchedule = Literal["constant", "linear", "cosine"]


@dataclass(frozen=True)
class HeadTraining:
    """How heads are trained; a sweep has one of it.

    Attributes:
        optimizer: adam (with its usual constants) or sgd (without momentum).
        schedule: How the learning rate falls to zero over the run, or constant.
        weight_decay: Decoupled, per step and unit of learning rate.
        plain_share: Share of the steps trained plainly first.
        ramp_share: Share of the steps over which the adversary then grows.
        average_after: Share of the steps that the average iterate leaves out.
        checks: How often the validation pairs are looked at, evenly over the run.
        init_scale: Standard deviation of the initial weights.
        auto_slice: Pairs that ``tv:auto=0.5`` measures its radius on, or below 1 a share of them.
        auto_every: Steps from one measure to the next.
    """

    optimizer: Optimizer = "adam"
    schedule: RateSchedule = "cosine"
    weight_decay: float = 0.0
    plain_share: float = 0.0
    ramp_share: float = 0.0
    average_after: float = 0.5
    checks: int = 20
    init_scale: float = 0.01
    auto_slice: float = SliceSettings.auto_slice
    auto_every: int = SliceSettings.auto_every

    def __post_init__(self) -> None:
        for name, known in (("optimizer", get_args(Optimizer)), ("schedule", get_args(RateSchedule))):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} of heads must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        if not 0 <= self.average_after < 1:
            raise ConfigError(f"average_after must lie in [0, 1), got {self.average_after}")
        for name, least in (("weight_decay", 0), ("init_scale", 0), ("checks", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} of heads must be at least {least}, got {getattr(self, name)}")
        RadiusSchedule(plain_share=self.plain_share, ramp_share=self.ramp_share)
        try:
            check_slice(SliceSettings(self.auto_slice, self.auto_every))
        except ValueError as error:
            raise ConfigError(f"of heads, {error}") from None
