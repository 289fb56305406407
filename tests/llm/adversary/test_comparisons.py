"""Rules that an adversary is compared with: what they claim about size, randomness and gradients."""

import numpy as np
import pytest
import torch

from dro_core import Spectral, effective_sample_size, worst_case
from llm.adversary.rules import reweighted
from llm.adversary.spec import parse_reweighting


def losses_of(seed, n=24):
    return torch.from_numpy(np.random.default_rng(seed).exponential(size=n))


@pytest.mark.parametrize("share", [1.0, 0.5, 0.37, 1 / 24, 0.01])
@pytest.mark.parametrize("n", [1, 24, 33])
def test_a_random_subset_has_the_effective_size_asked_for(share, n):
    weights = reweighted(parse_reweighting(f"random:{share}"), losses_of(0, n))
    assert float(weights.sum()) == pytest.approx(1)
    assert float(effective_sample_size(weights)) == pytest.approx(max(share * n, 1.0))


@pytest.mark.parametrize("spec", ["random:0.4", "shuffled:tv:0.3"])
def test_random_weights_do_not_follow_the_losses(spec):
    """Correlation of weight and loss over many batches: 0 within four standard errors; an adversary's is far off."""
    rule, adversary = parse_reweighting(spec), parse_reweighting("tv:0.3")
    batches = [losses_of(seed) for seed in range(400)]
    random = [np.corrcoef(batch, reweighted(rule, batch))[0, 1] for batch in batches]
    driven = [np.corrcoef(batch, reweighted(adversary, batch))[0, 1] for batch in batches]
    assert abs(np.mean(random)) < 4 * np.std(random) / 20
    assert np.mean(driven) > 20 * np.std(driven) / 20


def test_random_weights_change_with_the_batch_and_not_by_themselves():
    rule = parse_reweighting("random:0.4")
    assert torch.equal(reweighted(rule, losses_of(0)), reweighted(rule, losses_of(0)))
    assert not torch.equal(reweighted(rule, losses_of(0)), reweighted(rule, losses_of(1)))


def test_shuffled_weights_are_the_adversarys_own():
    losses = losses_of(3)
    inner = reweighted(parse_reweighting("chi2:0.7"), losses)
    shuffled = reweighted(parse_reweighting("shuffled:chi2:0.7"), losses)
    torch.testing.assert_close(shuffled.sort().values, inner.sort().values)
    assert not torch.equal(shuffled, inner)


def test_shuffling_within_a_column_keeps_the_mass_of_every_group():
    rng = np.random.default_rng(0)
    columns = {"category": [f"c{code}" for code in rng.integers(0, 4, 200)]}
    rows = rng.permutation(200)[:24]
    losses, groups = losses_of(5), np.array(columns["category"])[rows]
    inner = reweighted(parse_reweighting("tv:0.4"), losses).numpy()
    bound = parse_reweighting("shuffled:tv:0.4,within=category").bind(columns).take(rows)
    shuffled = reweighted(bound, losses).numpy()
    assert not np.array_equal(shuffled, inner)
    for name in np.unique(groups):
        np.testing.assert_allclose(np.sort(shuffled[groups == name]), np.sort(inner[groups == name]))


def test_the_hardest_share_counts_the_factor():
    losses = torch.tensor([0.1, 3.0, 0.2, 2.0], dtype=torch.float64)
    weights = reweighted(parse_reweighting("hardest:0.5,factor=3"), losses)
    torch.testing.assert_close(weights, torch.tensor([1.0, 3.0, 1.0, 3.0], dtype=torch.float64) / 8)
    # the same as a spectrum of two levels, where the set lies on whole examples
    spectrum = worst_case(losses, Spectral((0.125, 0.125, 0.375, 0.375))).weights
    torch.testing.assert_close(weights, spectrum)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
def test_focal_weights_give_the_gradient_of_the_focal_loss(gamma):
    margins = torch.linspace(-30, 30, 25, dtype=torch.float64, requires_grad=True)
    p = torch.sigmoid(margins)
    focal = (torch.sigmoid(-margins) ** gamma * -torch.nn.functional.logsigmoid(margins)).sum()
    (wanted,) = torch.autograd.grad(focal, margins)
    losses = -torch.nn.functional.logsigmoid(margins.detach())
    weights = reweighted(parse_reweighting(f"focal:{gamma}"), losses)
    found = -weights * (1 - p.detach())
    torch.testing.assert_close(found / found.sum(), wanted / wanted.sum(), rtol=1e-6, atol=1e-12)


def test_focal_weights_are_never_zero_even_for_losses_that_rounded_to_it():
    losses = torch.tensor([0.0, -1e-9, 0.7, 3.0], dtype=torch.float64)
    assert bool((reweighted(parse_reweighting("focal:2"), losses) > 0).all())


def test_micro_batches_are_solved_one_by_one():
    losses = losses_of(7, 20)
    weights = reweighted(parse_reweighting("micro:8:tv:0.25"), losses)
    inner = parse_reweighting("tv:0.25")
    parts = [reweighted(inner, part) * len(part) / 20 for part in losses.split(8)]
    torch.testing.assert_close(weights, torch.cat(parts))
    assert not torch.allclose(weights, reweighted(inner, losses))


def test_micro_batches_take_the_groups_of_their_own_examples():
    columns = {"source": np.array(["a", "b"] * 10)}
    losses = losses_of(8, 20)
    whole = parse_reweighting("micro:20:tv:0.25,by=source").bind(columns)
    grouped = parse_reweighting("tv:0.25,by=source").bind(columns)
    torch.testing.assert_close(reweighted(whole, losses), reweighted(grouped, losses))


@pytest.mark.parametrize(
    "spec", ["random:0.5", "hardest:0.2,factor=3", "focal:2", "shuffled:tv:0.2", "micro:4:tv:0.2", "mmd:0.1"]
)
def test_padding_gets_no_weight_and_strength_zero_is_plain(spec):
    rng = np.random.default_rng(0)
    rule = parse_reweighting(spec).bind({"prompt_embedding": rng.normal(size=(12, 5))})
    losses = losses_of(1, 12)
    masses = torch.full((12,), 0.1, dtype=torch.float64)
    masses[[3, 11]] = 0.0
    weights = reweighted(rule, losses, reference=masses)
    assert float(weights.sum()) == pytest.approx(1)
    assert weights[[3, 11]].tolist() == [0.0, 0.0]
    plain = reweighted(rule.with_strength(1e-9), losses, reference=masses)
    torch.testing.assert_close(plain, masses, rtol=1e-4, atol=1e-6)


def test_a_column_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="'topic'; the columns are: category, source"):
        parse_reweighting("shuffled:tv:0.2,within=topic").bind({"source": [], "category": []})
