"""What `proofs_check/verifier.py` believes: nothing that a file does not prove."""

import ast
import json
import random
import re
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest

from proofs_check import verifier
from proofs_check._certificates import certificate, plain
from proofs_check.claim import Claim, Formula, Instances, Verdict
from proofs_check.registry import CLAIMS

CERTIFIED = [claim for claim in CLAIMS if claim.verifies or claim.violates or claim.proof]
PROVED = [claim.label for claim in CERTIFIED if claim.proof]
COMPUTED = ["npg-best-iterate", "npg-last-iterate"]  # 64 and 9 steps of interval arithmetic in Python
CHECKED = [claim.label for claim in CERTIFIED if claim.formula]
OPPOSITE = {
    **{ast.LtE: ast.Gt, ast.Gt: ast.LtE, ast.Lt: ast.GtE, ast.GtE: ast.Lt},
    **{ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.In: ast.NotIn},
}
# Comparisons that choose between two formulas, or offer a shorter way to what is true anyway.
SPARE = {
    "collapse-groups-longer": {1},
    "maxrl-groups": {2},
    "tv-capped-bias": {1, 3},
    "utility-is-a-penalty": {0, 2},
}


@pytest.fixture(scope="module")
def folder(once):
    """The certificates of the hand-made instances of every certified or proved claim."""

    def build(folder):
        (folder / "files").mkdir()
        for claim in CERTIFIED:
            made = certificate(claim, claim.expected, [x for x in claim.instances.corners if claim.admits(x)])
            (folder / "files" / f"{claim.label}.json").write_text(json.dumps(made))

    return once("certificates-of-corners", build) / "files"


def stored(folder, label):
    """A certificate without the proof that it may have: test_proofs.py has those."""
    data = json.loads((folder / f"{label}.json").read_text())
    data.pop("proof", None)
    return data | {"digest": verifier.digest(data)}


def accepts(data, tmp_path, *, signed=True):
    """Whether the file with these data, and a digest that fits them if it is signed, is accepted."""
    path = tmp_path / f"{data.get('claim', 'none')}.json"
    path.write_text(json.dumps(data | {"digest": verifier.digest(data)} if signed else data))
    try:
        verifier.verify(path)
    except Exception:
        return False
    return True


