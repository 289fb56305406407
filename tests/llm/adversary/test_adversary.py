"""One adversary, whoever holds it: the same weights for the same losses, asked without a trace, resumed as it was."""

from __future__ import annotations

import bigram
import numpy as np
import pytest
import tiny_trl
import torch
import trl
from robust_trainers import arguments, trainer_for

import llm.trl as robust_trl
from dro_core import KL, AmbiguitySet, worst_case
from llm.adversary.adversary import Adversary
from llm.adversary.effective_batch import EffectiveBatch, batch_weights
from llm.adversary.inaction import bound
from llm.adversary.rules import reweighted, state_of
from llm.adversary.schedule import AdaptiveStrength, RadiusSchedule
from llm.adversary.spec import parse_reweighting
from llm.policy.experience import Experience
from llm.sweep.heads import HeadData, HeadTraining, train_head

EXHAUSTIVE = pytest.mark.exhaustive
RULES = [
    "erm",
    "tv:0.3",
    pytest.param("cvar:0.3", marks=EXHAUSTIVE),
    pytest.param("chi2:0.5", marks=EXHAUSTIVE),
    pytest.param("kl:0.3", marks=EXHAUSTIVE),
    "tv:0.3,by=source",
    "tv:0.4,trim=0.2",
    "dr_dpo:1",
    pytest.param("kldpo:1", marks=EXHAUSTIVE),
    "gr_dpo:0.7,by=source",
    "balanced:by=source",
    pytest.param("permuted_groups:tv:0.3,by=source", marks=EXHAUSTIVE),
    "permuted_groups:gr_dpo:0.7,by=source",
    "random:0.4",
    "hardest:0.3,factor=4",
    "focal:2",
    "shuffled:tv:0.3",
    pytest.param("shuffled:tv:0.3,within=source", marks=EXHAUSTIVE),
    pytest.param("shuffled:gr_dpo:0.7,by=source", marks=EXHAUSTIVE),
    "micro:4:tv:0.3",
    "micro:4:gr_dpo:0.7,by=source",
    "wasserstein:0.1",
    pytest.param("mmd:0.2", marks=EXHAUSTIVE),
]
OF_PROMPTS = ["running:0.7:tv:0.3", "pooled:running:0.7:gr_dpo:0.7,by=source,by=source"]
LOSSES = np.array([0.25, 1.5, 0.75, 2.0, 0.125, 1.0, 0.5, 3.0])  # exact in float32, so that hashes of them agree
ROWS, EXAMPLES, SAMPLES = np.array([5, 2, 7, 0, 10, 3, 11, 8]), 12, 2
COLUMNS = {
    "source": list("abcabcabcabc"),
    "prompt_embedding": np.random.default_rng(0).normal(size=(EXAMPLES, 5)),
}


def adversary_of(spec, *, weakly=False, seed=0):
    made = Adversary(bound(parse_reweighting(spec), COLUMNS, batch=len(ROWS), seed=seed), EXAMPLES)
    made.adaptive = AdaptiveStrength() if weakly else None  # begins at a quarter
    return made


def batch():
    losses = torch.tensor(LOSSES, dtype=torch.float32)
    return EffectiveBatch(losses, torch.tensor(ROWS), torch.ones(8), slice(0, 8), padded=False)


def pairs(start, folder):
    trainer = trainer_for(start, arguments(folder), "tv:0.2")
    here = batch()
    present = here.present > 0
    return trainer, lambda: trainer._window_weights(here.losses[present], here.index[present])


def trl_pairs(start, folder):
    del start
    tiny = tiny_trl.build(folder)
    given = {"args": tiny_trl.arguments(trl.RewardConfig, folder), "processing_class": tiny.tokenizer}
    trainer = robust_trl.RobustRewardTrainer(model=tiny.reward, train_dataset=tiny.data, ambiguity="tv:0.2", **given)
    return trainer, lambda: trainer._solved(batch())


