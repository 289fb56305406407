"""One claim to check, for whichever process it is that does it."""

from __future__ import annotations

import importlib
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from proofs_check._certificates import write_certificate
from proofs_check.claim import Claim, Evidence, Verdict
from proofs_check.report import Report
from proofs_check.search import Budget, check
from proofs_check.show.domain import domain

REGISTRY = "proofs_check.registry:CLAIMS"


@dataclass(frozen=True)
class Task:
    """One claim to check. Claims hold functions, which do not travel, so the process looks the label up itself.

    Attributes:
        label: of the claim.
        registry: "module:name" of the tuple of claims that holds it.
        budget: how long to search.
        seed: of the search.
        curves: whether to evaluate the claim's curve.
        certificates: the folder for what a certified verdict rests on; None for no such file.
    """

    label: str
    registry: str
    budget: Budget
    seed: int
    curves: bool = False
    certificates: Path | None = None

    @property
    def claim(self) -> Claim[Any]:
        """The claim, from the registry."""
        return next(claim for claim in claims_of(self.registry) if claim.label == self.label)


def claims_of(registry: str) -> tuple[Claim[Any], ...]:
    """Return the claims of a registry.

    Raises:
        ValueError: if nothing of the kind can be imported; the message says why.

    Example:
        >>> len(claims_of("proofs_check.registry:CLAIMS")) > 1
        True
    """
    wrong = f"registry must be MODULE:NAME of a tuple of claims, got {registry!r}"
    module, _, name = registry.partition(":")
    if module.endswith(".py") or "/" in module:
        path = module.removesuffix(".py").strip("./").replace("/", ".")
        raise ValueError(f"{wrong}: write the module without .py, as for import: {path}:{name or 'CLAIMS'}.")
    if not name:
        raise ValueError(f"{wrong}: write which name of the module holds them: {registry}:CLAIMS.")
    try:
        found = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        where = "the current folder, PYTHONPATH and what is installed were looked through"
        raise ValueError(f"{wrong}: {error}; {where}.") from error
    except Exception as error:  # a module can fail in any way while it is imported
        raise ValueError(f"{wrong}: {error}.") from error
    if isinstance(found, Claim):
        raise ValueError(f"{wrong}, which is one claim: put it into a tuple, {name} = (claim,).")
    claims = tuple(cast("Sequence[Any]", found)) if isinstance(found, Sequence) else ()
    if not claims or not all(isinstance(claim, Claim) for claim in claims):
        raise ValueError(f"{wrong}, which holds others.")
    return claims


def answer(task: Task) -> bytes:
    """Return the report on a claim, pickled."""
    try:
        report = _checked(task)
    except Exception as error:  # sides that raise are in the report already; this is a strategy or an exact check
        report = unfinished(task, f"The check itself failed: {type(error).__name__}: {error}.")
    try:
        return pickle.dumps(report)
    except Exception as error:
        return pickle.dumps(unfinished(task, f"Its instances cannot be sent between processes: {error}."))


def _checked(task: Task) -> Report:
    claim, seen, exact = task.claim, list[Any](), list[Any]()
    report = check(claim, budget=task.budget, seed=task.seed, curves=task.curves, seen=seen, exact=exact)
    if task.certificates is not None:
        write_certificate(task.certificates, claim, report, exact if report.verdict is Verdict.UPHELD else seen)
    return replace(report, domain=domain(seen))


def unfinished(task: Task, reason: str) -> Report:
    """Return the report on a claim of which nothing is known but why."""
    return Report(
        label=task.label,
        verdict=Verdict.INCONCLUSIVE,
        evidence=Evidence.SEARCHED,
        expected=task.claim.expected,
        reason=reason,
        checked=0,
        rejected=0,
        worst=None,
        tightness=None,
        powers={},
        seconds=0.0,
    )
