"""From which share of the pairs on a fault is said, and from which on a run is not begun."""

from __future__ import annotations

from dataclasses import dataclass, field, fields


@dataclass
class AuditLimits:
    """What is too much of what an audit counts; a block of the settings of every run on pairs."""

    most_unasked: float = field(
        default=0.5,
        metadata={"help": "refuse to train where more than this share of the pairs show no prompt; 1: never"},
    )
    most_identical: float = field(
        default=0.5,
        metadata={"help": "refuse to train where more than this share of the pairs have equal tokens; 1: never"},
    )
    warn_share: float = field(
        default=0.01, metadata={"help": "warn of what more than this share of the pairs has: cut, doubled, lost, ..."}
    )
    warn_longer: float = field(
        default=0.75, metadata={"help": "warn where the chosen answer is the longer one in more than this share"}
    )


def check_limits(limits: AuditLimits) -> None:
    """Refuse a limit that is no share.

    Raises:
        ValueError: Naming it.
    """
    for name in LIMITS:
        if not 0 <= getattr(limits, name) <= 1:
            raise ValueError(f"{name} is a share of the pairs and must lie in [0, 1], got {getattr(limits, name)}")


LIMITS = tuple(limit.name for limit in fields(AuditLimits))
"""Names of the limits, each a share in [0, 1]; none of them changes what a run learns."""