def trl_online(start, folder):
    del start
    tiny = tiny_trl.build(folder)
    args = tiny_trl.arguments(
        trl.GRPOConfig, folder, micro=4, num_generations=SAMPLES, max_completion_length=8, loss_type="grpo"
    )
    trainer = robust_trl.RobustGRPOTrainer(
        model=tiny.causal, args=args, train_dataset=tiny.data, processing_class=tiny.tokenizer,
        reward_funcs=lambda **kwargs: None, ambiguity="tv:0.2",
    )  # fmt: skip

    def ask():
        trainer._seen_rewards = -torch.tensor(LOSSES).repeat_interleave(SAMPLES)[:, None]
        trainer._multipliers(torch.tensor(ROWS))

    return trainer, ask


def policy(start, folder):
    del start
    model = bigram.bigram(EXAMPLES, 3, np.log(np.full((EXAMPLES, 3), 1 / 3)))
    trainer = bigram.trainer(model, np.ones((EXAMPLES, 3)), folder, actions=3, samples=SAMPLES, ambiguity="tv:0.2")
    scores = -torch.tensor(LOSSES).repeat_interleave(SAMPLES)
    flat = torch.zeros(len(scores), 1, dtype=torch.float64)
    known = Experience(scores, torch.ones(len(scores)).bool(), torch.ones(len(scores)).long(), flat, flat, flat)
    return trainer, lambda: trainer.weigh(known, ROWS)


HOLDERS = {"pairs": pairs, "trl pairs": trl_pairs, "trl online": trl_online, "policy": policy}


@pytest.fixture(scope="module")
def holders(start, tmp_path_factory):
    return {name: make(start, tmp_path_factory.mktemp("holder")) for name, make in HOLDERS.items()}


def expected(spec, *, steps, strength):
    """n q of the rows after so many steps with the same losses, in float64: of a set by its solver."""
    rule = parse_reweighting(spec)
    if rule is None:
        return np.full(len(ROWS), float(steps))
    weak, losses = rule.bind(COLUMNS).with_strength(strength).take(ROWS), torch.tensor(LOSSES)
    if isinstance(weak, AmbiguitySet):
        return steps * len(ROWS) * worst_case(LOSSES, weak).weights
    total = np.zeros(len(ROWS))
    for _ in range(steps):
        total += len(ROWS) * reweighted(weak, losses).numpy()
        if state_of(weak) is not None:
            weak.advance(losses, torch.full_like(losses, 1 / len(losses)))
    return total


@pytest.mark.parametrize("weakly", [False, True])
@pytest.mark.parametrize("spec", [*RULES, *OF_PROMPTS])
@pytest.mark.parametrize("name", HOLDERS)
def test_every_holder_gives_every_rule_the_same_weights(holders, name, spec, weakly):
    """Two steps with the same losses, which a rule with a state sees; the account has them all."""
    holder, ask = holders[name]
    holder.adversary = adversary_of(spec, weakly=weakly)
    for _ in range(2):
        ask()
    ledger, wanted = holder.adversary.ledger, expected(spec, steps=2, strength=0.25 if weakly else 1.0)
    np.testing.assert_allclose(ledger.multiplier_sum[ROWS], wanted, rtol=2e-5, atol=2e-6)
    assert ledger.visits.sum() == 2 * len(ROWS)
    np.testing.assert_array_equal(ledger.last_loss[ROWS], LOSSES)
    assert ledger.acted is (spec != "erm")


