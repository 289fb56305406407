"""From which share of the pairs on a fault is said, and from which on a run is not begun."""

from __future__ import annotations

from dataclasses import dataclass, fields

from dro_core.command_line.settings import setting


@dataclass
class AuditLimits:
    """What is too much of what an audit counts; a block of the settings of every run on pairs."""

    most_unasked: float = setting(
        0.5, "audit", "refuse to train where more than this share of the pairs show no prompt; 1: never"
    )
    most_identical: float = setting(
        0.5, "audit", "refuse to train where more than this share of the pairs have equal tokens; 1: never"
    )
    warn_share: float = setting(
        0.01, "audit", "warn of what more than this share of the pairs has: cut, doubled, lost, ..."
    )
    warn_longer: float = setting(
        0.75, "audit", "warn where the chosen answer is the longer one in more than this share"
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
