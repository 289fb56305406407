"""TRL's trainers made robust: against plain TRL, and against autograd on losses computed without it."""

from __future__ import annotations

import importlib
import json
import sys

import numpy as np
import peft
import pytest
import torch
import trl
from forked import finished, start_ranks
from tiny_trl import PAIRS, Gradients, arguments, build, flat_gradient, relative_error
from torch.nn.functional import logsigmoid
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    MixtralConfig,
    MixtralForCausalLM,
)

import llm.trl as ours
from dro_core import parse_ambiguity, robust_loss, worst_case
from llm.adversary.schedule import RadiusSchedule
from llm.training.guards import NonFiniteLoss

# TRL still asks by the old name.
pytestmark = pytest.mark.filterwarnings("ignore:`\\w*gradient_checkpointing:FutureWarning")
KINDS = {
    "reward": (ours.RobustRewardTrainer, trl.RewardTrainer, trl.RewardConfig),
    "dpo": (ours.RobustDPOTrainer, trl.DPOTrainer, trl.DPOConfig),
    "grpo": (ours.RobustGRPOTrainer, trl.GRPOTrainer, trl.GRPOConfig),
    "rloo": (ours.RobustRLOOTrainer, trl.RLOOTrainer, trl.RLOOConfig),
}
# TRL computes log-probabilities in float32 whatever the model is in.
ROUNDING = {"reward": 1e-6, "dpo": 2e-6, "grpo": 2e-6, "rloo": 2e-6}
EXHAUSTIVE = pytest.mark.exhaustive
SETS = [("tv:0.2", 4), pytest.param("cvar:0.3", 8, marks=EXHAUSTIVE), ("tv:0.3,by=source", 8)]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return build(tmp_path_factory.mktemp("tiny"))


class Letters:
    """A reward that differs between prompts and between their completions; remembers what it judged."""

    __name__ = "letters"

    def __init__(self):
        self.judged = []

    def __call__(self, prompts, completions, **kwargs):
        seen = list(zip(prompts, completions, strict=True))
        rewards = [sum(map(ord, text)) % 101 / 100 + len(prompt) / 50 for prompt, text in seen]
        self.judged += [(*pair, reward) for pair, reward in zip(seen, rewards, strict=True)]
        return rewards


def trainer_for(tiny, name, folder, ambiguity="plain", *, callbacks=None, schedule=None, extra=None, **kwargs):
    """TRL's own trainer for ``"plain"``, the robust one otherwise."""
    robust, plain, config = KINDS[name]
    online, extra = name in ("grpo", "rloo"), extra or {}
    lora = "peft_config" in extra
    ours_only = {} if ambiguity == "plain" else {"ambiguity": ambiguity, "schedule": schedule}
    if online:
        defaults = {"micro": 4, "steps": 4, "num_generations": 4, "max_completion_length": 8}
        kwargs = defaults | ({"loss_type": "grpo"} if name == "grpo" else {"beta": 0.0}) | kwargs
    return (plain if ambiguity == "plain" else robust)(
        model=kwargs.pop("model", None) or load(tiny, name, **(kwargs.pop("model_config", {}))),
        args=arguments(config, folder, **kwargs),
        train_dataset=tiny.data,
        processing_class=tiny.tokenizer,
        callbacks=callbacks,
        **({"reward_funcs": Letters()} if online else {}),
        **({"ref_model": reference_of(tiny)} if name == "dpo" and not lora else {}),
        **ours_only,
        **extra,
    )


def trained(*args, **kwargs):
    gradients = Gradients()
    trainer = trainer_for(*args, callbacks=[gradients], **kwargs)
    trainer.train()
    return trainer, gradients.steps


def logged(trainer, *names):
    rows = [row for row in trainer.state.log_history if "loss" in row]
    return [[row[name] for name in names] for row in rows]


# -- pairs -----------------------------------------------------------------------------------------


