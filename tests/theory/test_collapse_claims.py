"""The claims about the collapse radius: their verdicts, and their parts against sums and solvers they do not share."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from scipy.stats import multinomial

from dro_core import TotalVariation, collapse_radius, worst_case
from proofs_check import Evidence, Verdict
from proofs_check.claims.collapse import criterion
from proofs_check.claims.collapse.criterion import (
    Directed,
    Trained,
    collapse_criterion,
    collapse_radius_entropies,
    collapse_radius_exact,
)
from proofs_check.claims.collapse.groups import (
    Flipped,
    Lengths,
    collapse_groups,
    collapse_groups_longer,
    collapse_groups_noise,
    collapse_groups_vacuous,
    with_flips,
    wrong_shares,
)
from proofs_check.claims.collapse.labels import Judged, Prompts, collapse_labels, collapse_regret
from proofs_check.claims.collapse.margins import (
    Margins,
    Signs,
    collapse_accuracy,
    collapse_accuracy_floor,
    collapse_signs,
    falls_short,
)
from proofs_check.claims.collapse.minibatches import Batched, collapse_minibatch
from proofs_check.claims.collapse.pairs import Pairs, balance_reach, exact_reach, reach
from proofs_check.claims.collapse.samples import (
    Drawn,
    Unlabelled,
    collapse_sample,
    collapse_sample_estimates,
    collapse_sample_null,
    mean_reach,
    null_reach,
)
from proofs_check.exact.balance import EXACT, exact_balance

CERTIFIED = (
    collapse_criterion,
    collapse_radius_exact,
    collapse_radius_entropies,
    collapse_signs,
    collapse_accuracy,
    collapse_accuracy_floor,
    collapse_sample,
    collapse_sample_null,
    collapse_sample_estimates,
    collapse_minibatch,
    collapse_groups,
    collapse_groups_vacuous,
    collapse_groups_noise,
    collapse_groups_longer,
    collapse_labels,
)
REFUTED = (collapse_accuracy_floor, collapse_sample_estimates, collapse_groups_longer)
KINDS = (*EXACT, "kl", "burg")


@pytest.mark.parametrize("build", [*CERTIFIED, collapse_regret], ids=lambda build: build.__name__)
def test_verdict_and_evidence_with_every_mutant_refuted(build, searched):
    report = searched(build()).report
    assert report.verdict is (Verdict.REFUTED if build in REFUTED else Verdict.UPHELD), report.reason
    assert report.evidence is (Evidence.CERTIFIED if build in CERTIFIED else Evidence.SEARCHED)
    assert set(report.controls.values()) == {Verdict.REFUTED}


# Parts


@pytest.mark.parametrize("kind", EXACT)
def test_the_radius_of_dro_core_is_the_exact_one_on_lattices(kind):
    rng = np.random.default_rng(0)
    for _ in range(60):
        n, d = int(rng.integers(2, 7)), int(rng.integers(1, 4))
        rows, masses = rng.integers(-4, 5, (n, d)), rng.integers(1, 9, n)
        found = collapse_radius(rows.astype(float), kind, reference=masses / masses.sum(), folds=0, seeds=())
        exact = exact_balance(rows.tolist(), masses.tolist(), kind).size
        assert found.separable == (exact is None)
        if exact is not None:
            assert found.radius == pytest.approx(float(exact), abs=1e-6)
            assert found.bound == pytest.approx(float(exact), abs=1e-6)


def test_both_sides_of_the_criterion_by_hand():
    x = Trained(((1,), (-1,)), (3, 1), "tv", 8, (0.5,))
    assert collapse_criterion().lhs(x)[0] == pytest.approx(np.log1p(np.exp(-0.125)))
    step = np.log1p(np.exp(-0.5)) * 5 / 8 + np.log1p(np.exp(0.5)) * 3 / 8
    assert collapse_criterion().lhs(x)[1:] == pytest.approx([0, step])
    assert collapse_criterion().rhs(x) == pytest.approx([step, step, np.log(2) - 1 / 32])


def test_reach_grows_with_the_set_and_is_one_for_none():
    assert [reach(kind, None) for kind in KINDS] == [1.0] * 5
    assert [reach(kind, 0.25) for kind in ("tv", "cvar", "chi2")] == [0.25, 0.75, 1 / 3]
    assert reach("kl", np.log(2)) == pytest.approx(0.5)
    assert [exact_reach(kind, np.inf) for kind in EXACT] == [1] * 3
    assert [reach(kind, 1.0 if kind == "cvar" else 0.0) for kind in KINDS] == [0.0] * 5


@pytest.mark.parametrize("kind", EXACT)
def test_means_over_samples_agree_with_every_ordered_sample(kind):
    x = Drawn(((1, 0), (-1, 1), (0, -1)), (2, 1, 1), kind, 3)
    total, rows = 0.0, np.array(x.rows)
    for sample in product(range(3), repeat=3):
        counts = np.bincount(sample, minlength=3)
        chance = multinomial.pmf(counts, 3, x.reference) / multinomial.pmf(counts, 3, np.ones(3) / 3) / 27
        found = collapse_radius(rows[list(sample)].astype(float), kind, folds=0, seeds=())
        total += chance * reach(kind, found.radius)
    assert float(mean_reach(x, 3)) == pytest.approx(total, abs=1e-6)


def test_the_null_agrees_with_a_loop_over_all_signs_by_dro_core():
    rows = np.array([(1, 0), (2, 1), (1, -1), (0, 3)], float)
    radii = [
        collapse_radius(np.array(signs)[:, None] * rows, "chi2", folds=0, seeds=()).radius
        for signs in product((1, -1), repeat=4)
    ]
    exact = null_reach(Unlabelled(tuple(tuple(map(int, row)) for row in rows)))
    assert float(exact) == pytest.approx(np.mean([reach("chi2", radius) for radius in radii]), abs=1e-6)
    assert exact > Fraction(2, 4)


def test_the_mean_of_the_null_is_that_of_the_limit_law():
    """2 n r is chi-square with d degrees, of mean d; 2 r/(1 + 2 r) has the mean d/n exactly while no weight is 0."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((400, 3))
    found = collapse_radius(rows, "chi2", folds=0, seeds=range(60)).null
    assert np.mean(2 * found / (1 + 2 * found)) == pytest.approx(3 / 400, abs=4 * np.sqrt(6 / 60) / 400)


