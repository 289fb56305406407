"""Weightings of prompts as rules: reference, padding, strength, memory over steps and checkpoints, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bigram import bigram
from bigram import trainer as policy_trainer
from test_weightings import ALL

from llm.adversary.adversary import Adversary
from llm.adversary.effective_batch import EffectiveBatch
from llm.adversary.inaction import bound, check_losses
from llm.adversary.rules import reweighted, state_of
from llm.adversary.spec import parse_reweighting
from llm.adversary.weightings.rule import WEIGHTINGS

SPECS = {
    "rs_grpo": "rs_grpo:2",
    "pass_at_k": "pass_at_k:8",
    "entropic": "entropic:0.3",
    "difficulty_band": "difficulty_band,low=0.25,high=0.75",
}
SPECS = {name: SPECS.get(name, name) for name in ALL}
MEMORIES = ["curverl", "gdro,bins=3"]  # with ten bins a bin holds one share of eight answers, and its mean stays
PROMPTS = 6


def rates(seed, steps=1, prompts=PROMPTS):
    return np.random.default_rng(seed).binomial(8, 0.5, (steps, prompts)) / 8


def batch(values, present=None):
    losses = -torch.from_numpy(values)
    there = torch.ones_like(losses) if present is None else torch.from_numpy(present).to(losses)
    return EffectiveBatch(losses, torch.arange(len(losses)), there, slice(0, len(losses)), padded=present is not None)


def adversary(spec, examples=PROMPTS):
    return Adversary(bound(parse_reweighting(spec), {}, batch=PROMPTS), examples)


def weigh(subject, shown, *, strength=1.0):
    return subject.weigh(shown, step=0, strength=strength, accuracy=None)


def test_every_weighting_has_a_name_and_every_name_is_tested():
    assert set(ALL) == set(WEIGHTINGS)
    assert {spec.split(",")[0] for spec in MEMORIES} == {name for name, known in WEIGHTINGS.items() if known.remembers}


@pytest.mark.parametrize("name", ALL)
def test_a_rule_weighs_as_its_formula_from_the_reference_and_towards_it(name):
    """Over four steps; padding counts nowhere, in histories neither; at half strength half of the way."""
    full, half, plain = (adversary(SPECS[name], PROMPTS + 2) for _ in range(3))
    masses = np.random.default_rng(1).dirichlet(np.ones(PROMPTS))
    state = None
    for step in rates(0, steps=4):
        padded = batch(np.append(step, [0.0, 0.0]), np.append(np.ones(PROMPTS), [0, 0]))
        state, wanted = ALL[name](state, torch.from_numpy(step))
        asked = reweighted(plain.rule, -torch.from_numpy(step), reference=torch.from_numpy(masses))
        tilted = wanted * torch.from_numpy(masses)
        torch.testing.assert_close(asked, tilted / tilted.sum())
        weigh(plain, batch(step))
        wanted = torch.nn.functional.pad(wanted, (0, 2))
        torch.testing.assert_close(weigh(full, padded), wanted)
        torch.testing.assert_close(weigh(half, padded, strength=0.5), (padded.reference + wanted) / 2)


@pytest.mark.parametrize("outer", ["", "shuffled:", "running:0.5:"])
@pytest.mark.parametrize("spec", MEMORIES)
def test_a_memory_moves_with_steps_alone_and_goes_on_after_a_checkpoint(spec, outer, tmp_path):
    whole, first, second = (adversary(outer + spec) for _ in range(3))
    steps = [batch(step) for step in rates(2, steps=6)]
    wanted = [weigh(whole, step) for step in steps]
    for step in steps[:3]:
        asked = step.weights(first.rule, 1.0)  # as often as one likes
        assert torch.equal(step.weights(first.rule, 1.0), asked)
        assert torch.equal(weigh(first, step), asked)
        weigh(first, steps[5], strength=0.0)  # a plain step
    first.save(tmp_path)
    second.load(tmp_path)
    for found, step in zip(wanted[3:], steps[3:], strict=True):
        assert torch.equal(weigh(second, step), found)
    fresh = adversary(outer + spec)
    assert not torch.equal(weigh(fresh, steps[3]), wanted[3])  # there was something to remember
    assert torch.equal(weigh(Adversary(whole.rule.bind({}), PROMPTS), steps[0]), wanted[0])  # a run of its own


def test_a_checkpoint_before_the_first_step_is_the_beginning(tmp_path):
    subject = adversary("running:0.9:gdro")
    subject.save(tmp_path)
    weigh(subject, batch(rates(3)[0]))
    assert state_of(subject.rule).memory.state is not None
    subject.load(tmp_path)
    assert state_of(subject.rule).memory.state is None


@pytest.mark.parametrize("name", ALL)
def test_values_that_are_no_shares_are_refused_and_rounding_is_not(name):
    rule = parse_reweighting(SPECS[name])
    for values in ([0.5, 1.2], [-0.1, 0.5]):
        with pytest.raises(ValueError, match=r"share of right answers.*checker") as caught:
            reweighted(rule, -torch.tensor(values))
        assert "\n" not in str(caught.value)
    off = reweighted(rule, -torch.tensor([-1e-7, 0.5, 1 + 1e-6]))
    torch.testing.assert_close(off, reweighted(rule, -torch.tensor([0.0, 0.5, 1.0])))
    padded = torch.tensor([-0.5, 7.0, -1.0]), torch.tensor([0.5, 0.0, 0.5])
    assert reweighted(rule, padded[0], reference=padded[1])[1] == 0  # padding may hold anything


@pytest.mark.parametrize("spec", [*SPECS.values(), "shuffled:maxrl", "micro:2:rs_grpo:2"])
def test_a_share_of_right_answers_is_read_out_of_no_other_loss(spec):
    rule = parse_reweighting(spec)
    check_losses(rule, logistic=False, values=True)
    for told, said in (
        ({"logistic": True, "labels": True}, "not of prompts: train a policy"),
        ({"logistic": False, "values": True, "charged": True}, "adversary_sees to score"),
    ):
        with pytest.raises(ValueError, match=said):
            check_losses(rule, **told)


@pytest.mark.parametrize("spec", ["running:0.9:tv:0.2", "shrunk:4:tv:0.2", "pooled:tv:0.2,by=source"])
def test_estimates_are_of_prompts_and_may_hold_charges(spec):
    rule = parse_reweighting(spec)
    check_losses(rule, logistic=False, values=True, charged=True)
    with pytest.raises(ValueError, match="not of prompts: train a policy"):
        check_losses(rule, logistic=True, labels=True)


CHECKED = {"actions": 3, "samples": 4, "adversary_sees": "score", "kl_in": "loss"}


@pytest.mark.parametrize("spec", [*SPECS.values(), "running:0.9:maxrl", "shrunk:4:tv:0.2", "shrunk:4:running:0.5:gdro"])
def test_a_policy_is_trained_on_it(spec, tmp_path):
    scores = np.array([[0.0, 1.0, 0.0], [1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    subject = policy_trainer(bigram(4, 3, np.zeros((4, 3))), scores, tmp_path, ambiguity=spec, **CHECKED)
    for _ in range(2):
        subject.take_step()
    assert np.isfinite(subject.ledger.multiplier_sum).all()
    np.testing.assert_allclose(subject.ledger.multiplier_sum.sum(), 8)
    assert subject.ledger.acted


@pytest.mark.parametrize(("estimate", "answers"), [("same", 4), ("split", 2)])
def test_a_policy_tells_how_many_answers_a_value_is_of(estimate, answers, tmp_path):
    told = CHECKED | {"ambiguity": "shuffled:shrunk:4:tv:0.2", "adversary_estimate": estimate}
    subject = policy_trainer(bigram(4, 3, np.zeros((4, 3))), np.ones((4, 3)), tmp_path, **told)
    assert subject.adversary.rule.inner.answers == answers


@pytest.mark.parametrize("told", [{"adversary_sees": "return", "kl_coefficient": 0.1}, {"missing_end_penalty": 1.0}])
def test_a_policy_with_more_than_a_score_in_its_values_is_refused_before_it_starts(told, tmp_path):
    made = bigram(4, 3, np.zeros((4, 3)))
    with pytest.raises(ValueError, match="hold a charge beside the score"):
        policy_trainer(made, np.ones((4, 3)), tmp_path, ambiguity="maxrl", **CHECKED | told)
