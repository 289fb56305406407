"""Pair losses and reweighting rules against their formulas, evaluated by scipy and autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_expit, softmax

from llm.adversary.rules import DrDPO, GroupAscent, advance, reweighted, state_of
from llm.adversary.spec import parse_reweighting
from llm.judging.margins import dpo_margins
from llm.training.losses import IPO, ConservativeDPO, Sigmoid, UnbiasedDPO
from llm.training.objectives.table import parse_pair_loss

MARGINS = np.array([-40.0, -1.5, 0.0, 0.2, 3.0, 40.0])
TENSOR = torch.tensor(MARGINS, dtype=torch.float64)
LOSSES = torch.tensor([0.3, 1.2, 0.1, 2.5, 0.7], dtype=torch.float64)


@pytest.mark.parametrize(
    ("spec", "formula"),
    [
        ("sigmoid", -log_expit(MARGINS)),
        ("ipo", (MARGINS / 0.2 - 1 / 0.4) ** 2),
        ("cdpo:0.1", -0.9 * log_expit(MARGINS) - 0.1 * log_expit(-MARGINS)),
        ("rdpo:0.1", (-0.9 * log_expit(MARGINS) + 0.1 * log_expit(-MARGINS)) / 0.8),
        ("wdpo:0.3", -log_expit(MARGINS)),
    ],
)
def test_losses_are_their_formulas(spec, formula):
    np.testing.assert_allclose(parse_pair_loss(spec, beta=0.2)(TENSOR).numpy(), formula, rtol=1e-13, atol=1e-13)


@given(st.text() | st.lists(st.sampled_from(["ipo", "cdpo", "wdpo", "inf", "nan", "0.1", *":,/="])).map("".join))
def test_no_text_ends_otherwise_than_in_a_loss_or_a_sentence(text):
    try:
        loss = parse_pair_loss(text, beta=0.1)
    except ValueError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        told = torch.stack([TENSOR, -TENSOR], dim=1) if loss.of_scores else TENSOR
        assert loss(told).shape == TENSOR.shape


def test_rdpo_averages_to_the_loss_of_the_true_labels():
    loss, flip = UnbiasedDPO(0.2), 0.2
    averaged = (1 - flip) * loss(TENSOR) + flip * loss(-TENSOR)
    torch.testing.assert_close(averaged, Sigmoid()(TENSOR))


def test_cdpo_is_least_where_the_margin_is_the_log_odds_of_a_right_label():
    grid = torch.linspace(-6, 6, 24001, dtype=torch.float64)
    assert float(grid[ConservativeDPO(0.2)(grid).argmin()]) == pytest.approx(np.log(0.8 / 0.2), abs=1e-3)


def test_ipo_is_least_at_half_whatever_beta():
    grid = torch.linspace(-2, 2, 4001, dtype=torch.float64)
    for beta in (0.05, 1.0):
        assert float(grid[IPO(beta)(grid).argmin()]) == pytest.approx(0.5, abs=1e-3)


def test_dpo_margin_is_the_scaled_difference_of_log_ratios():
    policy, reference = torch.tensor([-3.0, -8.0, -5.0, -9.0]), torch.tensor([-4.0, -7.0, -5.0, -6.0])
    torch.testing.assert_close(dpo_margins(policy, reference, beta=0.5), torch.tensor([0.5 * 1.0, 0.5 * 2.0]))


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (
            "unheard",
            "unknown loss 'unheard'; the known ones are: sigmoid, ipo, hinge, cdpo:FLIP, rdpo:FLIP, robust:FLIP",
        ),
        ("aot", "sorts the log-ratios of a batch"),
        ("kto", "estimated over the batch, .* take apo_zero"),
        ("sigmoyd", "unknown loss 'sigmoyd', did you mean 'sigmoid'"),
        ("sigmoid:", "unknown loss"),
        ("cdpo", "lacks its flip; write for example 'cdpo:0.1'"),
        ("rdpo:x", "has 'x' where a number belongs, as in 'rdpo:0.1'"),
        ("cdpo:0.1,beta=1", "has the option 'beta=1', but takes none"),
        ("cdpo:0.5", r"\[0, 0.5\)"),
        ("wdpo:-1", "at least 0"),
        ("ipo:1", "unknown loss"),
    ],
)
def test_wrong_losses_are_refused(spec, said):
    with pytest.raises(ValueError, match=said):
        parse_pair_loss(spec, beta=0.1)


def test_dr_dpo_weights_are_the_gradient_of_its_objective():
    losses = LOSSES.clone().requires_grad_()
    (-0.7 * torch.log(torch.exp(-losses / 0.7).mean())).backward()
    torch.testing.assert_close(reweighted(DrDPO(0.7), LOSSES), losses.grad)


def test_dr_dpo_does_not_overflow_where_its_public_code_does():
    weights = reweighted(DrDPO(0.1), torch.tensor([20.0, 90.0, 20.0]))
    torch.testing.assert_close(weights, torch.tensor([0.5, 0.0, 0.5]))


def test_kldpo_weights_grow_with_the_losses_and_sum_to_one():
    rule = parse_reweighting("kldpo:0.5")
    np.testing.assert_allclose(reweighted(rule, LOSSES).numpy(), softmax(LOSSES.numpy() / 0.5), rtol=1e-12)


@pytest.mark.parametrize("spec", ["dr_dpo:0.5", "gr_dpo:0.1,by=source"])
def test_rules_give_absent_examples_nothing_and_follow_the_masses(spec):
    """A padded rank's rows have zero mass; one example split in two with its mass shared changes nothing."""
    rule = parse_reweighting(spec).bind({"source": ["a", "b", "b", "a", "b"]})
    masses = torch.tensor([0.25, 0.25, 0.0, 0.25, 0.25], dtype=torch.float64)
    weights = reweighted(rule, LOSSES, reference=masses)
    assert weights[2] == 0
    assert float(weights.sum()) == pytest.approx(1)
    fresh = parse_reweighting(spec).bind({"source": ["a", "b", "b", "a", "b"]})
    present = torch.tensor([0, 1, 3, 4])
    torch.testing.assert_close(weights[present], reweighted(fresh.take(present.numpy()), LOSSES[present]))


