"""Floors for the shift between two samples: how often they miss, what they find, and what they refuse."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom, norm
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import RidgeClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeClassifier

from dro_core.sampling.shift_budget import ShiftBudget, _bets, _betting_bound, shift_budget

DELTA = 0.05


class Above(ClassifierMixin, BaseEstimator):
    """Learns nothing: gives positive first features to the target. The payoffs are independent draws then."""

    def fit(self, features: np.ndarray, labels: np.ndarray) -> Above:
        self.classes_ = np.unique(labels)
        return self

    def predict_proba(self, features: np.ndarray) -> np.ndarray:
        positive = (features[:, 0] > 0).astype(float)
        return np.stack([1 - positive, positive], axis=1)


def misses(
    draw: Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]],
    truth: float,
    classifier: Any,
    repeats: int,
    **options: Any,
) -> int:
    found = 0
    for seed in range(repeats):
        rng = np.random.default_rng(seed)
        source, target = draw(rng)
        found += shift_budget(source, target, classifier=classifier, rng=rng, **options).lower > truth
    return found


def most(repeats: int, delta: float) -> float:
    """No more misses than this but once in a thousand, if each has probability delta."""
    return float(binom.ppf(0.999, repeats, delta))


def signs(rng: np.random.Generator, rate: float, rows: int) -> np.ndarray:
    return np.where(rng.random((rows, 1)) < rate, 1.0, -1.0)


@pytest.mark.parametrize(("low", "high"), [(0.5, 0.5), (0.2, 0.5), (0.1, 0.2), (0.1, 0.9)])
def test_the_floor_holds_and_is_not_idle_with_a_perfect_classifier(low: float, high: float) -> None:
    """TV is high - low exactly, the mean of every payoff: nothing is lost by learning, so misses come near delta."""
    repeats, delta = 400, 0.2
    found = misses(
        lambda rng: (signs(rng, low, 90), signs(rng, high, 60)),
        high - low,
        Above(),
        repeats,
        confidence=1 - delta,
        folds=3,
    )
    assert repeats * delta / 10 <= found <= most(repeats, delta)


def test_what_was_won_stays_won() -> None:
    """Mostly wins set the bound; whatever follows can only lose."""
    wins = np.tile([1.0, -1.0, 1.0, 1.0], 50)
    tails = [np.full(100, -1.0), np.zeros(100), np.tile([0.0, -1.0], 50), np.linspace(-1, 0, 100)]
    floors = {_betting_bound(np.concatenate([wins, tail]), DELTA) for tail in tails}
    assert len(floors) == 1
    assert 0.2 < min(floors) < 0.5


def test_bets_are_made_before_the_payoff_is_known() -> None:
    rng = np.random.default_rng(0)
    payoffs = rng.uniform(-1, 1, 50)
    bets = _bets(payoffs, 0.5)
    assert np.all((bets >= 0) & (bets <= 0.5))
    for at in range(50):
        changed = payoffs.copy()
        changed[at] = -np.sign(payoffs[at])
        np.testing.assert_array_equal(_bets(changed, 0.5)[: at + 1], bets[: at + 1])
        assert at == 49 or _bets(changed, 0.5)[at + 1] != bets[at + 1]


@pytest.mark.parametrize("delta", [0.05, 0.3])
@pytest.mark.parametrize("chances", [(0.5, 0.5), (0.9, 0.1), (0.1, 0.9), (0.3, 0.7)])
def test_the_betting_bound_misses_at_most_delta_over_all_sequences(delta: float, chances: tuple[float, float]) -> None:
    """Every sequence of nine payoffs 0 or 1, with its probability."""
    sequences = np.array(list(itertools.product([0.0, 1.0], repeat=9)))
    chance = np.prod(np.array(chances)[sequences.astype(int)], axis=1)
    floors = np.array([_betting_bound(sequence, delta) for sequence in sequences])
    assert chance[floors > chances[1]].sum() <= delta
    assert chance[floors > 0].sum() > 0


@pytest.mark.parametrize(
    "classifier",
    [DecisionTreeClassifier(random_state=0), KNeighborsClassifier(1), GaussianNB()],
    ids=lambda c: type(c).__name__,
)
def test_no_shift_gives_zero_for_a_classifier_that_learns_by_heart(classifier: Any) -> None:
    """A leak from the tested rows into the training would give a floor near 1 every time."""
    repeats = 60
    found = misses(lambda rng: (rng.normal(size=(40, 2)), rng.normal(size=(40, 2))), 0.0, classifier, repeats)
    assert found <= most(repeats, DELTA)


def test_the_floor_holds_on_a_discrete_shift() -> None:
    source, target = np.array([0.4, 0.3, 0.2, 0.1, 0.0]), np.array([0.1, 0.2, 0.2, 0.3, 0.2])
    truth, repeats = float(np.abs(source - target).sum() / 2), 60

    def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return tuple(rng.choice(5, size=(rows, 1), p=p).astype(float) for rows, p in ((150, source), (100, target)))

    assert misses(draw, truth, DecisionTreeClassifier(random_state=0), repeats) <= most(repeats, DELTA)
    found = [shift_budget(*draw(rng), rng=rng).lower for rng in map(np.random.default_rng, range(20))]
    assert np.mean(found) > truth / 2


def gaussians(rng: np.random.Generator, rows: int, *, shift: float = 1.0, width: int = 3) -> tuple[np.ndarray, ...]:
    return rng.normal(size=(rows, width)), rng.normal(size=(rows, width)) + shift * np.eye(width)[0]


def test_the_floor_grows_toward_the_truth() -> None:
    truth = float(2 * norm.cdf(0.5) - 1)
    floors = []
    for rows in (60, 300, 1500, 8000):
        generators = map(np.random.default_rng, range(5))
        floors.append(np.mean([shift_budget(*gaussians(rng, rows), rng=rng).lower for rng in generators]))
    assert floors == sorted(floors)
    assert floors[0] > 0
    assert truth - 0.03 < floors[-1] < truth


def test_far_apart_is_nearly_one() -> None:
    rng = np.random.default_rng(0)
    answer = shift_budget(*gaussians(rng, 1000, shift=30.0), rng=rng)
    assert answer.estimate == 1
    assert 0.99 < answer.lower < 1
    assert answer.by_fold == (1.0,) * 4


def test_the_fields_belong_together() -> None:
    rng = np.random.default_rng(1)
    source, target = gaussians(rng, 100)[0], gaussians(rng, 70)[1]
    answer = shift_budget(source, target, rng=rng, folds=4)
    assert isinstance(answer, ShiftBudget)
    assert answer.rounds == 70 - 18  # the first fold of 70 rows has 18
    assert answer.estimate == pytest.approx(np.average(answer.by_fold, weights=[18, 17, 17]))
    assert answer.lower < answer.estimate


def test_unequal_samples_are_weighed_alike() -> None:
    """A row goes to the target if its odds beat those of the sample sizes, here 1 to 10, not if they beat 1 to 1."""
    rng = np.random.default_rng(6)
    source, target = gaussians(rng, 2000)[0], gaussians(rng, 200)[1]
    answers = shift_budget(source, target, rng=rng), shift_budget(target, source, rng=rng)
    truth = float(2 * norm.cdf(0.5) - 1)
    for answer in answers:
        assert answer.rounds == 160
        assert answer.estimate == pytest.approx(truth, abs=0.1)
        assert 0.15 < answer.lower < truth


def test_the_order_of_the_rows_does_not_matter_but_the_seed_does() -> None:
    rng = np.random.default_rng(2)
    source, target = gaussians(rng, 120)
    first = shift_budget(source, target, rng=np.random.default_rng(7))
    mixed = shift_budget(rng.permutation(source), target[::-1], rng=np.random.default_rng(7))
    assert first == shift_budget(source, target, rng=7) == shift_budget(source, target, rng=np.int64(7))
    assert mixed == first
    assert shift_budget(source, target, rng=np.random.default_rng(8)) != first


def test_arguments_stay_as_they_were() -> None:
    rng = np.random.default_rng(3)
    source, target = gaussians(rng, 50)
    before, classifier = source.copy(), GaussianNB()
    shift_budget(source, target, rng=rng, classifier=classifier)
    np.testing.assert_array_equal(source, before)
    assert not hasattr(classifier, "classes_")


def test_a_change_of_spread_needs_another_classifier() -> None:
    rng = np.random.default_rng(4)
    source, target = rng.normal(size=(500, 2)), 3 * rng.normal(size=(500, 2))
    boosted = HistGradientBoostingClassifier(max_iter=20, random_state=0)
    assert shift_budget(source, target, rng=rng).lower < 0.1
    assert shift_budget(source, target, rng=rng, classifier=boosted).lower > 0.3


def test_copies_within_a_sample_break_it_and_shared_rows_do_not() -> None:
    """The two kinds of duplicates of the docstring, without any shift."""
    rng = np.random.default_rng(5)
    source, target = gaussians(rng, 200, shift=0.0)
    by_heart = KNeighborsClassifier(1)
    copied = np.repeat(target[:50], 4, axis=0)
    assert shift_budget(source, copied, rng=rng, classifier=by_heart).lower > 0.2
    shared = np.concatenate([source[:100], target[100:]])
    assert shift_budget(source, shared, rng=rng, classifier=by_heart).lower == 0


GOOD = np.zeros((20, 2))


@pytest.mark.parametrize(
    ("changed", "kind", "message"),
    [
        ({"source_features": np.zeros(20)}, ValueError, r"source_features must have shape \(rows, features\), got"),
        ({"target_features": np.zeros((20, 0))}, ValueError, "target_features must have shape"),
        ({"target_features": np.zeros((20, 3))}, ValueError, "same features, got 2 and 3 columns"),
        ({"source_features": np.where(np.eye(20, 2) > 0, np.nan, 0)}, ValueError, "source_features.*first bad row 0"),
        ({"target_features": GOOD[:9]}, ValueError, "target_features has 9 rows, 5 folds need at least 10"),
        ({"folds": 1}, ValueError, "`folds`.*at least 2, got 1"),
        ({"folds": 2.5}, ValueError, "`folds`"),
        ({"confidence": 1.0}, ValueError, r"`confidence`.*\(0, 1\)"),
        ({"rng": -1}, TypeError, "rng must be a generator or a seed, an integer of at least 0, got -1; use"),
        ({"rng": None}, TypeError, "rng must be a generator or a seed"),
        ({"rng": True}, TypeError, "rng must be a generator or a seed"),
        ({"classifier": RidgeClassifier()}, TypeError, "must have predict_proba, got RidgeClassifier"),
    ],
)
def test_errors_of_the_floor_teach(changed: dict[str, Any], kind: type[Exception], message: str) -> None:
    arguments = {"source_features": GOOD, "target_features": GOOD, "rng": np.random.default_rng(0), **changed}
    with pytest.raises(kind, match=message):
        shift_budget(**arguments)


def test_without_scikit_learn_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    with pytest.raises(ImportError, match=r"robust-rlhf\[learn\]"):
        shift_budget(GOOD, GOOD, rng=np.random.default_rng(0))
