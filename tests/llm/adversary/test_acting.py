"""An adversary acts on differences that are there, or the run is refused."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from bigram import bigram
from bigram import trainer as policy_trainer
from robust_trainers import Gradients, arguments, seen_rows, trainer_for
from test_dpo import BETA, full_gradient
from test_dpo import begin as begin_dpo
from transformers import TrainingArguments

from dro_core import parse_ambiguity
from llm.adversary.effective_batch import EffectiveBatch, batch_weights
from llm.adversary.equal_losses import Accuracy, log_ratio_rounding, rounding_of, sharing_equals
from llm.adversary.inaction import bound, check_losses, check_reached
from llm.adversary.schedule import RadiusSchedule
from llm.adversary.spec import parse_reweighting
from llm.data.corpus.corpus import generate
from llm.data.pairs import write_pairs
from llm.kinds.reward import RewardTrainer
from llm.policy.prompt_weights import prompt_multipliers
from llm.policy.setup import value_accuracy
from llm.sweep.heads import HeadData, HeadTraining, train_head
from llm.training.losses import IPO, Sigmoid
from robust_rlhf import main

SINGLE = Accuracy(rounding_of(torch.float32))
COLUMNS = {"source": ["a", "b"] * 8, "category": ["one"] * 16, "nameless": ["unknown"] * 16}
SPECS = [
    "tv:0.4", "tv:0.4,max_ratio=3", "cvar:0.3", "chi2:0.5", "kl:0.3", "hellinger:0.2", "cressie_read:0.5,order=1.5",
    "spectral:0.1/0.3/0.6", "kl_penalty:1e-6", "chi2_penalty:1e-6", "tv:0.4,by=source", "cvar:0.5,by=source",
    "kl:0.3,trim=0.2", "dr_dpo:1e-6", "kldpo:1e-6", "gr_dpo:1000000,by=source", "hardest:0.1,factor=4",
    "micro:4:tv:0.4", "shuffled:tv:0.4",
]  # fmt: skip


def batch_of(losses, *, padded=False):
    present = torch.ones_like(losses)
    return EffectiveBatch(losses, torch.arange(len(losses)), present, slice(0, len(losses)), padded=padded)


# Equal losses


def greedily(values, accuracy):
    """From the smallest on, one by one."""
    order, found = np.argsort(values, kind="stable"), np.array(values, dtype=float)
    while len(order):
        lead = values[order[0]]
        group = [i for i in order if values[i] <= lead + accuracy * max(1.0, abs(lead))]
        found[group], order = np.mean(values[group]), order[len(group) :]
    return found


@pytest.mark.parametrize("seed", range(40))
def test_what_is_closer_than_its_accuracy_shares_its_mean(seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=rng.integers(1, 40)) * 10 ** rng.uniform(-3, 1)
    accuracy = 10 ** rng.uniform(-4, 0)
    shared = sharing_equals(torch.tensor(values), Accuracy(accuracy)).numpy()
    np.testing.assert_allclose(shared, greedily(values, accuracy), rtol=0, atol=1e-14)
    alone = np.diff(np.unique(values), prepend=-np.inf, append=np.inf)
    far = np.isin(values, np.unique(values)[(alone[1:] > 1.1 * accuracy * 40) & (alone[:-1] > 1.1 * accuracy * 40)])
    assert np.array_equal(shared[far], values[far])
    order = rng.permutation(len(values))
    assert np.array_equal(sharing_equals(torch.tensor(values[order]), Accuracy(accuracy)).numpy(), shared[order])


def test_padding_takes_no_part_in_a_mean():
    shared = sharing_equals(torch.tensor([0.0, 1e-7, 3e-7]), SINGLE, torch.tensor([False, True, True]))
    torch.testing.assert_close(shared, torch.tensor([0.0, 2e-7, 2e-7]), rtol=1e-6, atol=0)


def test_small_logistic_losses_are_known_better_than_rounding_of_one():
    losses = torch.tensor([1e-9, 2e-9, 1e-7, 0.7, 0.7000003])
    assert torch.equal(sharing_equals(losses, Accuracy(SINGLE.absolute, logistic=True))[:3], losses[:3])
    assert len(sharing_equals(losses, Accuracy(SINGLE.absolute, logistic=True)).unique()) == 4
    assert len(sharing_equals(losses, SINGLE).unique()) == 2


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("padded", [False, True])
def test_no_set_or_rule_acts_on_rounding(spec, padded):
    """The first step of DPO: every loss is log 2, up to 4e-7."""
    noise = torch.randn(16, generator=torch.Generator().manual_seed(1))
    batch = batch_of(0.6931472 + 2e-7 * noise, padded=padded)
    rule = parse_reweighting(spec)
    weights = batch.weights(rule.bind(COLUMNS), 1.0, accuracy=SINGLE)
    torch.testing.assert_close(16 * weights, torch.ones(16), rtol=0, atol=1e-5)
    apart = batch_of(torch.linspace(0, 3, 16)).weights(rule.bind(COLUMNS), 1.0, accuracy=SINGLE)
    assert float((16 * apart - 1).abs().max()) > 0.01  # it does act on what is there


def test_values_of_prompts_are_shared_too():
    losses, rule = (
        0.6931472 + 2e-7 * torch.randn(16, generator=torch.Generator().manual_seed(1)),
        parse_ambiguity("tv:0.4"),
    )
    returns = losses.double()[:, None].expand(16, 2)
    assert torch.equal(prompt_multipliers(returns, rule, accuracy=SINGLE), torch.ones_like(returns))
    assert float(prompt_multipliers(returns, rule).max()) > 2


def test_a_log_ratio_is_known_as_well_as_its_sums():
    """Two sums of the same numbers in different orders, and what float32 makes of their difference."""
    rng = np.random.default_rng(0)
    for tokens in (20, 200, 2000):
        logps = torch.tensor(-rng.exponential(4.0, (64, tokens)), dtype=torch.float32)
        apart = (logps.sum(1) - logps.flip(1).cumsum(1)[:, -1]).abs().max()
        assert 0 < float(apart) <= log_ratio_rounding(torch.float32, tokens=tokens)
    assert log_ratio_rounding(torch.float32, tokens=2000) < 5e-3  # and no more than what would hide a signal


class Rounding(RewardTrainer):
    """Every pair has the loss log 2 and its gradient, up to noise that is another one at every look."""

    noise = torch.Generator().manual_seed(0)

    def example_losses(self, model, inputs):
        losses = super().example_losses(model, inputs)
        return losses - losses.detach() + 0.6931472 + 2e-7 * torch.randn(len(losses), generator=self.noise)


@pytest.mark.parametrize(("micro", "steps", "passes"), [(16, 1, "auto"), (16, 1, "two"), (4, 4, "two")])
def test_a_trainer_does_not_weigh_rounding(start, tmp_path, micro, steps, passes):
    args = arguments(tmp_path, micro=micro, steps=steps)
    trainer = trainer_for(start, args, "tv:0.4", kind=Rounding, passes=passes)
    trainer.train()
    np.testing.assert_allclose(trainer.ledger.multiplier_sum[seen_rows(trainer)], 1.0, atol=1e-5)
    assert (trainer.ledger.looks > 0, trainer.ledger.acted) == (True, False)


def test_the_accuracy_of_a_dpo_loss_follows_precision_tokens_and_slope():
    from llm.training.losses import dpo_accuracy

    logistic = Accuracy(SINGLE.absolute, logistic=True)
    told = {"beta": 0.1, "precision": torch.float32}
    short, long = (dpo_accuracy(logistic, Sigmoid(), tokens=tokens, **told).absolute for tokens in (10, 4000))
    assert short == SINGLE.absolute < long
    assert dpo_accuracy(SINGLE, IPO(0.1), tokens=4000, **told).absolute == pytest.approx(100 * long, rel=1e-5)
    half = dpo_accuracy(logistic, Sigmoid(), tokens=10, beta=0.1, precision=torch.bfloat16).absolute
    assert half > 100 * short


def test_dpo_at_its_start_takes_the_plain_step(tmp_path):
    """Its reference is its start: margins of 0, and the gradient of the mean whatever the set."""
    from llm.kinds.dpo import DPOTrainer
    from llm.text.batches import PairCollator

    policy, _, tokenizer, data = begin_dpo()

    class Noisy(DPOTrainer):
        def margins(self, model, inputs):
            return super().margins(model, inputs) + 4e-7 * torch.randn(len(inputs["index"]))

    trainer = Noisy(
        model=copy.deepcopy(policy), args=arguments(tmp_path), train_dataset=data,
        data_collator=PairCollator(tokenizer), ambiguity=parse_ambiguity("tv:0.4"), beta=BETA, pair_loss=Sigmoid(),
        reference=copy.deepcopy(policy), callbacks=[gradients := Gradients()],
    )  # fmt: skip
    trainer.train()
    plain = full_gradient((policy, policy, tokenizer, data), seen_rows(trainer), "erm")
    assert float((gradients.first - plain).norm() / plain.norm()) <= 1e-4
    assert not trainer.ledger.acted


# Refused before the start


@pytest.mark.parametrize(
    ("spec", "batch", "message"),
    [
        ("tv:0.2,by=category", 16, r"column category, and all training examples are of one \(one\)"),
        ("tv:0.2,by=nameless", 16, "column nameless, which the training data do not have"),
        ("kl:0.2,by=category,trim=0.1", 16, "column category"),
        ("kl:0.2,trim=0.1,by=category", 16, "column category"),
        ("gr_dpo:0.1,by=category", 16, "column category"),
        ("shuffled:tv:0.2,by=category", 16, "column category"),
        ("micro:4:tv:0.2,by=category", 16, "column category"),
        ("balanced:by=category", 16, "column category"),
        ("permuted_groups:tv:0.2,by=category", 16, "column category"),
        ("tv:0.2,by=category*nameless", 16, r"column category\*nameless, and all training examples are of one"),
        ("tv:0.2,by=source*topic/3", 16, "names the column 'topic'; the columns are: category, nameless, source"),
        ("shuffled:tv:0.2,within=topic", 16, "names the column 'topic'"),
        ("tv:0.2,by=source/2", 16, "source cannot be cut into bins, for it holds no numbers, 'a' for example"),
        ("tv:0.2", 1, "a batch of 1 leaves the adversary nothing to choose: raise per_device_train_batch_size"),
        ("dr_dpo:1", 1, "a batch of 1"),
        ("micro:1:tv:0.2", 16, "a batch of 1"),
        ("tv:0.2,by=language", 16, "names the column 'language'; the columns are"),
    ],
)
def test_an_adversary_that_cannot_act_is_refused(spec, batch, message):
    with pytest.raises(ValueError, match=message):
        bound(parse_reweighting(spec), COLUMNS, batch=batch)


def test_labels_that_are_given_count_as_well():
    with pytest.raises(ValueError, match="column given"):
        bound(parse_reweighting("tv:0.2,by=category").bind(COLUMNS), {}, batch=16)
    assert bound(None, {}, batch=1) is None
    assert bound(parse_reweighting("tv:0.2,by=source"), COLUMNS, batch=2) is not None


def test_trainers_heads_and_policies_refuse_alike(start, tmp_path):
    with pytest.raises(ValueError, match="a batch of 1"):
        trainer_for(start, arguments(tmp_path, micro=1, steps=1), "tv:0.2")
    data = HeadData(np.eye(8), {"source": ["a"] * 8}, np.zeros((0, 8)), np.array([]))
    told = {"learning_rate": 0.1, "epochs": 1, "seed": 0}
    with pytest.raises(ValueError, match="of one"):
        train_head(data, parse_reweighting("tv:0.2,by=source"), HeadTraining(), batch_size=4, **told)
    with pytest.raises(ValueError, match="raise batch_size"):
        train_head(data, parse_reweighting("tv:0.2"), HeadTraining(), batch_size=1, **told)
    policy = {"actions": 3, "samples": 2}
    for rule, more, message in [
        ("tv:0.2,by=category", {}, "category, which the training data do not have"),
        ("tv:0.2", {"prompts_per_step": 1}, "raise prompts_per_step"),
        ("tv:0.2", {"plain_share": 1.0}, "no step of"),
        ("erm", {"arguments": {"neftune_noise_alpha": 5.0}}, "neftune_noise_alpha does nothing"),
    ]:
        with pytest.raises(ValueError, match=message):
            policy_trainer(bigram(4, 3), np.ones((4, 3)), tmp_path, ambiguity=rule, **policy, **more)


def test_a_schedule_without_robust_steps_is_refused():
    rule = parse_ambiguity("tv:0.2")
    for share, steps in ((1.0, 100), (0.4, 1), (0.95, 10)):
        with pytest.raises(ValueError, match=f"leaves the adversary no step of {steps}: lower it"):
            check_reached(rule, RadiusSchedule(plain_share=share), steps)
    for share, steps in ((0.4, 2), (0.9, 10), (0.0, 1)):
        check_reached(rule, RadiusSchedule(plain_share=share), steps)
    check_reached(None, RadiusSchedule(plain_share=1.0), 100)


def test_embedding_noise_is_refused_where_two_passes_would_disagree(start, tmp_path):
    noisy = {"neftune_noise_alpha": 5.0}
    with pytest.raises(ValueError, match="another noise than the one trained on"):
        trainer_for(start, arguments(tmp_path, **noisy), "tv:0.2")
    trainer_for(start, arguments(tmp_path, micro=16, steps=1, **noisy), "tv:0.2")
    trainer_for(start, arguments(tmp_path, **noisy), "erm")


def test_the_command_refuses_what_cannot_act(tmp_path, capsys):
    pairs = tmp_path / "train.jsonl"
    write_pairs([replace(pair, source="unknown") for pair in generate(24, seed=3)], pairs)
    told = ["train", "reward", "--config", "reward-tiny", "--train_file", str(pairs),
            "--output_dir", str(tmp_path / "run"), "--max_length", "48", "--use_cpu", "true",
            "--per_device_train_batch_size", "4"]  # fmt: skip
    for flags, message in [
        (
            ["--ambiguity", "tv:0.2,by=source"],
            "column source, which the training data do not have: add a source to every",
        ),
        (["--ambiguity", "tv:0.2", "--max_steps", "1"], "plain_share 0.4 leaves the adversary no step of 1"),
    ]:
        assert main([*told, *flags]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "run" / "settings.json").exists()


def test_heads_do_not_weigh_rounding():
    losses = np.log(2) + np.spacing(np.log(2)) * np.arange(16)
    for rule in map(parse_reweighting, ("tv:0.4", "hardest:0.1,factor=4")):
        np.testing.assert_allclose(batch_weights(rule, losses, np.arange(16), strength=1.0), 1 / 16, rtol=1e-12)


def test_the_value_of_a_prompt_is_known_to_rounding_of_score_and_kl(tmp_path):
    args, level = TrainingArguments(output_dir=str(tmp_path), use_cpu=True), np.log(np.full((4, 3), 1 / 3))
    told = {"actions": 3, "samples": 2, "ambiguity": "tv:0.4", "kl_coefficient": 0.5}
    subject = policy_trainer(bigram(4, 3, level), np.ones((4, 3)), tmp_path, **told)
    subject.take_step()  # every answer scores the same
    assert (subject.ledger.looks, subject.ledger.acted) == (1, False)
    assert subject.objective.accuracy == value_accuracy(subject.config, args, subject.core.policy)
    assert value_accuracy(subject.config, args, subject.core.policy).absolute >= rounding_of(torch.float32)


def test_a_probability_is_read_out_of_no_other_loss(tmp_path, capsys):
    """In a rule inside another one, too; every kind of run says so before it starts."""
    for spec in ("focal:2", "shuffled:focal:2"):
        check_losses(parse_reweighting(spec), logistic=True)
        with pytest.raises(ValueError, match="another rule"):
            check_losses(parse_reweighting(spec), logistic=False)
    check_losses(parse_reweighting("hardest:0.1,factor=4"), logistic=False)
    pairs, told = tmp_path / "pairs.jsonl", {"actions": 3, "samples": 2, "ambiguity": "focal:2"}
    write_pairs(generate(16, seed=1), pairs)
    flags = (
        f"--train_file {pairs} --output_dir {tmp_path}/run --use_cpu true --model tiny --per_device_train_batch_size 8"
    )
    for kind, more in (("dpo", ["--loss", "ipo"]), ("sft", [])):
        assert main(["train", kind, *flags.split(), *more, "--ambiguity", "focal:2"]) == 2
        assert "the losses here are not -log sigmoid(margin)" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(ValueError, match="another rule"):
        policy_trainer(bigram(4, 3, np.zeros((4, 3))), np.ones((4, 3)), tmp_path, **told)