def test_group_ascent_is_exponentiated_gradient_on_group_means(tmp_path):
    rule = GroupAscent(0.5, "source").bind({"source": ["a", "b", "a", "c"]})
    log_weights = np.log(np.full(3, 1 / 3))
    for losses, rows in (([1.0, 3.0, 2.0], [0, 1, 2]), ([0.5, 4.0], [1, 3])):
        groups = np.array([0, 1, 0, 2])[rows]
        means = np.array([np.mean(np.array(losses)[groups == g]) if (groups == g).any() else 0.0 for g in range(3)])
        log_weights = log_weights + 0.5 * means
        log_weights -= np.log(np.exp(log_weights).sum())
        shares = np.array([np.exp(log_weights[g]) / np.sum(groups == g) for g in groups])
        here, asked = rule.take(np.array(rows)), torch.tensor(losses, dtype=torch.float64)
        for _ in range(2):  # asking changes nothing
            np.testing.assert_allclose(reweighted(here, asked).numpy(), shares / shares.sum(), rtol=1e-12)
        advance(here, asked)
        np.testing.assert_allclose(rule.log_weights, log_weights, rtol=1e-12)
    rule.save(tmp_path)
    other = GroupAscent(0.5, "source").bind({"source": ["a", "b", "a", "c"]})
    other.load(tmp_path)
    np.testing.assert_array_equal(other.log_weights, rule.log_weights)


def test_a_batch_without_the_dominant_group_still_gets_weights():
    rule = GroupAscent(0.5, "source").bind({"source": ["a", "b", "b"]})
    rule.log_weights[:] = [0.0, -2000.0]
    weights = reweighted(rule.take(np.array([1, 2])), torch.tensor([1.0, 2.0]))
    torch.testing.assert_close(weights, torch.tensor([0.5, 0.5]))


def test_rules_of_strength_zero_in_the_limit_are_uniform():
    for spec in ("dr_dpo:0.5", "kldpo:0.5", "gr_dpo:0.5,by=source"):
        rule = parse_reweighting(spec).bind({"source": list("ababa")})
        weights = reweighted(rule.with_strength(1e-9), LOSSES)
        expected = [1 / 6, 1 / 4, 1 / 6, 1 / 4, 1 / 6] if spec.startswith("gr_dpo") else [0.2] * 5
        np.testing.assert_allclose(weights.numpy(), expected, rtol=1e-6)


def test_group_rule_by_an_unknown_column_is_refused():
    with pytest.raises(ValueError, match="the columns are: source"):
        parse_reweighting("gr_dpo:0.1,by=language").bind({"source": ["a"]})


@pytest.mark.parametrize("outer", ["", "micro:2:", "shuffled:"])
def test_the_state_inside_a_rule_is_found_and_goes_on_from_a_file(outer, tmp_path):
    losses, columns = torch.tensor([0.1, 2.0, 0.3, 1.0]), {"source": ["a", "b", "a", "c"]}
    rules = [parse_reweighting(f"{outer}gr_dpo:0.5,by=source").bind(columns) for _ in range(2)]
    state, other = map(state_of, rules)
    advance(rules[0].with_strength(0.5).take(np.arange(4)), losses)
    assert np.ptp(state.log_weights) > 0
    state.save(tmp_path)
    other.load(tmp_path)
    assert np.array_equal(other.log_weights, state.log_weights)
    assert state_of(parse_reweighting("tv:0.2,by=source")) is None
    assert state_of(parse_reweighting("shuffled:tv:0.2")) is None