def run(*arguments, **options):
    command = [sys.executable, "-I", "-S", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


@pytest.mark.exhaustive(turns=8)
def test_the_file_alone_checks_every_certificate_in_a_bare_python(folder, tmp_path):
    shutil.copy(verifier.__file__, tmp_path / "verifier.py")
    done = run("verifier.py", folder, "--formulas", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    checked = len(set(CHECKED) - set(PROVED))
    assert lines[-1] == f"{len(PROVED)} proved, {checked} checked, {len(COMPUTED)} computed, 0 refused."
    for claim in CERTIFIED:
        how = "computed" if claim.label in COMPUTED else "proved" if claim.label in PROVED else "checked"
        assert any(line.startswith(f"{claim.label}: {claim.expected.value}, {how}, ") for line in lines)
    assert "    0 <= tv(losses, p, radius) - dot(p, losses) <= radius * spread" in lines
    assert sum(line.endswith("compare with the statement by yourself:") for line in lines) == len(CERTIFIED)
    families = [line for line in lines if re.match(r"    \d+ boxes: ", line)]
    assert len(families) == len(PROVED)
    assert "    168 boxes: n 24 values in 1..24, level 7 values in 1/8..7/8, eps [0, 1]" in families  # cvar-bias-sharp


def test_it_is_short_and_imports_nothing_but_python():
    text = Path(verifier.__file__).read_text()
    assert len(text.splitlines()) <= 250
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} <= set(sys.stdlib_module_names)


@pytest.mark.slow("it re-checks the folder again")
def test_it_refuses_a_folder_without_certificates_and_says_what_is_wrong(folder, tmp_path):
    assert run(verifier.__file__, tmp_path).returncode == 1
    for words in ([], ["--help"]):
        usage = run(verifier.__file__, *words)
        assert (usage.returncode, usage.stderr) == (1, "")
        assert "python verifier.py DIR [--formulas]" in usage.stdout
    missing = run(verifier.__file__, tmp_path / "none")
    assert (missing.returncode, missing.stderr) == (1, "")
    assert "none: REFUSED, FileNotFoundError" in missing.stdout
    assert run(verifier.__file__, folder / "tv-gap.json").stdout.endswith(
        "1 proved, 0 checked, 0 computed, 0 refused.\n"
    )
    data = stored(folder, "tv-gap")
    data["instances"][0]["losses"][1] = 2
    (tmp_path / "tv-gap.json").write_text(json.dumps(data))
    (tmp_path / "cut.json").write_text(json.dumps(data)[:-9])
    done = run(verifier.__file__, tmp_path)
    assert done.returncode == 1
    assert "tv-gap: REFUSED, Refused: the file was changed" in done.stdout
    assert "cut: REFUSED, JSONDecodeError" in done.stdout
    assert done.stdout.endswith("0 proved, 0 checked, 0 computed, 2 refused.\n")


def leaves(value, path=()):
    """The paths of all numbers and texts in nested lists and dictionaries."""
    if isinstance(value, dict | list):
        for key, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(one, (*path, key))
    else:
        yield path


def changed(data, path, change):
    copy = json.loads(json.dumps(data))
    place = copy
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = change(place[path[-1]])
    return copy


def other(value):
    if isinstance(value, str) and not set(value) <= set("-/0123456789"):
        return value + "x"
    return plain(Fraction(value) + Fraction(1, 7))


@pytest.mark.parametrize("label", ["tv-gap", "kl-dual", "collapse-radius", "robust-shift-sample", *COMPUTED])
def test_a_file_that_was_changed_anywhere_is_refused(label, folder, tmp_path):
    data = stored(folder, label)
    assert accepts(data, tmp_path, signed=False)
    paths = list(leaves(data))
    for path in random.Random(0).sample(paths, min(len(paths), 60)):
        assert not accepts(changed(data, path, other), tmp_path, signed=False), path
    for key in data:
        assert not accepts({name: one for name, one in data.items() if name != key}, tmp_path, signed=False), key


@pytest.mark.parametrize("label", CHECKED)
def test_no_verdict_and_no_comparison_is_taken_on_trust(label, folder, tmp_path):
    """Signed anew: the other verdict, none of the instances, and the formula with any one comparison turned round."""
    data = stored(folder, label)
    assert accepts(data, tmp_path)
    assert not accepts(data | {"verdict": "refuted" if data["verdict"] == "upheld" else "upheld"}, tmp_path)
    assert not accepts(data | {"instances": []}, tmp_path)
    assert not accepts(data | {"format": 2}, tmp_path)
    if data["admits"]:
        assert not accepts(data | {"admits": [*data["admits"], "1 == 2"]}, tmp_path)
    turned = list(turned_round(data["holds"]))
    spare = SPARE.get(label, set())
    assert {k for k, text in enumerate(turned) if accepts(data | {"holds": text}, tmp_path)} == spare
    assert len(turned) > len(spare) or label in ("radius-concave", "published-weights-are-robust")  # all in `where`


def turned_round(text):
    """The formula with each of its comparisons turned round, one at a time."""
    for k in range(sum(len(node.ops) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Compare))):
        tree = ast.parse(text, mode="eval")
        places = [(node, j) for node in ast.walk(tree) if isinstance(node, ast.Compare) for j in range(len(node.ops))]
        node, j = places[k]
        node.ops[j] = OPPOSITE[type(node.ops[j])]()
        yield ast.unparse(tree)


def negative(numbers):
    return [negative(one) for one in numbers] if isinstance(numbers, list) else plain(-Fraction(numbers))


WITNESSED = ["kl-dual", "chi2-dual", "ball-nesting", "radius-concave", "wasserstein-is-tv", "collapse-radius"]
WITNESSED += ["collapse-radius-entropies", "collapse-signs", "collapse-sample", "collapse-groups", "collapse-labels"]
BOTH_SIDES = ["kl-dual", "chi2-dual", "wasserstein-is-tv", "collapse-radius", "collapse-signs"]


@pytest.mark.parametrize("label", WITNESSED)
def test_witnesses_that_prove_nothing_are_refused(label, folder, tmp_path):
    """Signed anew: a number of a witness moved, and a witness left out; few of the former may prove as much."""
    data = stored(folder, label)
    assert not any(
        accepts(data | {"witnesses": data["witnesses"][:k] + data["witnesses"][k + 1 :]}, tmp_path)
        for k in range(min(len(data["witnesses"]), 20))
    )
    paths = [("witnesses", *path) for path in leaves(data["witnesses"])]
    some = random.Random(1).sample(paths, min(len(paths), 80))
    kept = [path for path in some if accepts(changed(data, path, other), tmp_path)]
    duals = [path for path in some if path[2:4] == (1, 1)]
    assert set(kept) <= set(duals), "what a set is of, or a point of it, may not be moved"
    without = [[key, [[], *proof[1:]]] for key, proof in data["witnesses"]]
    assert not accepts(data | {"witnesses": without}, tmp_path)
    back = [[key, [proof[0], negative(proof[1])]] for key, proof in data["witnesses"]]
    assert not accepts(data | {"witnesses": back}, tmp_path) or label in ("ball-nesting", "collapse-labels")
    if label in BOTH_SIDES:
        assert len(kept) < len(duals), "nor most dual variables, but for a direction that still separates"


