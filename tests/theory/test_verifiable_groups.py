"""What G answers weigh, and what sampled rates do to it, against drawn groups, binomial sums and numbers by hand."""

from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import binom

from dro_core import TotalVariation, worst_case
from proofs_check.claims.verifiable import groups, sampling
from proofs_check.claims.verifiable.groups import KINDS, Group, enumerated
from proofs_check.claims.verifiable.offsets import Rewarded, easy_prompts_compare
from proofs_check.claims.verifiable.sampling import Sampled
from proofs_check.claims.verifiable.waste import Classes, Step, smooth_sets_waste_less, tv_drains_from_the_top
from proofs_check.exact.groups import as_float, mixed_mean, sampled_mean


def by_simulated_score(x, draws=400_000):
    """w by drawing groups: the mean of 1/G sum A_j (r_j - p)/(p (1-p)), and its standard error."""
    rng, p = np.random.default_rng(1), float(x.rate)
    by_count = []
    for right in range(x.size + 1):
        rewards = np.r_[np.ones(right), np.zeros(x.size - right)]
        numerators, square = groups.advantages(x.kind, x.knob, tuple(map(int, rewards)))
        scores = (rewards - p) / (p * (1 - p))
        by_count.append(np.mean(np.array(numerators, float) / float(square) ** 0.5 * scores))
    values = np.array(by_count)[rng.binomial(x.size, p, draws)]
    return values.mean(), values.std() / draws**0.5


@pytest.mark.parametrize("kind", KINDS)
def test_weights_agree_with_drawn_groups(kind):
    for size, part in ((2, 3), (5, 8), (8, 2)):
        x = Group(kind, 2, size, part, 10)
        mean, error = by_simulated_score(x)
        assert as_float(enumerated(x)) == pytest.approx(mean, abs=5 * error + 1e-12)


def test_advantages_are_the_published_ones():
    rewards = (1, 0, 0, 1, 0)
    r = np.array(rewards, float)
    expected = {
        "rloo": r - (r.sum() - r) / 4,
        "mean": r - r.mean(),
        "grpo": (r - r.mean()) / r.std(ddof=1),
        "dgpo": (r - r.mean()) / np.abs(r - r.mean()).mean(),
        "maxrl": (r - r.mean()) / r.mean(),
        "maxrl_plain": r / r.mean(),
        "rs": 3**r / np.mean(3**r) - 1,  # e^beta = 3
        "pass_at_k": 2 * r * 3 / 4,  # the other answer fails in three of four choices
    }
    for kind in KINDS:
        numerators, square = groups.advantages(kind, 2, rewards)
        assert np.array(numerators, float) / float(square) ** 0.5 == pytest.approx(expected[kind])


def test_standard_deviations_of_two_and_three_answers_weigh_nothing_and_of_more_everything():
    for size in (2, 3):
        weights = {as_float(enumerated(Group("grpo", 1, size, part, 20))) for part in range(1, 20)}
        assert max(weights) == pytest.approx(min(weights))
    for size in (4, 8):
        weights = [as_float(enumerated(Group("grpo", 1, size, part, 20))) for part in range(1, 20)]
        assert np.argmin(weights) == 9
        assert weights == pytest.approx(weights[::-1])
        assert np.all(np.diff(weights[9:]) > 0)


def test_means_of_sampled_rates_are_binomial_sums():
    for size, rate in ((2, 0.3), (5, 0.5), (9, 0.9)):
        counts, exact = np.arange(size + 1), Fraction(rate)
        plain = binom.pmf(counts, size, rate) @ (1 - counts / size) ** 2
        assert float(sampled_mean(lambda m: (1 - m) ** 2, exact, size)) == pytest.approx(plain)
        mixed = binom.pmf(counts[: size - 1], size - 2, rate) @ (size / (1 + counts[: size - 1]))
        found = as_float(mixed_mean(lambda m: (1 / m, Fraction(1)), exact, size))
        assert found == pytest.approx((size - 1) / size * mixed)


def test_sampling_by_hand():
    x = Sampled("maxrl", 1, 4, 3, 6, 12)
    p, r = x.rates
    assert sampling._mixed(x, p) / sampling._mixed(x, r) == Fraction(37, 28)
    assert sampled_mean(lambda m: (1 - m) ** 2, Fraction(1, 2), 3) == Fraction(1, 3)
    worst = Sampled("worst", 1, 3, 1, 4, 8)
    assert sampling._mixed(worst, worst.rates[0]) / sampling._mixed(worst, worst.rates[1]) == Fraction(5, 4)


# Mass


def test_where_total_variation_puts_its_mass_in_the_mix_of_theory():
    x = Step((0,) * 8 + (4,) * 8 + (8,) * 16, 8, 8)
    weights = worst_case(np.array(x.losses, float), TotalVariation(0.3)).weights
    assert [weights[:8].sum(), weights[8:16].sum(), weights[16:].sum()] == pytest.approx([0.55, 0.25, 0.2])
    assert tv_drains_from_the_top().lhs(x) == pytest.approx([0.25, -0.25, 0])
    mixed = worst_case(np.array([1.0] * 8 + [0.5] * 24), TotalVariation(0.3)).weights
    assert mixed[8:].sum() == pytest.approx(0.45)


def test_smooth_weights_take_from_the_mixed():
    claim, x = smooth_sets_waste_less(), Classes(1, 1, 1, 2)
    assert claim.lhs(x) == pytest.approx(5 / 7)
    assert claim.rhs(x) == pytest.approx(2 / 3)
    p = np.array([8, 8, 16])
    raw = p * np.exp(np.array([1, 0.5, 0]) / 0.3)
    assert raw[1] / raw.sum() == pytest.approx(0.15, abs=5e-4)


def test_offsets_by_hand():
    x = easy_prompts_compare().instances.corners[0]
    assert easy_prompts_compare().lhs(x) == pytest.approx([1 / 4, 3 / 4])
    assert easy_prompts_compare().rhs(x) == pytest.approx([3 / 4, 1 / 4])
    y = Rewarded(((0, 8), (32, 32)), ((1, 1), (1, 1)), (40, 0), 2)
    assert y.regrets() == y.regrets(moved=True) == [Fraction(1, 2), 0]
    assert y.values() == [Fraction(1, 2), 4]
    assert y.values(moved=True) == [Fraction(11, 2), 4]