@pytest.mark.parametrize("weakly", [False, True])
@pytest.mark.parametrize("spec", RULES)
def test_a_head_asks_the_same_adversary(spec, weakly):
    """Its losses are its own, in float64; three batches in the order that it draws, at weights that stay."""
    differences = np.random.default_rng(3).normal(size=(EXAMPLES, 3))
    validation = (differences, np.array(COLUMNS["source"])) if weakly else (differences[:0], np.array([], dtype=str))
    run = train_head(
        HeadData(differences, COLUMNS, *validation), parse_reweighting(spec), HeadTraining(init_scale=1.0, checks=1),
        batch_size=EXAMPLES, learning_rate=0.0, epochs=3, seed=4, adaptive=weakly,
    )  # fmt: skip
    fresh, rng, found = adversary_of(spec, weakly=weakly, seed=4), np.random.default_rng([4, 3]), np.zeros(EXAMPLES)
    for _ in range(3):
        order = rng.permutation(EXAMPLES)
        losses = torch.tensor(run.ledger.last_loss[order])
        same = EffectiveBatch(losses, torch.tensor(order), torch.ones(EXAMPLES), slice(0, EXAMPLES), padded=False)
        weights = fresh.weigh(same, step=0, strength=fresh.strength(0, 1), accuracy=None)
        found[order] += EXAMPLES * weights.numpy()
    np.testing.assert_allclose(run.ledger.multiplier_sum, found, rtol=1e-7, atol=1e-9)
    assert run.ledger.acted is (spec not in ("erm", "balanced:by=source"))  # three groups of four are balanced


@pytest.mark.parametrize("outer", ["", "micro:4:", "shuffled:"])
def test_asking_leaves_no_trace_and_a_step_does(outer):
    subject = adversary_of(f"{outer}gr_dpo:0.7,by=source")
    state = state_of(subject.rule)
    before = state.log_weights.copy()
    for strength in (1.0, 0.5, 1.0):
        batch().weights(subject.rule, strength)
        batch_weights(subject.rule, LOSSES, ROWS, strength=strength)
    np.testing.assert_array_equal(state.log_weights, before)
    asked = batch().weights(subject.rule, 1.0)
    assert torch.equal(subject.weigh(batch(), step=0, strength=1.0, accuracy=None), asked)
    assert np.abs(state.log_weights - before).max() > 0.1
    after = state.log_weights.copy()
    subject.weigh(batch(), step=1, strength=0.0, accuracy=None)  # the plain phase
    np.testing.assert_array_equal(state.log_weights, after)


@pytest.mark.parametrize("spec", ["tv:0.3", "micro:4:gr_dpo:0.7,by=source"])
def test_what_is_saved_goes_on_as_if_nothing_had_happened(spec, tmp_path):
    whole, first, second = (adversary_of(spec, weakly=True) for _ in range(3))
    for part in (whole, first):
        part.weigh(batch(), step=0, strength=part.strength(0, 4), accuracy=None)
        part.adaptive.observe(0.3)
    first.save(tmp_path)
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {"ledger.npz", "adaptive.json"} | ({"groups.npy"} if "gr_dpo" in spec else set())
    second.load(tmp_path)
    assert second.strength(1, 4) == whole.strength(1, 4) == 0.375
    one, other = (part.weigh(batch(), step=1, strength=part.strength(1, 4), accuracy=None) for part in (whole, second))
    assert torch.equal(one, other)
    np.testing.assert_array_equal(whole.ledger.multiplier_sum, second.ledger.multiplier_sum)
    assert (whole.ledger.looks, second.ledger.looks) == (2, 2)


def test_strength_is_that_of_schedule_and_held_out_metric():
    schedule = RadiusSchedule(plain_share=0.25, ramp_share=0.5)
    subject = Adversary(KL(0.1), 0, schedule=schedule)
    assert [subject.strength(step, 8) for step in (0, 1, 2, 4, 7)] == [0.0, 0.0, 0.25, 0.75, 1.0]
    subject.adaptive = AdaptiveStrength(level=0.5)
    assert [subject.strength(step, 8) for step in (1, 4, 7)] == [0.0, 0.375, 0.5]
    assert (subject.at(0.0), subject.at(1.0)) == (None, KL(0.1))
    assert Adversary(None, 0, schedule=schedule).strength(7, 8) == 0.0
