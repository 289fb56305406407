"""`robust-rlhf verify --certificates`: which files it writes, and that a bare Python confirms them."""

import json
import pickle
import subprocess
import sys

import pytest
from planted_claims import LIGHT, by_label, run_once

from proofs_check import Budget, Evidence, verifier
from proofs_check.__main__ import main
from proofs_check._tasks import REGISTRY, Task, answer
from proofs_check.registry import CLAIMS
from proofs_check.show.text import as_row


@pytest.fixture(scope="module")
def certified(once):
    """Three claims of ours, of which chi2-variance is searched and no more."""
    outputs = ["--json", "out.json", "--certificates", "proofs"]
    return run_once(once, "certified", [*LIGHT, "--seed", "3", "--jobs", "2", *outputs])


def rechecked(folder, timeout=120):
    command = [sys.executable, "-I", "-S", verifier.__file__, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)


def test_every_certified_verdict_has_a_file_with_every_instance(certified):
    assert certified.status == 0, certified.err
    proofs = certified.folder / "proofs"
    assert "2 certificates in proofs; none for 1, whose evidence is not exact arithmetic" in certified.err
    assert sorted(path.name for path in proofs.iterdir()) == ["tv-bias-root-n.json", "tv-gap.json"]
    upheld = json.loads((proofs / "tv-gap.json").read_text())
    seen = by_label(certified.folder / "out.json")["tv-gap"]["checked"]
    assert 0.7 * seen < len(upheld["instances"]) <= seen  # the optimiser comes back to some
    assert len({json.dumps(one) for one in upheld["instances"]}) == len(upheld["instances"])
    done = rechecked(proofs)
    assert (done.returncode, done.stderr) == (0, "")
    assert "tv-bias-root-n: refuted, checked, 3 instances" in done.stdout
    assert "tv-gap: upheld, proved, " in done.stdout
    assert done.stdout.endswith("1 proved, 1 checked, 0 computed, 0 refused.\n")


def test_a_certificate_has_what_went_to_exact_arithmetic(tmp_path):
    budget = Budget(examples=100, restarts=0, evaluations=0, moves=100, share=8)
    report = pickle.loads(answer(Task("cvar-dual", REGISTRY, budget, seed=3, certificates=tmp_path)))
    assert report.evidence is Evidence.CERTIFIED, report.reason
    stored = json.loads((tmp_path / "cvar-dual.json").read_text())["instances"]
    assert 3 <= len(stored) <= report.exact < report.checked / 4
    assert f"{report.checked}, {report.exact} exactly" in as_row(report)
    assert rechecked(tmp_path).returncode == 0


def test_certificates_change_no_verdict(certified, light):
    with_files, without = (by_label(run.folder / "out.json") for run in (certified, light))
    for report in (*with_files.values(), *without.values()):
        report.pop("seconds", None)
    assert with_files == without


def test_claims_without_a_formula_are_stored_and_said_to_be_unchecked(planted):
    """And an earlier certificate does not outlive its verdict."""
    assert main([*planted, "--jobs", "1", "false", "plain", "--certificates", "proofs"]) == 0
    done = rechecked("proofs")
    assert done.stdout == "false: refuted, computed, 2 instances\n0 proved, 0 checked, 1 computed, 0 refused.\n"
    with open("proofs/plain.json", "w") as old:
        old.write("{}")
    assert main([*planted, "--jobs", "1", "plain", "--certificates", "proofs"]) == 0
    assert rechecked("proofs").returncode == 0


@pytest.mark.parametrize("instead", [["--list"], ["--replay", "out.json"]])
def test_requests_that_make_no_sense_are_refused(planted, instead, capsys):
    assert main([*planted, *instead, "--certificates", "proofs"]) == 2
    assert "--certificates stores what a check finds" in capsys.readouterr().err
    with open("file", "w"):
        pass
    assert main([*planted, "plain", "--certificates", "file"]) == 2
    assert "--certificates file is a file: choose another folder" in capsys.readouterr().err


@pytest.mark.exhaustive
@pytest.mark.slow("it checks the whole registry")
def test_the_whole_registry_is_rechecked_within_a_minute(once):
    certified = run_once(once, "whole-registry", ["--jobs", "2", "--certificates", "proofs"], seconds=900)
    assert certified.status == 0, certified.err
    done = rechecked(certified.folder / "proofs", timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    proved = sum(claim.proof is not None for claim in CLAIMS)
    exact = sum((claim.verifies or claim.violates or claim.proof) is not None for claim in CLAIMS)
    assert done.stdout.endswith(f"{proved} proved, {exact - proved - 2} checked, 2 computed, 0 refused.\n")
    assert sum(path.stat().st_size for path in (certified.folder / "proofs").iterdir()) < 50e6