def sequences(tiny, row):
    """Token ids of prompt and answer, for both answers of one pair."""
    prompt = tiny.tokenizer(row["prompt"])["input_ids"]
    both = [tiny.tokenizer(row["prompt"] + row[side] + "[SEP]")["input_ids"] for side in ("chosen", "rejected")]
    shared = min(next(i for i, (a, b) in enumerate(zip([*prompt, -1], ids, strict=False)) if a != b) for ids in both)
    return both, shared


def log_likelihood(model, ids, start):
    logits = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return sum(logits[t - 1, ids[t]] for t in range(start, len(ids)))


def answer_losses(tiny, name, rows, model):
    """The losses of ``rows``, one forward pass per answer, without TRL."""
    reference = reference_of(tiny)
    for row in rows:
        (chosen, rejected), start = sequences(tiny, tiny.data[int(row)])
        if name == "reward":
            margin = model(torch.tensor([chosen])).logits[0, 0] - model(torch.tensor([rejected])).logits[0, 0]
        else:
            sides = [
                log_likelihood(model, ids, start) - log_likelihood(reference, ids, start).detach()
                for ids in (chosen, rejected)
            ]
            margin = 0.1 * (sides[0] - sides[1])
        yield -logsigmoid(margin)


def load(tiny, name, **config):
    """In float64: float32 rounds the difference of two answers to 1e-6 and hides what is tested."""
    kind = AutoModelForSequenceClassification if name == "reward" else AutoModelForCausalLM
    return kind.from_pretrained(tiny.reward if name == "reward" else tiny.causal, dtype=torch.float64, **config)


def reference_of(tiny):
    return AutoModelForCausalLM.from_pretrained(tiny.reference, dtype=torch.float64)


def full_batch_gradient(tiny, name, rows, spec, model=None):
    model = load(tiny, name) if model is None else model
    losses = torch.stack(list(answer_losses(tiny, name, rows, model)))
    assert losses.unique().numel() == len(rows)
    ambiguity = parse_ambiguity(spec)
    if ambiguity is None:
        losses.mean().backward()
    else:
        robust_loss(losses, ambiguity.bind({"source": [PAIRS[i].source for i in rows]})).backward()
    return flat_gradient(model)


def seen(trainer):
    return np.flatnonzero(trainer.ledger.visits)


@pytest.mark.parametrize("name", ["reward", "dpo"])
@pytest.mark.parametrize(("spec", "steps"), SETS)
def test_gradient_is_that_of_the_full_batch(tiny, tmp_path, name, spec, steps):
    trainer, (gradient,) = trained(tiny, name, tmp_path, spec, steps=steps)
    assert len(seen(trainer)) == steps
    assert relative_error(gradient, full_batch_gradient(tiny, name, seen(trainer), spec)) <= ROUNDING[name]


@pytest.mark.parametrize("name", ["reward", "dpo"])
def test_single_examples_are_the_mean_at_a_tiny_radius_and_in_the_plain_phase(tiny, tmp_path, name):
    trainer, (gradient,) = trained(tiny, name, tmp_path, "tv:1e-9")
    expected = full_batch_gradient(tiny, name, seen(trainer), "erm")
    assert relative_error(gradient, expected) <= ROUNDING[name]
    plain_phase, (gradient,) = trained(tiny, name, tmp_path, "tv:0.4", schedule=RadiusSchedule(plain_share=1.0))
    assert relative_error(gradient, expected) <= ROUNDING[name]
    assert logged(plain_phase, "radius_fraction", "zero_share") == [[0.0, 0.0]]


@pytest.mark.parametrize("name", ["reward", "dpo", "grpo", "rloo"])
def test_no_ambiguity_is_trl_step_by_step(tiny, tmp_path, name):
    shape = {"micro": 4, "steps": 2, "max_steps": 3, "max_grad_norm": 1.0}
    plain, _ = trained(tiny, name, tmp_path, **shape)
    robust, _ = trained(tiny, name, tmp_path, None, **shape)
    assert_same_training(robust, plain, steps=3)


