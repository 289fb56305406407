"""Proofs in certificate files: whatever is changed in one, it proves no more than is true."""

import ast
import copy
import json
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction

import pytest
from test_verifier import accepts, changed, leaves, other, turned_round

from proofs_check import verifier
from proofs_check._certificates import certificate
from proofs_check.claim import Verdict
from proofs_check.registry import CLAIMS

PROVED = {claim.label: claim for claim in CLAIMS if claim.proof is not None}
CUT = "cvar-bias-sharp"
SOME = ["tv-gap", "ball-nesting", "kl-penalty-gap", "icdf-bias", CUT, "tv-gradient-variance-floor", "tv-capped-bias"]


@pytest.fixture(scope="module")
def files(once):
    """Certificates of two instances and the last boxes of proofs, so that each is checked in no time."""

    def build(folder):
        for label in SOME:
            claim = PROVED[label]
            last = list(claim.proof.boxes())[-3:]
            few = replace(claim, proof=replace(claim.proof, boxes=lambda last=last: last))
            made = certificate(few, Verdict.UPHELD, [x for x in claim.instances.corners if claim.admits(x)][:2])
            (folder / f"{label}.json").write_text(json.dumps(made))

    return once("certificates-of-proofs", build)


def stored(files, label):
    return json.loads((files / f"{label}.json").read_text())


def test_a_bare_python_checks_proofs_and_shows_them(files):
    command = [sys.executable, "-I", "-S", verifier.__file__, str(files), "--formulas"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(f"{len(SOME)} proved, 0 checked, 0 computed, 0 refused.\n")
    assert f"    {PROVED['tv-gap'].proof.family}\n" in done.stdout
    assert "    slack >= 0 and 4 * level * n * bound**2 <= 1 - level\n" in done.stdout


@pytest.mark.parametrize("label", SOME)
def test_a_proof_that_was_changed_anywhere_is_refused(label, files, tmp_path):
    data = stored(files, label)
    assert accepts(data, tmp_path, signed=False)
    for path in leaves(data["proof"]):
        assert not accepts(changed(data, ("proof", *path), other), tmp_path, signed=False), path


@pytest.mark.parametrize("label", SOME)
def test_signed_anew_a_proof_still_has_to_prove_all_of_its_boxes(label, files, tmp_path):
    """Every field left out, every comparison turned round, another verdict, ranges that are empty or too wide."""
    data = stored(files, label)
    proof = data["proof"]
    for key in {*proof} - {"statement"}:
        assert not accepts(data | {"proof": {k: v for k, v in proof.items() if k != key}}, tmp_path), key
    assert not accepts(data | {"verdict": "refuted"}, tmp_path)
    assert not accepts(data | {"proof": proof | {"admits": ["1 == 2"]}}, tmp_path)
    for k in range(len(proof["where"])):
        assert not accepts(
            data | {"proof": proof | {"where": proof["where"][:k] + proof["where"][k + 1 :]}}, tmp_path
        ), k
    turned = list(turned_round(proof["holds"]))
    assert turned
    for text in turned:
        assert not accepts(data | {"proof": proof | {"holds": text}}, tmp_path), text
    for name in [name for name, value in proof["boxes"][0][0].items() if isinstance(value, list)]:
        if f"{name}," in str(proof["where"]) + proof["holds"] or f"{name})" in str(proof["where"]) + proof["holds"]:
            for ends in ([1, 0], ["-1/8", 1], [0, "9/8"], "1/2", []):
                wrong = copy.deepcopy(proof)
                wrong["boxes"][0][0][name] = ends
                if name in ("eps", "t", "level"):
                    assert not accepts(data | {"proof": wrong}, tmp_path), (name, ends)


def test_a_proof_of_nothing_is_none(files, tmp_path):
    data = stored(files, "kl-penalty-gap")
    empty = data | {"proof": data["proof"] | {"boxes": []}}
    path = tmp_path / "kl-penalty-gap.json"
    path.write_text(json.dumps(empty | {"digest": verifier.digest(empty)}))
    assert verifier.verify(path)[0] == "computed"


def test_cuts_are_believed_only_where_they_split_a_box_into_parts_that_hold(files, tmp_path):
    data = stored(files, CUT)
    box, cuts = data["proof"]["boxes"][0]
    level = Fraction(box["level"])
    assert cuts[:2] == ["eps", str(level)]

    def takes(cuts):
        proof = data["proof"] | {"boxes": [[box, cuts]]}
        return accepts(data | {"proof": proof}, tmp_path)

    assert takes(cuts)
    wrong = [[], ["eps"], ["eps", str(level)], ["eps", str(level), []], ["eps", str(level), [], [], []]]
    wrong += [["n", 2, [], []], ["level", "1/2", [], []], ["delta", "1/2", [], []], [[]], "eps"]
    wrong += [["eps", at, *cuts[2:]] for at in ("-1/2", "3/2", str(level / 2), str((1 + level) / 2), 0.5, "half")]
    for one in wrong:
        assert not takes(one), one
    assert takes(["eps", str(level / 2), [], cuts]), "more cuts than are needed prove as much"


@pytest.mark.parametrize("text", ["bernstein([1], [0, 1]) == 1", "bernstein([1, -1], x) >= -1"])
def test_formulas_may_bound_polynomials_on_ranges(text, tmp_path):
    data = {
        "format": 1,
        "claim": "c",
        "statement": "",
        "verdict": "upheld",
        "witnesses": [],
        "instances": [{"x": [0, 1]}],
    }
    data |= {"where": [], "admits": [], "holds": text}
    assert accepts(data, tmp_path)
    assert not accepts(data | {"holds": ast.unparse(ast.parse(text)).replace("1]", "'1']", 1)}, tmp_path)
    assert accepts(data | {"holds": "bernstein([sqrt(2), 3 / 2], x) > 7 / 5"}, tmp_path)
    assert not accepts(data | {"holds": "bernstein([sqrt(2), 3 / 2], x) > 3 / 2"}, tmp_path)