def test_minibatches_by_hand_and_by_every_batch():
    x = Batched((1, 1, 1, -1), 2, 4)
    claim = collapse_minibatch()
    assert claim.rhs(x)[0] == pytest.approx(1 / 2)
    assert claim.lhs(x)[2] == pytest.approx(1 / 4)
    assert claim.rhs(x)[4:] == pytest.approx([(3 * 1 + 3 * -0.5) / 6, (3 * 1 + 3 * -1) / 6])
    assert claim.verifies(x)


def test_the_numbers_of_the_length_groups():
    longer, shorter = wrong_shares(Lengths(8, 2, 10))
    assert (longer, shorter) == (Fraction(4, 68), Fraction(1, 2))
    rng = np.random.default_rng(0)
    better_is_longer, flipped = rng.random(200_000) < 0.8, rng.random(200_000) < 0.2
    chose_longer = better_is_longer ^ flipped
    assert flipped[chose_longer].mean() == pytest.approx(float(longer), abs=0.005)
    assert flipped[~chose_longer].mean() == pytest.approx(0.5, abs=0.01)


def test_flips_halve_what_pairs_bear_and_leave_groups_alone():
    x = Flipped(((1,), (1,), (2,)), (1, 1, 2), "tv", (0, 0, 1), 4)
    noisy = with_flips(x)
    assert noisy.masses == (12, 12, 24, 4, 4, 8)
    found = collapse_radius(noisy.features, "tv", reference=noisy.reference, folds=0, seeds=())
    grouped = collapse_radius(noisy.features, "tv", reference=noisy.reference, groups=noisy.groups, folds=0, seeds=())
    assert np.isfinite(found.radius)
    assert grouped.radius == np.inf


def test_true_labels_collapse_over_pairs_alone():
    x = Prompts(((1, 0), (1, 1), (-1, 2)), (1, 2, 1), "tv", (1, 2, 1), (1, 1))
    assert x.preferences == [Fraction(2, 3), Fraction(4, 5), Fraction(2, 3)]
    rows, masses = (np.array(part, float) for part in x.pairs)
    found = collapse_radius(rows, "tv", reference=masses / masses.sum(), folds=0, seeds=())
    assert found.radius == pytest.approx(float(balance_reach(*x.pairs, "tv")), abs=1e-6)
    assert found.radius <= (1 / 6 + 2 * 3 / 10 + 1 / 6) / 4 + 1e-9