def assert_same_training(robust, plain, *, steps):
    losses = [logged(trainer, "loss", "grad_norm") for trainer in (plain, robust)]
    assert len(losses[0]) == steps
    assert losses[0] == losses[1]
    for ours_, theirs in zip(robust.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(ours_, theirs)


@pytest.mark.parametrize(
    ("name", "metrics"),
    [
        ("reward", ["accuracy", "margin", "min_reward", "max_reward", "num_tokens"]),
        ("dpo", ["rewards/accuracies", "rewards/margins", "logps/chosen", "entropy", "num_tokens"]),
    ],
)
def test_metrics_are_those_of_every_example_counted_once(tiny, tmp_path, name, metrics):
    plain, _ = trained(tiny, name, tmp_path, steps=8)
    robust, _ = trained(tiny, name, tmp_path, "tv:0.5", steps=8)
    assert logged(robust, *metrics) == logged(plain, *metrics)
    assert logged(robust, "mean_loss")[0] == pytest.approx(logged(plain, "loss")[0], rel=1e-6)
    losses = robust.ledger.last_loss[seen(robust)]
    assert logged(robust, "loss")[0] == pytest.approx([np.sort(losses)[4:].mean() / 2 + losses.max() / 2], rel=1e-6)
    assert logged(robust, "zero_share") == [[0.5]]


def test_examples_without_weight_are_not_differentiated(tiny, tmp_path):
    passes = []
    trainer = trainer_for(tiny, "reward", tmp_path, "tv:0.5", steps=8)
    trainer.model.register_forward_pre_hook(lambda *_: passes.append(torch.is_grad_enabled()))
    trainer.train()
    assert passes == [False] * 8 + [True] * int((trainer.ledger.multiplier_sum > 0).sum())
    assert len(passes) == 12


def test_last_window_of_one_example_trains_on_that_example(tiny, tmp_path):
    five = tiny._replace(data=tiny.data.select(range(5)))
    gradients, rows = Gradients(), []
    settings = {"callbacks": [gradients], "max_steps": 2, "learning_rate": 0.0, "extra": {"last_window": "keep"}}
    trainer = trainer_for(five, "reward", tmp_path, "tv:0.3", **settings)
    collate = trainer.data_collator
    trainer.data_collator = lambda items: rows.append(items[0]["robust_index"]) or collate(items)
    trainer.train()
    assert sorted(rows) == [0, 1, 2, 3, 4]
    assert relative_error(gradients.steps[0], full_batch_gradient(five, "reward", rows[:4], "tv:0.3")) <= 1e-6
    assert relative_error(gradients.steps[1], full_batch_gradient(five, "reward", rows[4:], "erm")) <= 1e-6


def test_evaluation_is_not_weighted(tiny, tmp_path):
    extra = {"eval_dataset": tiny.data.select(range(6))}
    found = [trainer_for(tiny, "dpo", tmp_path, s, extra=extra).evaluate() for s in ("plain", "tv:0.4")]
    names = [name for name in found[0] if not name.endswith(("runtime", "per_second"))]
    assert len(names) > 5
    assert [found[0][name] for name in names] == [found[1][name] for name in names]


def test_lora_gradient_is_that_of_the_full_batch(tiny, tmp_path):
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "up_proj"], init_lora_weights=False)
    gradients = Gradients()
    trainer = trainer_for(tiny, "dpo", tmp_path, "tv:0.2", callbacks=[gradients], extra={"peft_config": config})
    model = peft.get_peft_model(load(tiny, "dpo"), config)
    peft.set_peft_model_state_dict(model, peft.get_peft_model_state_dict(trainer.model))
    trainer.train()
    base = tiny._replace(reference=tiny.causal)  # the adapter switched off
    assert (
        relative_error(gradients.steps[0], full_batch_gradient(base, "dpo", seen(trainer), "tv:0.2", model))
        <= ROUNDING["dpo"]
    )


def test_a_loss_that_is_none_stops_training(tiny, tmp_path):
    trainer = trainer_for(tiny, "reward", tmp_path, "tv:0.2", max_steps=5, learning_rate=1e30)
    with pytest.raises(NonFiniteLoss, match="examples #"):
        trainer.train()


# -- online ----------------------------------------------------------------------------------------


