"""TRL's online trainers made robust: the policy gradient against autograd on a surrogate computed without TRL."""

from __future__ import annotations

import pytest
from robust_trl import (
    ROUNDING,
    Letters,
    assert_same_training,
    factors,
    load,
    logged,
    seen,
    surrogate,
    trained,
    trainer_for,
)
from tiny_trl import flat_gradient, relative_error

from llm.adversary.schedule import RadiusSchedule

# TRL still asks by the old name.
pytestmark = pytest.mark.filterwarnings("ignore:`\\w*gradient_checkpointing:FutureWarning")
EXHAUSTIVE = pytest.mark.exhaustive


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
