"""TRL's trainers with worst-case weights, in two lines.

    class RobustDPO(RobustPairs, trl.DPOTrainer): pass
    RobustDPO(ambiguity="tv:0.2", model=..., args=..., train_dataset=...).train()

``RobustPairs`` goes before ``trl.RewardTrainer`` or ``trl.DPOTrainer``, ``RobustOnline`` before ``trl.GRPOTrainer`` or
``trl.RLOOTrainer``; the four combinations stand ready-made below. With ``ambiguity=None`` or
a set of radius 0 each is TRL's trainer.
"""

from __future__ import annotations

import warnings

try:
    import trl
except ModuleNotFoundError as error:
    if error.name != "trl":
        raise
    raise ModuleNotFoundError(
        "llm.trl makes TRL's trainers robust and TRL is not installed: pip install 'robust-rlhf[trl]'", name="trl"
    ) from error

from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.reward_trainer import RewardTrainer
from trl.trainer.rloo_trainer import RLOOTrainer

from .datasets import trl_dataset
from .online import RobustOnline
from .pairs import RobustPairs
from .rewards import reward_function

__all__ = [
    "RobustDPOTrainer",
    "RobustGRPOTrainer",
    "RobustOnline",
    "RobustPairs",
    "RobustRLOOTrainer",
    "RobustRewardTrainer",
    "reward_function",
    "trl_dataset",
]
TESTED = "1.16.0"  # TRL's trainers are rewritten often; another version may have moved what the mixins hold on to

if trl.__version__ != TESTED:
    warnings.warn(
        f"llm.trl is tested with trl {TESTED} and found trl {trl.__version__}: compare a few steps of tv:1e-9 with "
        f"plain TRL before relying on it, or pip install trl=={TESTED}",
        stacklevel=2,
    )


class RobustRewardTrainer(RobustPairs, RewardTrainer):
    """``trl.RewardTrainer`` on the worst reweighting of each effective batch of pairs."""


class RobustDPOTrainer(RobustPairs, DPOTrainer):
    """``trl.DPOTrainer`` on the worst reweighting of each effective batch of pairs."""


class RobustGRPOTrainer(RobustOnline, GRPOTrainer):
    """``trl.GRPOTrainer`` on the worst reweighting of the prompts of each generation batch."""


class RobustRLOOTrainer(RobustOnline, RLOOTrainer):
    """``trl.RLOOTrainer`` on the worst reweighting of the prompts of each generation batch."""