def factors(judged, spec):
    """n q of every prompt, from what the reward function saw."""
    rewards = {}
    for prompt, _, reward in judged:
        rewards.setdefault(prompt, []).append(reward)
    ambiguity = parse_ambiguity(spec).bind({"source": [SOURCES[prompt] for prompt in rewards]})
    weights = worst_case(np.array([-np.mean(group) for group in rewards.values()]), ambiguity).weights
    return dict(zip(rewards, len(rewards) * weights, strict=True))


SOURCES = {pair.prompt[-1]["content"]: pair.source for pair in PAIRS}


def sampled(trainer):
    """Prompt ids, completion ids and prompt text of every completion of the last generation."""
    tokenizer = trainer.processing_class
    for batch in trainer._buffered_inputs:
        for i in range(len(batch["advantages"])):
            prompt, answer = (batch[f"{part}_ids"][i] for part in ("prompt", "completion"))
            prompt, answer = prompt[batch["prompt_mask"][i] == 1], answer[batch["completion_mask"][i] == 1]
            texts = tokenizer.decode(prompt), tokenizer.decode(answer, skip_special_tokens=True)
            yield prompt.tolist(), answer.tolist(), *texts


def surrogate(trainer, model, spec, judged, *, name):
    """The objective whose gradient one on-policy step takes, with advantages and weights worked out here."""
    multiplier = factors(judged, spec)
    terms = []
    for prompt, answer, prompt_text, answer_text in sampled(trainer):
        group = [(text, reward) for p, text, reward in judged if p == prompt_text]
        reward = next(reward for text, reward in group if text == answer_text)
        others = [r for _, r in group]
        mean = np.mean(others)
        advantage = (reward - mean) * (len(others) / (len(others) - 1) if name == "rloo" else 1)
        likelihood = log_likelihood(model, prompt + answer, len(prompt))
        length = {"rloo": 1, "grpo": len(answer), "dr_grpo": trainer.max_completion_length}[name]
        terms.append(-multiplier[prompt_text] * advantage * likelihood / length)
    return torch.stack(terms).mean()


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("grpo", "tv:0.25"),
        ("dr_grpo", "tv:0.25"),
        ("rloo", "cvar:0.3,by=source"),
        *[pytest.param(name, "cvar:0.3,by=source", marks=EXHAUSTIVE) for name in ("grpo", "dr_grpo")],
        pytest.param("rloo", "tv:0.25", marks=EXHAUSTIVE),
    ],
)
def test_policy_gradient_is_that_of_the_worst_prompts(tiny, tmp_path, name, spec):
    config = {"rloo": {}, "grpo": {"scale_rewards": "none"}}.get(name, {"scale_rewards": "none", "loss_type": name})
    kind = name.removeprefix("dr_")
    trainer, (gradient,) = trained(tiny, kind, tmp_path, spec, **config)
    model = load(tiny, "causal")
    judged = trainer.reward_funcs[0].judged
    surrogate(trainer, model, spec, judged, name=name).backward()
    assert relative_error(gradient, flat_gradient(model)) <= ROUNDING[kind]
    found = trainer.ledger.multiplier_sum[seen(trainer)]
    assert sorted(found) == pytest.approx(sorted(factors(judged, spec).values()), abs=1e-6)
    assert found.max() > 1.2


@pytest.mark.parametrize("name", ["grpo", "rloo"])
def test_a_plain_phase_is_trl_step_by_step(tiny, tmp_path, name):
    plain, _ = trained(tiny, name, tmp_path, max_steps=3)
    robust, _ = trained(tiny, name, tmp_path, "tv:0.2", max_steps=3, schedule=RadiusSchedule(plain_share=1.0))
    assert_same_training(robust, plain, steps=3)
    assert logged(robust, "mean_loss", "reward")[0][0] == pytest.approx(-logged(plain, "reward")[0][0], rel=1e-6)


