"""A policy run: load policy, reference and rewards, train on its answers, and what is exported."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedModel, TrainingArguments, set_seed
from transformers.utils.logging import disable_progress_bar

from ..adversary.ledger import multipliers_by
from ..adversary.rules import names_in
from ..adversary.spec import parse_reweighting
from ..data.mixing import Mixture, mixed_prompts
from ..data.pairs import DataError
from ..data.prompts import Prompt, PromptSet, read_prompts, subset
from ..models.adapters import merged, with_adapter
from ..models.architectures import check_length
from ..models.card import model_card
from ..models.loading import load_policy
from ..models.quantised import is_quantised
from ..models.tokenizers import check_vocabulary
from ..rewards.names import SPELLING, has_checks
from ..rewards.scorer import Scorer, check_prompts, load_scorer, refused_by, tokenizers_of
from ..run.files import write_text
from ..run.folder import SETTINGS
from ..text.answers import encode_prompts
from ..training.config import ConfigError
from ..training.frame import CARD, RunOutcome, Trained, Work, carry_out
from ..training.guards import check_weights, live_dropout
from ..training.processes import on_main_process
from ..training.resuming import note_session
from .actor_critic import ActorCritic, Reference
from .checkpoints import of_other_answers
from .config import PolicyConfig
from .generation.choice import greet
from .judging import judge_policy, summarise_policy, write_judged
from .ranks.gathering import parted
from .ranks.placing import loading_whole
from .ranks.states import whole_weights
from .rollouts import Sampling
from .trainer import PolicyTrainer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_log = logging.getLogger(__name__)


def train_policy(config: PolicyConfig, arguments: TrainingArguments) -> Trained:
    """Train a policy; the run folder holds checkpoints, ``model/``, ``run.json``.

    Raises:
        DataError: The prompts cannot be used.
        BadScores, KLExplosion, NonFiniteLoss: Training stopped before an update that would have made no sense.
        Exception: What else can go wrong, see ``llm.training.frame.carry_out``.
    """
    return carry_out(_OnOwnAnswers(config, arguments))


class _OnOwnAnswers(Work[PolicyConfig]):
    """A policy within the frame of a run."""

    def check(self) -> None:
        super().check()
        greet(self.config)

    def build(self) -> dict[str, Any]:
        self.trainer, self.data = build_policy_trainer(self.config, self.arguments)
        return {"train": self.data["train"]}

    def prepare(self, checkpoint: Path | None) -> None:
        if checkpoint is not None and of_other_answers(checkpoint):
            other = f"answers up to {checkpoint.name} were drawn by other random numbers, by an older version"
            on_main_process(lambda: note_session(self.output / SETTINGS, other))

    def train(self, checkpoint: Path | None) -> None:
        with closing(self.trainer.pen):
            self.trainer.train(checkpoint, verified=True)

    def outcome(self) -> RunOutcome:
        config, trainer = self.config, self.trainer
        masses = None if trainer.masses is None else trainer.masses.tolist()
        check_weights(trainer.core.policy, trainer.step)
        return RunOutcome(
            model=self._exported(),
            tokenizer=trainer.pen.tokenizer,
            effective_batch=config.prompts_per_step * config.samples * trainer.world,
            steps=trainer.step,
            seconds=trainer.clock.seconds(),
            data=self.data,
            history=trainer.history,
            adversary={
                name: multipliers_by(trainer.ledger, column, masses=masses) for name, column in trainer.columns.items()
            },
            ledger=trainer.ledger,
        )

    def _exported(self) -> PreTrainedModel:
        """The policy in one piece, its adapter merged or alone; where it is spread the first rank alone gets it."""
        config, trainer = self.config, self.trainer
        policy: Any = trainer.core.policy
        if parted(policy):
            main = trainer.accelerator.is_main_process
            weights = whole_weights(trainer.update.module, keep=main)
            if not main:
                return policy
            policy = with_adapter(load_policy(config.model, **config.loading())[0], config.adapter(), task="CAUSAL_LM")
            own = {name: weights[f"policy.{name}"] for name in policy.state_dict()}
            policy.load_state_dict(own)
        return merged(policy, merge=config.merge_adapter)


def judge_run(
    trained: Trained,
    config: PolicyConfig,
    arguments: TrainingArguments,
    suites: Mapping[str, Sequence[Prompt]],
    folder: Path,
) -> dict[str, Any]:
    """Judge a finished policy on suites of prompts by its reward and its gold; metrics and answers go to ``folder``."""
    name = config.reference_model or config.model
    reference: Any = load_policy(name, **config.loading())[0]
    policy: Any = trained.model
    names: dict[str, Any] = {"reward": config.reward_model, **({"gold": config.gold} if config.gold else {})}
    scorers = {judge: scorer_of(config, place, arguments) for judge, place in names.items()}
    judged, kept = {}, {}
    for suite, prompts in suites.items():
        kept[suite], _, _ = fitting(
            list(prompts), trained.tokenizer, most=config.prompt_tokens, judges=tokenizers_of(scorers.values())
        )
        judged[suite] = judge_policy(
            policy.to(arguments.device),
            Reference(reference.to(arguments.device)),
            trained.tokenizer,
            kept[suite],
            scorers,
            sampling=Sampling(config.max_new_tokens, config.temperature, config.top_p),
            samples=config.eval_samples,
            batch_size=arguments.per_device_eval_batch_size,
            seed=arguments.seed,
        )
    summaries = {suite: summarise_policy(kept[suite], found) for suite, found in judged.items()}
    write_judged(folder, kept, judged, summaries, of=suites)
    write_text(folder / "model" / CARD, model_card(trained.record, summaries))
    return summaries


def build_policy_trainer(config: PolicyConfig, arguments: TrainingArguments) -> tuple[PolicyTrainer, dict[str, Any]]:
    """Load and check everything; nothing is written. Also what is to be said about the data."""
    if not config.reward_model:
        raise ConfigError(f"reward_model is missing: name {SPELLING}")
    loading_whole()
    mixture = training_prompts(config)
    set_seed(arguments.seed)
    base, tokenizer = load_policy(config.model, **config.loading())
    config.merge_adapter &= not is_quantised(base)
    disable_progress_bar()
    check_length(base, config.max_length)
    scorer = scorer_of(config, config.reward_model, arguments)
    gold = None if config.gold is None else scorer_of(config, config.gold, arguments)
    prompts, encoded, long = fitting(
        subset(mixture.drawn(seed=config.subset_seed), config.max_prompts, seed=config.subset_seed),
        tokenizer,
        most=config.prompt_tokens,
        judges=tokenizers_of([scorer, gold]),
    )
    tokenizer.model_max_length = config.max_length
    if arguments.activation_checkpointing:
        base.gradient_checkpointing_enable()
    trainer = PolicyTrainer(
        reference=Reference(_reference(config, base, tokenizer)),
        module=_module(config, base),
        tokenizer=tokenizer,
        prompts=prompts,
        encoded=encoded,
        scorer=scorer,
        gold=gold,
        config=config,
        arguments=arguments,
    )
    return trainer, {"train": mixture.describe(), "trained_on": len(prompts), "too_long": long}


def training_prompts(config: PolicyConfig) -> Mixture[Prompt]:
    """The prompts of the training set, all of which can be checked by what scores their answers.

    Raises:
        DataError: They cannot be read.
        RewardError: How many of them cannot be checked, and why.
    """
    by, beside = names_in(parse_reweighting(config.ambiguity)), has_checks(config.reward_model, config.gold)
    mixture = mixed_prompts(
        config.train_file, distinct=config.distinct_prompts, columns=config.columns, by=by, beside=beside
    )
    check_rewards(config, mixture.items, "the training set")
    return mixture


def prompts_of(config: PolicyConfig, source: str | Path) -> PromptSet:
    """The prompts of a suite, repeated or not and by the mapping that the run says, where it has these columns."""
    beside = has_checks(config.reward_model, config.gold)
    return read_prompts(source, distinct=config.distinct_prompts, columns=config.columns, shared=True, beside=beside)


def check_rewards(config: PolicyConfig, prompts: Sequence[Prompt], name: str) -> None:
    """Refuse prompts that the checkers and functions of a run cannot check; ``name`` is what the prompts are called.

    Raises:
        RewardError: How many lack what, and the first of them.
    """
    check_prompts([config.reward_model, config.gold], prompts, name, seconds=config.reward_seconds)


def fitting(
    prompts: list[Prompt],
    tokenizer: PreTrainedTokenizerBase,
    *,
    most: int,
    judges: Sequence[PreTrainedTokenizerBase],
) -> tuple[list[Prompt], list[list[int]], int]:
    """The prompts of at most ``most`` tokens, their ids, and how many were longer: a cut prompt asks something else.

    Those that the policy cannot read, or a model that judges it, by its tokenizer among ``judges``, are left out, too.

    Raises:
        DataError: None is left.
    """
    refused: dict[int, str] = {}
    encoded = encode_prompts(prompts, tokenizer, refused)
    refused = {place: f"of its judge, {why}" for place, why in refused_by(judges, prompts).items()} | refused
    kept = [row for row, ids in enumerate(encoded) if row not in refused and len(ids) <= most]
    long = len(prompts) - len(refused) - len(kept)
    if refused:
        place, reason = next(iter(refused.items()))
        said = f"{len(refused)} of {len(prompts)} prompts cannot be read, {prompts[place].id!r} first: {reason}"
        if len(refused) == len(prompts):
            raise DataError(f"{said}.")
        _log.warning("%s: they are left out", said)
    if long:
        _log.warning("%d of %d prompts have more than %d tokens and are left out", long, len(prompts), most)
    if not kept:
        raise DataError(
            f"every prompt has more than the {most} tokens beside max_new_tokens in max_length: raise max_length"
        )
    return [prompts[row] for row in kept], [encoded[row] for row in kept], long


def _module(config: PolicyConfig, base: PreTrainedModel) -> ActorCritic:
    policy = with_adapter(base, config.adapter(), task="CAUSAL_LM")
    if (config.lora_rank and config.lora_dropout) or live_dropout(policy):
        raise ConfigError(
            "with dropout the answers would be written by another policy than the one trained: keep disable_dropout, "
            "and lora_dropout 0"
        )
    critic = config.value_model if config.estimator == "ppo" else None
    if critic == "separate" and is_quantised(base):
        raise ConfigError(
            "a value function of its own copies a trunk in few bits, which cannot be trained: set value_model=shared"
        )
    return ActorCritic(
        policy, critic=critic, temperature=config.temperature, entropy_gradient=config.entropy_coefficient > 0
    )


def _reference(
    config: PolicyConfig, base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> PreTrainedModel | None:
    """A frozen copy of the start or the named model; None where the adapter is switched off instead."""
    if config.reference_kind() == "adapter":
        return None
    if config.reference_model is None:
        return copy.deepcopy(base).requires_grad_(requires_grad=False).eval()
    second, its_tokenizer = load_policy(config.reference_model, **config.loading())
    check_vocabulary(tokenizer, its_tokenizer)
    return second.requires_grad_(requires_grad=False).eval()


def scorer_of(config: PolicyConfig, name: str | list[str], arguments: TrainingArguments) -> Scorer:
    """The judge of that name, or of these, placed and batched as the run says."""
    loading = config.loading()
    loading |= {"dtype": "float32", "quantised": None, "fold_system": False}  # rewards differ in digits it would take
    batch, device = arguments.per_device_eval_batch_size, arguments.device
    return load_scorer(name, seconds=config.reward_seconds, batch_size=batch, device=device, **loading)
