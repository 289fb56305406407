"""What the files on the theory share: searches and runs that several of them judge, each made once for all."""

from __future__ import annotations

import pickle
import time
from typing import NamedTuple

import pytest
from planted_claims import ENDING, LIGHT, plant, run_once

from proofs_check import QUICK, Budget, Report, check
from proofs_check.registry import CLAIMS

SHORT = Budget(examples=30, restarts=1, evaluations=20)


class Searched(NamedTuple):
    """The report on a claim, and the seconds of processor time that it took."""

    report: Report
    seconds: float


@pytest.fixture(
    params=[(SHORT, 1), *(pytest.param((QUICK, seed), marks=pytest.mark.exhaustive) for seed in (0, 1))],
    ids=["short", "quick-0", "quick-1"],
)
def searched(request, once):
    """``searched(claim)`` of the registry, by its label: a short search, and in the exhaustive tests quick ones."""
    budget, seed = request.param
    registered = {claim.label: claim for claim in CLAIMS}

    def search(claim):
        def build(folder):
            start = time.process_time()
            report = check(registered[claim.label], budget=budget, seed=seed, curves=True)
            (folder / "searched").write_bytes(pickle.dumps((report, time.process_time() - start)))

        folder = once(f"{claim.label}-{budget.examples}-{seed}", build)
        return Searched(*pickle.loads((folder / "searched").read_bytes()))

    return search


@pytest.fixture
def planted(tmp_path, monkeypatch):
    return plant(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def light(once):
    """Three claims of ours."""
    return run_once(once, "light", [*LIGHT, "--seed", "3", "--jobs", "2", "--json", "out.json"])


@pytest.fixture(scope="module")
def ending(once):
    """All planted claims that come to an end by themselves."""
    outputs = ["--json", "out.json", "--html", "out.html", "--markdown", "out.md"]
    return run_once(once, "ending", ["--registry", "planted:CLAIMS", "--jobs", "1", *ENDING, *outputs])
