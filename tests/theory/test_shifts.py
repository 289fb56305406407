import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dro_core import ChiSquare, TotalVariation, worst_case
from synthetic.pairs.elliptical import SphereBradleyTerry
from synthetic.pairs.instances import instance
from synthetic.pairs.populations import linear_population
from synthetic.pairs.preferences import LinearBradleyTerry
from synthetic.pairs.shifts import (
    Mixture,
    chi_square,
    covariate_shift,
    group_shift,
    mixture_shift,
    total_variation,
    toward,
)

MASSES = st.lists(st.integers(1, 32), min_size=5, max_size=5).map(lambda m: np.array(m) / sum(m))
NEAR, FAR = (SphereBradleyTerry(np.array([1.0, -1.0]), radius) for radius in (1.0, 3.0))


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


@given(p=MASSES, target=MASSES, share=st.floats(0, 1))
def test_a_step_towards_a_target_has_the_radius_asked_for(p, target, share):
    reach = total_variation(p, target)
    moved = toward(p, target, share * reach)
    assert total_variation(p, moved) == pytest.approx(share * reach, abs=1e-12)
    assert chi_square(moved, p) == pytest.approx(share**2 * chi_square(target, p), abs=1e-12)


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


def test_mixtures_of_spheres_have_the_size_of_the_change_of_the_weights():
    shift = mixture_shift([NEAR, FAR], [0.8, 0.2], [0.3, 0.7])
    assert shift.total_variation == pytest.approx(0.5)
    assert shift.chi_square == pytest.approx((0.25 / 0.8 + 0.25 / 0.2) / 2)
    pairs = shift.train.sample(50_000, np.random.default_rng(0))
    lengths = np.linalg.norm(pairs.differences, axis=1)
    assert np.mean(lengths > 2) == pytest.approx(0.2, abs=0.01)
    w = np.array([0.3, 0.4])
    losses = shift.train.losses(w, pairs)
    assert shift.train.mean_loss(w) == pytest.approx(losses.mean(), abs=4.5 * losses.std() / 50_000**0.5)
    assert shift.train.true_margins(pairs.differences) == pytest.approx(pairs.differences @ [1.0, -1.0])
    assert Mixture((NEAR, FAR), np.array([0.0, 1.0])).sample(3, np.random.default_rng(0)).labels.shape == (3,)


def test_finite_components_without_a_common_difference_are_accepted():
    low, high = (linear_population([[x], [x + 1]], [0.5, 0.5], [1.0]) for x in (1.0, 3.0))
    shift = mixture_shift([low, high], [0.5, 0.5], [0.75, 0.25])
    assert shift.total_variation == 0.25
    assert shift.test.true_margins([[1.0], [4.0]]) == pytest.approx([1.0, 4.0])
    with pytest.raises(ValueError, match="disjoint"):
        mixture_shift([low, linear_population([[2.0]], [1.0], [1.0])], [0.5, 0.5], [0.75, 0.25])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: mixture_shift([LinearBradleyTerry(np.ones(2), np.eye(2))] * 2, [0.5, 0.5], [1, 0]), "upper bounds"),
        (lambda: mixture_shift([NEAR, SphereBradleyTerry(np.ones(2), 1.0)], [0.5, 0.5], [1, 0]), "different radii"),
        (lambda: Mixture((NEAR,), np.array([0.5, 0.5])), "one entry per component"),
        (lambda: toward([0.5, 0.5], [1.0, 0.0], 0.6), r"radius must lie in \[0, 0.5\]"),
        (lambda: total_variation([0.5, 0.5], [0.5, 0.4]), "divide by the sum"),
        (lambda: total_variation([1.0], [0.5, 0.5]), "one length"),
        (lambda: group_shift(instance("finite"), [0] * 23, [1.0]), "one integer from 0 on per prompt"),
        (lambda: group_shift(instance("finite"), [0] * 23 + [2], [1.0, 0.0, 0.0]), "renumber"),
    ],
)
def test_mistakes_are_explained(build, message):
    with pytest.raises(ValueError, match=message):
        build()
