"""Is the set larger than the data can bear? What an adversary can explain by noise, by the margins of the run."""

from __future__ import annotations

from dro_core.texts import Spec

from ..adversary.radius.bearing import EXACT
from ..adversary.radius.beyond import Beyond, beyond
from .diagnosis import Finding, Severity, Unchecked, Verdict
from .record import RunRecord


def more_than_bearable(run: RunRecord) -> Verdict:
    """A set that reaches beyond the collapse radius of the run's margins, wherever in the run they bore most."""
    if not run.robust:
        return Unchecked("plain training has no adversary")
    ambiguity = str(run.config.get("ambiguity"))
    found = beyond(run.training, ambiguity=ambiguity, batch=run.batch)
    if not isinstance(found, Beyond):
        return None if found is None else Unchecked(found)
    return Finding(
        Severity.PROBLEM if found.learned else Severity.WARNING,
        found.title,
        f"{found.evidence} (95 %, over {found.windows} times {found.margins} margins where the run bore most); at its "
        f"end the set reaches {found.ratio:.2g} times as far as the margins bear",
        _remedy(found, ambiguity),
    )


def _remedy(found: Beyond, ambiguity: str) -> str:
    layers = [layer.name for layer in Spec.of(ambiguity).layers()]
    name = next((name for name in layers if name in EXACT), "tv")
    share = f"{name}:auto=0.5 takes half of what held-out pairs bear"
    if not found.learned:
        return (
            "nothing was learned that could bear any set: train with --ambiguity erm, which shows what the data bear; "
            f"then take a smaller set, or plain_share; {share}"
        )
    return (
        f"stay below that radius; {share}; or weigh groups that the label has no part in (by=source), which bear more"
    )
