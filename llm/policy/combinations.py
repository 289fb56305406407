"""Settings of a policy that each make sense and do not go together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..training.config import ConfigError

if TYPE_CHECKING:
    from .config import PolicyConfig


def check_combinations(config: PolicyConfig) -> None:
    """Refuse settings that contradict one another.

    Raises:
        ConfigError: One sentence with the remedy.
    """
    if config.model == "tiny":
        raise ConfigError("a policy from scratch writes noise: train one first (robust-rlhf train sft) and name it")
    _check_estimator(config)
    _check_asking(config)
    answers = config.prompts_per_step * config.samples
    if answers % config.minibatches:
        raise ConfigError(
            f"minibatches ({config.minibatches}) does not divide the {answers} answers of a step (prompts_per_step "
            f"{config.prompts_per_step} x samples {config.samples}): parts of unequal size would weigh them unequally; "
            "choose one that does"
        )
    _check_split(config)
    if config.max_new_tokens >= config.max_length:
        raise ConfigError(
            f"max_new_tokens ({config.max_new_tokens}) leaves no room for a prompt in max_length "
            f"({config.max_length}): lower the one or raise the other"
        )
    if config.adversary_sees == "score" and config.kl_in == "reward" and config.version == "B":
        raise ConfigError(
            "version B weights everything in the reward, and kl_in=reward puts the KL charge there, which "
            "adversary_sees=score leaves out: use kl_in=loss, version A, or adversary_sees=return"
        )
    if config.optimizer == "npg" and (config.estimator, config.epochs, config.minibatches) != ("rloo", 1, 1):
        raise ConfigError("optimizer=npg takes one step from all answers: use estimator=rloo, epochs 1, minibatches 1")
    if config.optimizer == "npg" and (config.length_divisor, config.silent_groups) != ("longest", "keep"):
        raise ConfigError(
            "optimizer=npg has no divisor of lengths and knows all groups: drop length_divisor and silent_groups"
        )
    if config.optimizer == "npg" and (config.entropy_coefficient or (config.kl_in == "loss" and config.kl_coefficient)):
        raise ConfigError("optimizer=npg follows the policy gradient alone: use kl_in=reward, no entropy bonus")
    if config.reference_kind() == "adapter" and not config.lora_rank:
        raise ConfigError("reference=adapter switches the adapter off to get the reference: set lora_rank")
    if config.reference_kind() == "adapter" and config.reference_model:
        raise ConfigError("reference=adapter takes the base model as reference: drop reference_model")


def _check_estimator(config: PolicyConfig) -> None:
    from .advantages.estimators import LINEAR, least_samples, name_of  # loads torch

    try:
        least = least_samples(config.estimator)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if config.samples < least:
        raise ConfigError(
            f"estimator={config.estimator} compares the answers to a prompt: set samples to {least} or more"
        )
    if config.version == "A" and name_of(config.estimator) not in LINEAR:
        raise ConfigError(
            f"version A multiplies rewards before they are compared, which estimator={config.estimator} does not "
            "pass on as a factor: take version B"
        )
    if config.estimator == "grpo" and config.kl_in == "reward" and config.kl_coefficient:
        raise ConfigError(
            "estimator=grpo divides by the deviation of the returns, and with kl_in=reward that of the KL charge alone "
            "where all scores are equal: use kl_in=loss, as GRPO does, or kl_coefficient 0"
        )
    if config.estimator == "maxrl" and config.kl_in == "reward" and config.kl_coefficient:
        raise ConfigError(
            "estimator=maxrl takes the logarithm of a success rate, and kl_in=reward makes returns negative: use "
            "kl_in=loss, or kl_coefficient 0"
        )


def _check_asking(config: PolicyConfig) -> None:
    from .advantages.estimators import name_of

    if config.silent_groups != "keep" and name_of(config.estimator) == "ppo":
        raise ConfigError(
            "silent_groups is about answers that are compared, and estimator=ppo learns from equal scores, too: keep "
            "them, or take another estimator"
        )
    if config.silent_groups != "keep" and config.version == "A":
        raise ConfigError("version A trains on all groups, those left out with reward 0: take version B")
    if config.adversary_acts == "weights":
        return
    if config.ambiguity == "erm":
        raise ConfigError(f"adversary_acts={config.adversary_acts} draws prompts by a set or rule: name an ambiguity")
    if config.adversary_acts == "draws_corrected" and config.draw_floor == 0:
        raise ConfigError(
            "adversary_acts=draws_corrected counts every prompt by how rarely it is drawn, and with draw_floor 0 "
            "some never are: set draw_floor above 0"
        )
    if config.adversary_estimate == "split" or config.silent_groups == "draw_again":
        raise ConfigError(
            f"adversary_acts={config.adversary_acts} decides by earlier answers which prompts are asked: leave "
            "adversary_estimate=split and silent_groups=draw_again out"
        )


def _check_split(config: PolicyConfig) -> None:
    if config.adversary_estimate != "split":
        return
    if config.samples < 2:
        raise ConfigError("adversary_estimate=split halves the answers to a prompt: set samples to 2 or more")
    if config.version == "A" or config.optimizer == "npg":
        raise ConfigError(
            "adversary_estimate=split gives the answers of a prompt two weights, which version A would carry into "
            "their baseline and npg cannot use: take version B and optimizer=optim"
        )