class SilentOnSome(Letters):
    """Judges nothing that follows the shortest prompt of the first batch."""

    def __call__(self, prompts, completions, **kwargs):
        rewards = super().__call__(prompts, completions, **kwargs)
        self.shortest = min([prompt for prompt, *_ in self.judged[:16]], key=len)
        return [None if prompt == self.shortest else r for prompt, r in zip(prompts, rewards, strict=True)]


def test_prompts_count_by_clipped_rewards_and_not_without_any(tiny, tmp_path):
    trainer = trainer_for(tiny, "rloo", tmp_path, "kl:0.2", reward_clip_range=[0.0, 1.5])
    trainer.reward_funcs[0] = judge = SilentOnSome()
    trainer.train()
    clipped = [(p, text, min(r, 1.5)) for p, text, r in judge.judged if p != judge.shortest]
    expected = factors(clipped, "kl:0.2")
    assert len(expected) == 3
    assert any(r > 1.5 for *_, r in judge.judged)
    prompts = [tiny.data[int(i)]["prompt"] for i in seen(trainer)]
    found = dict(zip(prompts, trainer.ledger.multiplier_sum[seen(trainer)], strict=True))
    assert found == pytest.approx(expected, abs=1e-6)


# -- resuming --------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["tv:0.2", pytest.param("tv:0.3,by=source", marks=EXHAUSTIVE)])
@pytest.mark.parametrize("name", ["reward", pytest.param("dpo", marks=EXHAUSTIVE), "grpo",
                                  pytest.param("rloo", marks=EXHAUSTIVE)])  # fmt: skip
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(tiny, tmp_path, name, spec):
    """Weights, and every robust number of every step, over a schedule that reads how far the run is."""
    shape = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "learning_rate": 1e-2, "max_grad_norm": 1.0}
    shape |= {"schedule": RadiusSchedule(plain_share=0.25, ramp_share=0.5), "lr_scheduler_type": "linear"}
    whole = trainer_for(tiny, name, tmp_path, spec, **shape)
    whole.train()
    again = trainer_for(tiny, name, tmp_path, spec, **shape)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert_same_training(again, whole, steps=4)
    told = ["radius_fraction", "robust_loss", "mean_loss", "effective_sample_size"]
    assert logged(again, *told) == logged(whole, *told)
    fractions = [fraction for fraction, *_ in logged(whole, *told)]
    assert fractions[0] == 0 < fractions[1] < fractions[2] <= 1
    assert min(size for *_, size in logged(whole, *told)[2:]) < 3.99  # the adversary chose after the checkpoint, too
    for column in ("multiplier_sum", "visits", "last_loss"):  # as docs/trl.md says
        np.testing.assert_array_equal(getattr(again.ledger, column), getattr(whole.ledger, column))


# -- two processes ---------------------------------------------------------------------------------


def test_gradients_on_two_processes_are_those_of_the_full_batch(tmp_path):
    import trl_two_ranks  # which imports this file

    finished(start_ranks(trl_two_ranks.main, tmp_path))
    found = json.loads((tmp_path / "errors.json").read_text())
    assert found["ranks"] == 2
    assert len(found["errors"]) == 5
    for name, visited, expected, error in found["errors"]:
        assert visited == expected, name  # what both ranks hold stands in the ledger
        assert error <= ROUNDING[name.split()[0]], name


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "spec", "config", "message"),
    [
        ("reward", "tv:0.2", {"micro": 2}, "per_device_train_batch_size=1 and gradient_accumulation_steps=8"),
        ("reward", "tv:0.2", {"steps": 1}, "nothing to choose"),
        ("reward", "tv:0.2,by=language", {}, "names the column 'language'; the columns are: .*source"),
        ("dpo", "tv:0.2", {"loss_type": ["aot"]}, "'aot' sorts log-ratios across the batch"),
        ("dpo", "tv:0.2", {"loss_type": ["sigmoid", "sft"]}, "'sft' is normalised by the tokens of the batch"),
        ("dpo", "tv:0.2", {"model_config": {"attention_dropout": 0.1}}, "dropout is active"),
        ("grpo", "tv:0.2", {"loss_type": "dapo"}, "'dapo' does not treat completions one by one"),
        ("grpo", "tv:0.2", {"steps_per_generation": 2}, "make steps_per_generation a multiple"),
        ("rloo", "tv:0.2", {"steps": 1}, "nothing to choose"),
    ],
)
def test_what_would_give_wrong_weights_is_refused(tiny, tmp_path, name, spec, config, message):
    with pytest.raises(ValueError, match=message):
        trainer_for(tiny, name, tmp_path, spec, **config)


