"""How the search goes on, where it stops, what it makes of instances, and what it says of what it found."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import strategies as st

from proofs_check import Budget, Claim, Evidence, Instances, Verdict, check, mutant
from proofs_check.claims.preferences.shift_counterexamples import Coin, robust_shift_labels
from proofs_check.hunt.forms import along_axes, form_of, work_of
from proofs_check.hunt.shrinking import complexity, shrink

SMALL = Budget(examples=30, restarts=2, evaluations=30, moves=100)


@dataclass(frozen=True)
class Counted:
    n: int


@dataclass(frozen=True)
class Masses:
    losses: tuple[float, ...]
    masses: tuple[float, ...]
    blocks: tuple[float, ...]
    n: int = 1


@dataclass(frozen=True)
class Worked(Counted):
    @property
    def work(self):
        return 2.0**self.n


def numbers(kind=Counted, **changes) -> Claim[Counted]:
    start = Claim(
        label="n", statement="", reference="", assumptions={"n >= 1": lambda x: x.n >= 1},
        instances=Instances(kind, (kind(1), kind(2)), st.integers(1, 8).map(kind)),
        lhs=lambda x: x.n, rhs=lambda x: x.n + 1, scale=lambda x: 1.0,
    )  # fmt: skip
    claim = replace(start, **changes)
    return claim.with_mutants(mutant(claim, "less", rhs=lambda x: x.n - 1))


def test_the_search_goes_on_until_exact_arithmetic_certifies_an_instance():
    """Every instance seems to violate the claim; only a rare one does."""
    claim = numbers(rhs=lambda x: x.n - 1, violates=lambda x: x.n == 13, expected=Verdict.REFUTED)
    report = check(claim, budget=SMALL)
    assert (report.verdict, report.evidence) == (Verdict.REFUTED, Evidence.CERTIFIED)
    assert report.worst.instance == Counted(13)  # beyond what the strategy draws
    assert check(replace(claim, violates=lambda x: False), budget=SMALL).verdict is Verdict.INCONCLUSIVE


def test_a_refuted_claim_of_ours_stays_certified_with_a_strategy_and_without_its_corners():
    claim = robust_shift_labels()
    sizes = st.integers(1, 12)
    instances = Instances(Coin, (), st.builds(Coin, sizes, sizes, sizes))
    report = check(replace(claim, instances=instances, mutants=()), budget=SMALL)
    assert (report.verdict, report.evidence) == (Verdict.REFUTED, Evidence.CERTIFIED)
    assert report.simplest.instance == Coin(2, 1, 1)
    assert check(claim.with_mutants(), budget=SMALL).simplest.instance == Coin(2, 1, 1)


def test_nothing_is_drawn_after_a_counterexample():
    drawn = []
    claim = numbers(rhs=lambda x: drawn.append(x) or x.n - 1)
    claim = replace(claim, instances=replace(claim.instances, corners=()))
    report = check(claim, budget=SMALL)
    assert report.verdict is Verdict.REFUTED
    assert report.checked == 1


def test_steps_outside_the_domain_are_rejected_and_no_errors():
    """Sides that can be had of what is drawn, and raise or are no numbers beyond it."""

    def fragile(x):
        if x.n > 8:
            raise ZeroDivisionError
        return x.n if x.n < 8 else np.nan

    drawn = st.integers(1, 7).map(Counted)
    claim = numbers(lhs=fragile, instances=Instances(Counted, (Counted(1), Counted(2)), drawn))
    report = check(claim, budget=SMALL)
    assert report.verdict is Verdict.UPHELD, report.reason
    broken = check(replace(claim, instances=Instances(Counted, (Counted(9),), drawn)), budget=SMALL)
    assert broken.verdict is Verdict.INCONCLUSIVE


def test_what_is_too_small_to_tell_from_rounding_is_touching_unless_arithmetic_decides():
    claim = numbers(rhs=lambda x: x.n - 3e-9)
    report = check(claim, budget=SMALL)
    assert (report.verdict, "3e-09" in report.reason) == (Verdict.TOUCHING, True)
    assert check(replace(claim, verifies=lambda x: True), budget=SMALL).verdict is Verdict.UPHELD
    certain = check(replace(claim, violates=lambda x: True), budget=SMALL)
    assert (certain.verdict, certain.evidence) == (Verdict.REFUTED, Evidence.CERTIFIED)
    assert check(numbers(rhs=lambda x: x.n - 3e-11), budget=SMALL).verdict is Verdict.UPHELD


def test_a_claim_upheld_by_search_needs_a_search_that_sees_without_corners():
    """The mutant is false at a corner alone, far from all that is drawn."""
    far = numbers(instances=Instances(Counted, (Counted(10**6),), st.integers(1, 8).map(Counted)))
    wrong = mutant(far, "wrong far away", rhs=lambda x: min(x.n + 1, 1000))
    for claim, alone in ((far.with_mutants(wrong), None), (far.with_mutants(wrong), False)):
        report = check(claim, budget=replace(SMALL, alone=alone is False))
        assert report.powers == {"n/wrong far away": (True, True, alone)}
        assert report.verdict is (Verdict.UPHELD if alone is None else Verdict.INCONCLUSIVE), report.reason
    certified = check(replace(claim, verifies=lambda x: True), budget=replace(SMALL, alone=True))
    assert (certified.verdict, certified.evidence) == (Verdict.UPHELD, Evidence.CERTIFIED)


def test_a_share_goes_to_exact_arithmetic_with_all_corners_and_all_that_nearly_touches():
    asked, seen, exact = [], [], []
    claim = numbers(rhs=lambda x: x.n + (1 if x.n != 7 else -3e-9), verifies=lambda x: asked.append(x) or True)
    report = check(claim, budget=replace(SMALL, share=16), seen=seen, exact=exact)
    assert (report.verdict, report.evidence) == (Verdict.UPHELD, Evidence.CERTIFIED), report.reason
    assert (exact, report.exact, report.checked) == (asked, len(asked), len(seen))
    chosen = {x.n for x in exact}
    assert {1, 2, 7} <= chosen < {x.n for x in seen}
    assert sum(x.n in chosen for x in seen) == len(exact)  # the same instance is chosen each time
    doubted = check(replace(claim, verifies=lambda x: x.n != 7), budget=replace(SMALL, share=16))
    assert doubted.verdict is Verdict.INCONCLUSIVE
    assert check(claim, budget=SMALL).exact == check(claim, budget=SMALL).checked


def test_numbers_grow_as_far_as_the_work_allows():
    seen = []
    check(numbers(Worked), budget=replace(SMALL, moves=300, work=2**14), seen=seen)
    assert 12 <= max(x.n for x in seen) <= 14
    assert max(map(work_of, seen)) <= 2**14


def test_linked_tuples_grow_together_and_blocks_whole():
    pool = [Masses((0.0,) * k, (1.0,) * k, tuple(map(float, range(2 * k)))) for k in (2, 3)]
    form = form_of(pool)
    assert {axis: block for group in form.axes for axis, block in group} == {
        ("losses", 0): 1, ("masses", 0): 1, ("blocks", 0): 2,
    }  # fmt: skip
    longer = along_axes(pool[0], form.axes[0], [1, 1, 0])
    assert (len(longer.losses), len(longer.masses), longer.blocks) == (3, 3, (2.0, 3.0, 2.0, 3.0, 0.0, 1.0))


def test_shrinking_drops_atoms_and_digits_and_keeps_what_violates():
    start = Masses((0.3, 0.7, 5.25), (0.125, 1.0, 3.0), tuple(map(float, range(6))), 40)
    pool = [start, Masses((0.0, 0.0), (1.0, 1.0), (0.0,) * 4)]

    def violates(x):
        return x.n >= 7 and sum(x.losses) > 2.6

    smallest = shrink(start, violates, form=form_of(pool))
    assert violates(smallest)
    assert complexity(smallest) < complexity(start)
    assert (len(smallest.losses), smallest.n) == (1, 7)
    assert smallest.losses == (3.0,)


@pytest.mark.parametrize("seed", [0, 5])
def test_the_search_is_the_same_every_time(seed):
    first, second = [], []
    check(numbers(Worked), budget=SMALL, seed=seed, seen=first)
    check(numbers(Worked), budget=SMALL, seed=seed, seen=second)
    assert first == second