@pytest.mark.parametrize(
    "label", ["subgradient-optimal", "robust-shift-sample", "antitone-is-worst-case", "tv-drains-from-the-top"]
)
def test_what_was_found_for_an_instance_counts_only_if_it_proves_something(label, folder, tmp_path):
    data = stored(folder, label)
    claim = next(claim for claim in CERTIFIED if claim.label == label)
    names = set(data["instances"][0]) - set(claim.instances.kind.__dataclass_fields__)
    paths = [path for path in leaves(data["instances"]) if path[1] in names]
    some = [path for path in random.Random(2).sample(paths, min(len(paths), 40)) if data["instances"][path[0]]]
    assert some
    kept = [path for path in some if accepts(changed(data, ("instances", *path), other), tmp_path)]
    # Spare lines of a convex function may be any below it, and so may an answer that no later point uses.
    assert len(kept) <= len(some) // 4, kept


@pytest.mark.parametrize(
    "text",
    [
        # True in Python
        "().__class__ != 1", "[1][0] == 1", "0.5 < 1", "(lambda max: max)(1) == 1", "[tv for tv in [1]] == [1]",
        "f'{x}' != 'a'", "(y := 1) == 1", "_power(2, 1) == 2", "max(*[1, 2]) == 2", "b'1' != 1", "{1: 2} != 1", "True",
        # true, false or neither
        "sqrt(2) == sqrt(2)", "not sqrt(2) < sqrt(2)", "1 == 1 if sqrt(2) else 1 == 2", "2 ** (1 / 2) > 1",
        "sqrt(2) ** 2 > 1", "1 / (sqrt(4) - 2) > 0 or 1 == 1", "log(0) < 1", "sqrt(-1) < 1", "exp(x)", "x", "None",
        "tv([1, 2], [1, 1], 1) > 0", "tv([1, 2], [1 / 2, 1 / 2], 1) == 1", "proved(1 == 2, 1) == 1",
        "witness('chi2', 1) == 1", "zip([1], [1, 2]) != 1", "unknown == 1",
    ],
)  # fmt: skip
def test_formulas_that_are_not_plain_or_not_certain_prove_nothing(text, tmp_path):
    data = {"format": 1, "claim": "c", "statement": "", "verdict": "upheld", "witnesses": []}
    data |= {"where": [], "admits": [], "instances": [{"x": 3}]}
    assert accepts(data | {"holds": "x == 3 and sqrt(2) < 3 / 2 and not sqrt(2) > 3 / 2 and x**2 == 9"}, tmp_path)
    assert not accepts(data | {"holds": text}, tmp_path)
    assert not accepts(data | {"holds": "x == 3", "where": [["x", "3"]]}, tmp_path)
    assert not accepts(data | {"holds": "tv == 3", "instances": [{"tv": 3}]}, tmp_path)
    assert not accepts(data | {"holds": "x == 3", "instances": [{"x": 3.0}]}, tmp_path)


def test_a_formula_that_says_otherwise_is_found_when_it_is_written():
    def verifies(x):
        return True

    tv_gap = next(claim for claim in CERTIFIED if claim.label == "tv-gap")
    lying = Claim[object](**{**vars(tv_gap), "formula": Formula("sum(losses) < 0"), "verifies": verifies})
    with pytest.raises(ArithmeticError, match="the formula of tv-gap does not say"):
        certificate(lying, Verdict.UPHELD, tv_gap.instances.corners)


def test_every_instance_is_stored_once_and_exactly(folder):
    for claim in CERTIFIED:
        assert isinstance(claim.instances, Instances)
        admitted = {x for x in claim.instances.corners if claim.admits(x)}
        shown = admitted if claim.violates is None else {x for x in admitted if claim.violates(x)}
        assert len(stored(folder, claim.label)["instances"]) == len(shown) > 0
    assert stored(folder, "tv-gap")["instances"][0] == {"losses": [0, 1], "masses": [1, 1], "radius": "1/8"}
    assert plain({"a": (0.1, 3, Fraction(1, 3), "tv")}) == {"a": ["3602879701896397/36028797018963968", 3, "1/3", "tv"]}