@pytest.mark.parametrize("name", ["reward", "grpo"])
def test_tasks_that_are_no_processes_of_one_run_are_refused(tiny, tmp_path, name, monkeypatch):
    """Tasks of srun: neither transformers nor accelerate make one run of them."""
    for variable, value in {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0"}.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match="2 separate runs into one folder; start torchrun"):
        trainer_for(tiny, name, tmp_path, "tv:0.2")


def test_an_adversary_over_one_group_is_refused(tiny, tmp_path):
    alike = tiny._replace(data=tiny.data.map(lambda row: row | {"source": "chat"}))
    for name in ("reward", "grpo"):
        with pytest.raises(ValueError, match=r"all training examples are of one \(chat\)"):
            trainer_for(alike, name, tmp_path, "tv:0.2,by=source")


@pytest.mark.parametrize("name", ["reward", "dpo"])
def test_losses_equal_to_within_rounding_are_trained_on_alike(tiny, tmp_path, name, monkeypatch, caplog):
    """All losses are log 2 up to what rounding leaves, and the log says that the adversary did nothing."""
    kind, (noise, looks) = KINDS[name][0], (torch.Generator().manual_seed(0), [])

    def flat(self, model, inputs, return_outputs=False, num_items_in_batch=None):  # noqa: FBT002
        loss = 0 * super(ours.RobustPairs, self).compute_loss(
            model, {k: v for k, v in inputs.items() if "robust" not in k}
        )
        looks.append(loss)
        return loss + 0.6931472 + 4e-7 * torch.randn((), generator=noise)

    monkeypatch.setattr(kind, "_theirs", flat)
    trainer = trainer_for(tiny, name, tmp_path, "tv:0.4")
    trainer.train()
    assert looks
    assert not trainer.ledger.acted
    assert "the adversary did not act" in caplog.text


def test_a_router_loss_is_refused(tiny, tmp_path):
    config = MixtralConfig(
        vocab_size=len(tiny.tokenizer),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=2,
    )
    with pytest.raises(ValueError, match=r"router_aux_loss_coef=0\.0"):
        trainer_for(tiny, "dpo", tmp_path, "tv:0.2", model=MixtralForCausalLM(config))
    trainer_for(tiny, "dpo", tmp_path, "tv:0.2", model=MixtralForCausalLM(config), router_aux_loss_coef=0.0)


def test_a_stream_is_refused(tiny, tmp_path):
    with pytest.raises(ValueError, match="has no positions: give train_dataset as a"):
        trainer_for(tiny._replace(data=tiny.data.to_iterable_dataset()), "reward", tmp_path, "tv:0.2")


@pytest.mark.parametrize(("mixin", "name"), [(ours.RobustPairs, "rloo"), (ours.RobustOnline, "reward")])
def test_a_mixin_before_the_wrong_trainer_is_refused(tiny, tmp_path, monkeypatch, mixin, name):
    wrong = type("Wrong", (mixin, KINDS[name][1]), {})
    monkeypatch.setitem(KINDS, name, (wrong, *KINDS[name][1:]))
    with pytest.raises(TypeError, match="goes before trl"):
        trainer_for(tiny, name, tmp_path, "tv:0.2")


def test_another_version_of_trl_warns_in_one_sentence(monkeypatch):
    monkeypatch.setattr(trl, "__version__", "1.99.0")
    with pytest.warns(UserWarning, match=r"tested with trl 1\.16\.0 and found trl 1\.99\.0"):
        importlib.reload(ours)
    monkeypatch.undo()
    importlib.reload(ours)


def test_without_trl_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "trl", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'robust-rlhf\[trl\]'"):
        importlib.reload(ours)
