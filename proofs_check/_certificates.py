"""Certificates in files: what certified and proved verdicts rest on, for `proofs_check/verifier.py` to check."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import TYPE_CHECKING, Any, cast

from proofs_check import verifier
from proofs_check._stored import write_text
from proofs_check.claim import Claim, Evidence, Verdict
from proofs_check.exact.plain import plain
from proofs_check.exact.witnesses import Found
from proofs_check.proof import prove

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from proofs_check.report import Report


_verifier: Any = verifier  # written for a Python without anything, type stubs included


def write_certificate(folder: Path, claim: Claim[Any], report: Report, instances: Sequence[Any]) -> None:
    """Write one file for a certified or proved verdict, and none for any other.

    Args:
        folder: where to; the file is called like the claim.
        claim: what was checked.
        report: the verdict.
        instances: those that were chosen for exact arithmetic; of a refuted claim all that its search has seen.

    Raises:
        ArithmeticError: The formula says otherwise of an instance that was certified: a mistake in it.
    """
    if report.evidence in (Evidence.CERTIFIED, Evidence.PROVED):
        text = json.dumps(certificate(claim, report.verdict, instances))
        write_text(folder / f"{claim.label}.json", text + "\n")


def certificate(claim: Claim[Any], verdict: Verdict, instances: Sequence[Any]) -> dict[str, Any]:
    """Return the content of such a file, with every different instance; of a refuted claim those that violate it.

    Raises:
        ArithmeticError: The formula says otherwise of an instance that was certified: a mistake in it.
    """
    shown = [x for x in dict.fromkeys(instances) if verdict is Verdict.UPHELD or _violates(claim, x)]
    stored: dict[str, Any] = {
        "format": verifier.FORMAT,
        "claim": claim.label,
        "statement": claim.statement,
        "verdict": verdict.value,
        "instances": [plain(_given(x)) for x in shown],
    }
    if claim.formula is not None:
        stored |= {
            "where": [[name, _one_line(text)] for name, text in claim.formula.where.items()],
            "admits": list(claim.formula.admits),
            "holds": _one_line(claim.formula.holds),
        }
        stored["instances"], stored["witnesses"] = _proofs(claim, stored, shown)
    if claim.proof is not None:
        stored["proof"] = prove(claim)
    return stored | {"digest": _verifier.digest(stored)}


def _proofs(claim: Claim[Any], stored: Mapping[str, Any], shown: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Evaluate the formula as the verifier will, and keep every witness that it asks for."""
    found = Found()
    instances: list[Any] = []

    def witness(*key: Any) -> Any:
        return found[_frozen(key)]

    for x in shown:
        search = claim.formula and claim.formula.found
        instance = plain(_given(x) | (dict(search(x)) if search else {}))
        if _verifier.holds(stored, instance, witness) is not (stored["verdict"] == Verdict.UPHELD.value):
            raise ArithmeticError(f"the formula of {claim.label} does not say of {x} what was certified")
        instances.append(instance)
    return instances, [[plain(key), plain(witness)] for key, witness in found.items()]


def _violates(claim: Claim[Any], instance: Any) -> bool:
    return claim.violates is not None and claim.admits(instance) and claim.violates(instance)


def _given(instance: Any) -> dict[str, Any]:
    return {field.name: getattr(instance, field.name) for field in fields(instance)}


def _frozen(key: Any) -> Any:
    return tuple(map(_frozen, cast("list[Any]", key))) if isinstance(key, list | tuple) else key


def _one_line(text: str) -> str:
    return " ".join(text.split())
