"""The settings of robust policy optimisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from dro_core.command_line.settings import setting

from ..rewards.names import CHECKERS, SECONDS, RewardError, parts_of, reads_of, settled
from ..training.config import ConfigError, RunConfig
from .combinations import check_combinations
from .generation.settings import Door, ServerSettings, check_server

LengthDivisor = Literal["longest", "answer", "batch"]
SilentGroups = Literal["keep", "leave_out", "draw_again"]
AdversaryActs = Literal["weights", "draws", "draws_corrected"]
KLPlace = Literal["reward", "loss"]
KLEstimatorName = Literal["k1", "k2", "k3"]
Whitening = Literal["none", "rewards", "advantages"]
AdversaryValues = Literal["return", "score"]
AdversaryEstimate = Literal["same", "split"]
VersionName = Literal["A", "B"]
Critic = Literal["separate", "shared"]
PolicyReference = Literal["auto", "model", "adapter"]
Optimizer = Literal["optim", "npg"]


def samples_by_default(ambiguity: str) -> int:
    """Answers per prompt: with few, the weights of a set are biased by the answers that they weigh."""
    return 4 if ambiguity == "erm" else 16


@dataclass
class PolicyConfig(ServerSettings, RunConfig):
    """A policy trained on the scores of its own answers, against the worst reweighting of its prompts."""

    kind: ClassVar[str] = "policy"
    own_answers: ClassVar[bool] = True

    model: str = setting("smollm2", "model", "alias (smollm2), folder or hub name of a causal model")
    train_file: str | list[str] = setting(
        "",
        "data",
        "prompts: a preference file (its answers are not read) or records with `prompt`; several, each with :WEIGHT",
    )
    distinct_prompts: bool = setting(
        True, "data", "drop repeated prompts; false: how often one is asked is part of the mixture"
    )
    max_prompts: int | None = setting(None, "data", "train on a random subset of this size")
    eval_prompts: int | None = setting(None, "judging", "evaluate at most so many prompts of each suite")
    eval_samples: int = setting(4, "judging", "answers per prompt in evaluations")
    reward_model: str | list[str] = setting(
        "",
        "reward",
        f"folder or hub name of a reward model; a checker ({', '.join(CHECKERS)}); "
        "FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION, as for TRL; builtin: the exact checker of the "
        "corpus; several, each with :WEIGHT",
    )
    gold: str | None = setting(
        None, "reward", "a second reward by the same names: logged beside the first, never trained on"
    )
    reward_seconds: float = setting(
        SECONDS, "reward", "within which a checker or function must score the answers of a step"
    )
    estimator: str = setting(
        "rloo",
        "update",
        "rloo: leave-one-out baseline; ppo: token-level GAE with a value function; of published group "
        "objectives dr_grpo, grpo (with the standard deviation), maxrl, pass_at_k:K, rs_grpo:BETA",
    )
    length_divisor: LengthDivisor = setting(
        "longest",
        "update",
        "losses of an answer, summed over its tokens, are divided by max_new_tokens (unbiased), by its own "
        "tokens (answer: GRPO), or by the mean of the answers that count (batch: DAPO)",
    )
    silent_groups: SilentGroups = setting(
        "keep",
        "answers",
        "prompts whose answers all have the same score: keep counts them in the mean, leave_out does not, "
        "draw_again asks others in their place",
    )
    draw_rounds: int = setting(4, "answers", "silent_groups=draw_again: how often others are asked in a step")
    prompts_per_step: int = setting(16, "answers", "prompts of a step, on each process")
    samples: int = setting(0, "answers", "answers per prompt; 0: 4, or 16 with a set, whose weights are biased by few")
    epochs: int = setting(1, "update", "passes over the answers of a step")
    minibatches: int = setting(
        1, "update", "optimizer updates in each of these passes; must divide the answers of a step"
    )
    clip: float = setting(0.2, "update", "half width of the interval of unclipped ratios")
    kl_coefficient: float = setting(0.05, "reference", "strength of the KL charge, in score per nat")
    kl_in: KLPlace = setting("reward", "reference", "charge KL to the reward of every token or to the loss")
    kl_estimator: KLEstimatorName = setting(
        "k1",
        "reference",
        "kl_in=loss: k1 has the gradient of KL over whole answers; k2 and k3 that of the next token alone",
    )
    max_kl: float = setting(100.0, "reference", "stop when the mean KL of an answer exceeds this many nats")
    max_sampler_gap: float | None = setting(
        None,
        "answers",
        "stop if the first answers, or those of a server in any step, were drawn with log-probabilities that differ "
        "from those trained on by more nats per token (default: 1e-3, or 0.1 in half precision)",
    )
    entropy_coefficient: float = setting(0.0, "update", "bonus on the entropy of every token")
    missing_end_penalty: float = setting(0.0, "answers", "taken off the score of an answer without end")
    whiten: Whitening = setting(
        "none",
        "update",
        "rewards: divide by their deviation; advantages: mean 0, variance 1; over all prompts. Either "
        "biases the gradient",
    )
    discount: float = setting(1.0, "update", "estimator=ppo: per token, in [0, 1]")
    lambda_: float = setting(0.95, "update", "estimator=ppo: of the advantage estimates, in [0, 1]")
    value_model: Critic = setting(
        "separate", "update", "estimator=ppo: a trunk of its own, or the head shares the policy's"
    )
    value_coefficient: float = setting(0.5, "update", "estimator=ppo: weight of the value loss")
    value_clip: float = setting(0.2, "update", "estimator=ppo: how far values may move in a step")
    version: VersionName = setting(
        "B", "adversary", "A: the adversary's weights scale rewards; B: they scale the policy loss"
    )
    adversary_sees: AdversaryValues = setting(
        "return", "adversary", "value of a prompt: mean score less the KL charge (return), or mean score"
    )
    adversary_estimate: AdversaryEstimate = setting(
        "same",
        "adversary",
        "same: prompts are weighed by the answers that are trained on, which biases the worst case; split: "
        "each half of the answers by the other half",
    )
    adversary_acts: AdversaryActs = setting(
        "weights",
        "adversary",
        "weights: prompts of a step are weighed; draws: prompts are drawn by the weights that the set "
        "gives all of them by their last values, and count alike; draws_corrected: drawn so, and counted as in "
        "plain training",
    )
    draw_floor: float = setting(
        0.2, "adversary", "adversary_acts=draws...: share of the draws that goes to all prompts alike"
    )
    reference: PolicyReference = setting(
        "auto",
        "reference",
        "model: a second one; adapter: the policy without its adapter; auto: adapter with lora_rank",
    )
    reference_model: str | None = setting(None, "reference", "the reference policy (default: the start)")
    max_new_tokens: int = setting(64, "answers", "longest answer, its end included")
    temperature: float = setting(1.0, "answers", "of sampling, and of the policy that is trained")
    top_p: float = setting(1.0, "answers", "below 1: leave out unlikely tokens when sampling")
    optimizer: Optimizer = setting(
        "optim", "update", "optim: the one that --optim names; npg: weighted natural gradient"
    )
    npg_damping: float = setting(1e-2, "update", "optimizer=npg: added to the Fisher matrix's diagonal")
    npg_steps: int = setting(20, "update", "optimizer=npg: most conjugate-gradient steps")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_rewards()
        if self.samples == 0:
            self.samples = samples_by_default(self.ambiguity)
        self.check_choices(
            kl_in=KLPlace, kl_estimator=KLEstimatorName, whiten=Whitening, version=VersionName,
            silent_groups=SilentGroups, adversary_sees=AdversaryValues, adversary_estimate=AdversaryEstimate,
            adversary_acts=AdversaryActs,
            value_model=Critic, reference=PolicyReference, optimizer=Optimizer, length_divisor=LengthDivisor,
            vllm_weights=Door,
        )  # fmt: skip
        self.check_least(
            prompts_per_step=1, samples=1, epochs=1, minibatches=1, max_prompts=1, eval_prompts=1, eval_samples=1,
            max_new_tokens=1, npg_steps=1, clip=0, value_clip=0, kl_coefficient=0, entropy_coefficient=0, npg_damping=0,
            value_coefficient=0, missing_end_penalty=0, max_sampler_gap=0, draw_rounds=1,
        )  # fmt: skip
        for name in ("discount", "lambda_", "draw_floor"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        for name, most in (
            ("reward_seconds", 1e6),
            ("temperature", float("inf")),
            ("top_p", 1.0),
            ("max_kl", float("inf")),
        ):
            if not 0.0 < getattr(self, name) <= most:
                raise ConfigError(f"{name} must be positive and at most {most}, got {getattr(self, name)}")
        check_server(self, adapted=bool(self.lora_rank), temperature=self.temperature, top_p=self.top_p)
        check_combinations(self)

    def _check_rewards(self) -> None:
        try:
            self.reward_model = settled(self.reward_model)  # one text for one mixture, however it was written
            parts_of(self.gold, "gold")
        except RewardError as error:
            raise ConfigError(str(error)) from error

    @property
    def prompt_tokens(self) -> int:
        """The longest prompt that leaves room for an answer."""
        return self.max_length - self.max_new_tokens

    def reference_kind(self) -> PolicyReference:
        """``reference`` with ``auto`` decided."""
        if self.reference != "auto":
            return self.reference
        return "adapter" if self.lora_rank and not self.reference_model else "model"

    def reads(self) -> dict[str, str | None]:
        """The policy, its reference, and the models and files that score it; the other checkers are part of us."""
        judges = reads_of("reward_model", self.reward_model) | reads_of("gold", self.gold)
        return super().reads() | {"reference_model": self.reference_model} | judges
