import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dro_core import ChiSquare, TotalVariation, worst_case
from synthetic.pairs.instances import instance
from synthetic.pairs.shifts import (
    chi_square,
    covariate_shift,
    group_shift,
    total_variation,
)

MASSES = st.lists(st.integers(1, 32), min_size=5, max_size=5).map(lambda m: np.array(m) / sum(m))


@given(p=MASSES, q=MASSES)
def test_the_distances_are_the_smallest_radii_of_balls_that_hold_q(p, q):
    """q lies in a closed convex set exactly if no losses have a larger mean under q than their worst case."""
    rng = np.random.default_rng(0)
    for size, ball, revealing in (
        (total_variation(p, q), TotalVariation, np.sign(q - p)),
        (chi_square(q, p), ChiSquare, q / p),
    ):
        if size < 1e-6:
            continue
        for losses in (revealing, *rng.standard_normal((20, 5))):
            worst = float(worst_case(losses, ball(min(size * (1 + 1e-9), 1e9)), reference=p).value)
            assert q @ losses <= worst + 1e-9
        smaller = float(worst_case(revealing, ball(0.99 * size), reference=p).value)
        assert q @ revealing > smaller + 1e-9


def test_total_variation_is_the_largest_difference_of_an_event():
    p, q = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.4, 0.1, 0.35, 0.15])
    events = [[bool(code >> i & 1) for i in range(4)] for code in range(16)]
    assert total_variation(p, q) == pytest.approx(max(q[e].sum() - p[e].sum() for e in events), abs=1e-15)
    assert chi_square(q, p) == pytest.approx(np.sum(p * (q / p - 1) ** 2) / 2, rel=1e-14)
    assert chi_square([0.5, 0.5, 0.0], [0.5, 0.25, 0.25]) == pytest.approx(0.25)


def test_group_shifts_have_the_size_of_the_change_of_the_groups():
    population = instance("finite", seed=1)
    groups = np.arange(24) % 3
    shift = group_shift(population, groups, [0.6, 0.3, 0.1])
    atoms = shift.train.atom_masses, shift.test.atom_masses
    assert shift.total_variation == pytest.approx(total_variation(*atoms), abs=1e-14)
    assert shift.chi_square == pytest.approx(chi_square(atoms[1], atoms[0]), rel=1e-12)
    assert np.bincount(groups, weights=shift.test.masses) == pytest.approx([0.6, 0.3, 0.1])
    w = np.array([1.0, 0.5, -0.5, 2.0])
    worst = float(population.worst_case(w, population.by_prompt(TotalVariation(shift.total_variation), groups)).value)
    assert shift.test.mean_loss(w) <= worst + 1e-12
    assert covariate_shift(population, population.masses).chi_square == 0


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: total_variation([0.5, 0.5], [0.5, 0.4]), "divide by the sum"),
        (lambda: total_variation([1.0], [0.5, 0.5]), "one length"),
        (lambda: group_shift(instance("finite"), [0] * 23, [1.0]), "one integer from 0 on per prompt"),
        (lambda: group_shift(instance("finite"), [0] * 23 + [2], [1.0, 0.0, 0.0]), "renumber"),
    ],
)
def test_mistakes_are_explained(build, message):
    with pytest.raises(ValueError, match=message):
        build()
