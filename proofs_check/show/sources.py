"""The code that checks a claim, and how its certificate is had: what a reader needs in order not to believe us."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import proofs_check
from proofs_check.claim import Evidence

if TYPE_CHECKING:
    from proofs_check.claim import Claim
    from proofs_check.report import Report


class Source(NamedTuple):
    """Where the function stands that makes a claim, and what it says."""

    place: str
    text: str


def source_of(claim: Claim[Any]) -> Source | None:
    """The function whose sides a claim has; None where there is none of its own.

    Example:
        >>> from proofs_check.claims.inner.hoeffding import kl_penalty_gap
        >>> source_of(kl_penalty_gap()).place.split(":")[0]
        'proofs_check/claims/inner/hoeffding.py'
    """
    name = getattr(claim.lhs, "__qualname__", "").split(".")[0]
    made = getattr(sys.modules.get(getattr(claim.lhs, "__module__", "")), name, None)
    try:
        made = inspect.unwrap(made)  # pyright: ignore[reportArgumentType]
        lines, first = inspect.getsourcelines(made)
        file = Path(inspect.getsourcefile(made) or "")
    except (TypeError, OSError, ValueError):
        return None
    home = Path(proofs_check.__file__).parents[1]
    place = file.relative_to(home).as_posix() if file.is_relative_to(home) else file.name
    return Source(f"{place}:{first}", "".join(lines).rstrip())


def certificate_of(report: Report, claim: Claim[Any]) -> str:
    """How what the verdict rests on can be checked elsewhere; "" where it rests on a search alone."""
    exported = claim.formula is not None or getattr(claim, "proof", None) is not None
    if exported and report.evidence not in (Evidence.SEARCHED, Evidence.STATISTICAL):
        return (
            f"robust-rlhf verify {report.label} --certificates DIR writes exact numbers; python "
            "proofs_check/verifier.py DIR checks them in a bare Python, without this package."
        )
    if report.evidence is Evidence.CERTIFIED:
        return "Exact arithmetic decides the instance; it is not exported."
    return ""