def test_regrets_are_least_at_the_truth():
    x = Judged(((2,), (1,), (-1,)), (2, 1, 1), "tv", (2, 1, -1), (1,), (0.0,), 4)
    p = np.array([0.8, 2 / 3, 1 / 3])
    entropy = -p * np.log(p) - (1 - p) * np.log(1 - p)

    def worst(w):
        soft = p * np.logaddexp(0, -w * x.features[:, 0]) + (1 - p) * np.logaddexp(0, w * x.features[:, 0])
        return float(worst_case(soft - entropy, TotalVariation(0.25), reference=x.reference).value)

    grid = [worst(w) for w in np.linspace(-2, 3, 501)]
    assert worst(np.log(2)) == pytest.approx(0, abs=1e-15)
    assert min(grid) >= -1e-15
    assert collapse_regret().rhs(x)[2] == pytest.approx(worst(0.0))


def test_refutations_follow_by_hand():
    assert falls_short(Margins((1.0, -9.0), (3, 1)))
    assert not falls_short(Margins((1.0, -1.0), (3, 1)))
    assert exact_balance([(1,), (-9,)], (3, 1), "tv").size == Fraction(3, 20)
    coin = Drawn(((1,), (-1,)), (1, 1), "tv", 4)
    assert mean_reach(coin, 4) == Fraction(1, 4) == Fraction(8, 16) / 4 + Fraction(2, 16)


# The exact checks


WRONGLY_SIZED = (collapse_signs, collapse_accuracy, collapse_labels, collapse_sample, collapse_minibatch)


@pytest.mark.parametrize("build", WRONGLY_SIZED)
def test_the_exact_check_sees_a_wrong_radius(build, monkeypatch):
    """A larger one than there is, wherever a claim looks one up."""
    factor = Fraction(9, 8) if build is collapse_minibatch else 4

    def wrong(rows, masses, kind):
        found = exact_balance(rows, masses, kind)
        return found._replace(
            size=None if found.size is None else found.size * (1 / factor if kind == "cvar" else factor)
        )

    for module in ("margins", "pairs"):
        monkeypatch.setattr(f"proofs_check.claims.collapse.{module}.exact_balance", wrong)
    instance = {
        collapse_signs: Signs(3, 1),
        collapse_accuracy: Margins((1.0, 2.0, -1.0), (2, 2, 1)),
        collapse_labels: Prompts(((1,), (2,)), (1, 1), "tv", (1, 2), (1,)),
        collapse_sample: Drawn(((1,), (-1,)), (63, 1), "chi2", 1),
        collapse_minibatch: Batched((2, 1, 1, -1), 3, 4),
    }[build]
    mean_reach.cache_clear()
    assert not build().verifies(instance)
    mean_reach.cache_clear()


@pytest.mark.parametrize(
    ("build", "name"),
    [(collapse_criterion, "exact_balance"), (collapse_radius_entropies, "enclosed_balance")],
)
def test_the_exact_check_sees_weights_that_do_not_balance(build, name, monkeypatch):
    """p itself lies in every set; its mean feature is not 0."""
    right = getattr(criterion, name)
    monkeypatch.setattr(criterion, name, lambda *x: right(*x)._replace(weights=(Fraction(3, 4), Fraction(1, 4))))
    size = {"parts": 40} if build is collapse_criterion else {}
    make = Trained if build is collapse_criterion else Directed
    x = make(((1,), (-1,)), (3, 1), "tv" if build is collapse_criterion else "kl", **size, reward=(1.0,))
    assert not build().verifies(x)
    monkeypatch.undo()
    assert build().verifies(x)


def test_pairs_are_what_they_say():
    x = Pairs(((1, 2), (3, 4)), (1, 3), "tv")
    assert x.features.tolist() == [[1, 2], [3, 4]]
    assert x.reference.tolist() == [0.25, 0.75]


@pytest.mark.parametrize("sign", [1, -1])
def test_large_margins_leave_the_identity_of_regret_as_it_is(sign):
    """The longer search met a margin of 19, where 1 - sigma(m) had lost eight digits."""
    claim, row = collapse_regret(), (-2, 2, -2)
    reward = tuple(sign * part for part in (-4.0, 4.0, -2.84375))
    far = Judged(
        rows=(row,), masses=(1,), kind="tv", exponents=(-2,), truth=(2, 1, 0), reward=reward, parts=0
    )  # fmt: skip
    assert all(holds(far) for holds in claim.assumptions.values())
    one, other, _ = claim.lhs(far)
    assert one == pytest.approx(other, rel=1e-13)
