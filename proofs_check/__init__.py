"""Theorems as data, a search that tries to refute them, and proofs for families where polynomials decide them."""

from proofs_check.claim import Claim, Curve, Evidence, Instances, Relation, Verdict, mutant, shrunk, stated, swapped
from proofs_check.report import Report, Witness
from proofs_check.search import FULL, QUICK, Budget, check, replay

__all__ = [
    "FULL",
    "QUICK",
    "Budget",
    "Claim",
    "Curve",
    "Evidence",
    "Instances",
    "Relation",
    "Report",
    "Verdict",
    "Witness",
    "check",
    "mutant",
    "replay",
    "shrunk",
    "stated",
    "swapped",
]
