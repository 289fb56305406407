"""Robust policy optimisation: the policy writes answers, a reward model scores them, the worst prompts weigh most.

One *step* is one rollout with its updates:

1. every rank draws ``samples`` answers to each of its prompts and scores them;
2. policy, reference and value function look at them once, without gradients;
3. what is known is gathered: all ranks find the same weights of the prompts, advantages and statistics, over the whole
   rollout of all ranks, and keep their own part;
4. ``epochs`` x ``minibatches`` optimizer updates follow (``llm.policy.update``), with gradients averaged over ranks.

Deviations from the textbook stand in ``experience``; here: the learning rate moves once per step, not per update,
which answers are drawn depends on (seed, step, prompt, sample) alone, and the order of minibatches on (seed, step,
rank), so that a run that was killed in mid-rollout writes the same answers again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import TrainingArguments, get_scheduler

from ..adversary.adversary import Adversary
from ..adversary.ledger import AdversaryLedger
from ..adversary.masses import masses_of
from ..data.grouping.columns import PromptColumns
from ..data.prompts import Prompt
from ..rewards.bench import BadScores
from ..rewards.checked import checked_scores, checked_shape
from ..rewards.scorer import Scorer, told_by
from ..run.files import json_ready
from ..run.folder import TrainingClock
from ..run.progress import Cost, Steps
from ..training.guards import check_weights
from ..training.interrupts import listening
from ..training.processes import failing_together
from .actor_critic import ActorCritic, Reference
from .asking.order import PromptOrder
from .asking.signal import Group, StepGroups, draw
from .checkpoints import PolicyCheckpoints
from .config import PolicyConfig
from .experience import Experience, Objective, Weighed
from .generation.choice import engine_of
from .generation.client import EngineError
from .generation.correction import corrected
from .observation import observed
from .prompt_weights import advance_prompts
from .ranks.gathering import gathered
from .ranks.placing import check_placing, innermost, place, place_reference
from .setup import (
    accelerator_for,
    check_kl,
    check_rollouts,
    checked_sampler,
    mean_of,
    mean_over_ranks,
    optimizer_for,
    prompt_rule,
    start_trackers,
    tell_trackers,
    value_accuracy,
)
from .token_draws import Lots, Purpose
from .update import NaturalUpdate, Rollout, SurrogateUpdate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class PolicyTrainer:
    """Trains a policy by PPO, RLOO or natural gradient against an adversary over prompts.

    Args:
        module: Policy and value function.
        reference: What KL is measured to.
        tokenizer: Of the policy.
        prompts: The training prompts.
        encoded: Their ids, as from ``llm.text.answers.encode_prompts``.
        scorer: The reward that is trained on.
        gold: A second reward, logged only.
        config: Ours.
        arguments: Those of transformers; steps, logging and saving count rollouts.

    Raises:
        ValueError: Fewer prompts than one step needs, or a setup whose gradients would be wrong.
    """

    def __init__(
        self,
        *,
        module: ActorCritic,
        reference: Reference,
        tokenizer: PreTrainedTokenizerBase,
        prompts: Sequence[Prompt],
        encoded: Sequence[list[int]],
        scorer: Scorer,
        config: PolicyConfig,
        arguments: TrainingArguments,
        gold: Scorer | None = None,
    ) -> None:
        self.config, self.arguments, self.prompts, self.encoded = config, arguments, prompts, encoded
        self.scorer, self.gold, self.reference = scorer, gold, reference
        self.accelerator = accelerator_for(arguments)
        self.world, self.rank = self.accelerator.num_processes, self.accelerator.process_index
        self.core, self.objective = module, Objective(config, accuracy=value_accuracy(config, arguments, module.policy))
        self.pen = engine_of(config, arguments, tokenizer)
        self.columns = PromptColumns(prompts)
        rule = prompt_rule(config, self.columns, world=self.world, seed=arguments.seed, tell=self.rank == 0)
        self.masses = masses_of([prompt.weight for prompt in prompts])
        self.adversary = Adversary(rule, len(prompts), schedule=config.schedule(), masses=self.masses)
        self.ledger.sources = self.columns["source"]
        self.order = PromptOrder(config, self.adversary, masses=self.masses, seed=arguments.seed, world=self.world)
        self.steps_per_epoch = len(prompts) // (config.prompts_per_step * self.world)
        epochs = int(np.ceil(arguments.num_train_epochs * self.steps_per_epoch))
        self.steps = arguments.max_steps if arguments.max_steps > 0 else epochs
        check_rollouts(config, arguments, self.accelerator, prompts=len(prompts), steps=self.steps)
        check_placing(self.accelerator, arguments, module.policy, served=self.pen.foreign)
        self.update = self._prepared_update()
        self.step, self.clock, self.cost = 0, TrainingClock(), Cost()
        self.history, self.waiting = list[dict[str, Any]](), list[dict[str, Any]]()  # rows; steps since the last one
        kept, update = [self.adversary, self.clock], self.update
        self.checkpoints = PolicyCheckpoints(self.accelerator, update.module, update.optimizer, self.schedule, kept)

    @property
    def ledger(self) -> AdversaryLedger:
        """Sum of multipliers, visits and last loss of every training prompt."""
        return self.adversary.ledger

    def _prepared_update(self) -> SurrogateUpdate | NaturalUpdate:
        """Place model and reference on the device, make optimizer and schedule."""
        arguments: Any = self.arguments
        natural = self.config.optimizer == "npg"
        optimizer = optimizer_for(self.config, arguments, self.core)
        module, optimizer = place(self.accelerator, self.core, optimizer, arguments, steps=self.steps)
        place_reference(self.accelerator, self.reference.model)
        self.schedule = get_scheduler(
            arguments.lr_scheduler_type,
            innermost(optimizer),
            num_warmup_steps=arguments.get_warmup_steps(self.steps),
            num_training_steps=self.steps,
            scheduler_specific_kwargs=arguments.lr_scheduler_kwargs,
        )
        shared: dict[str, Any] = {
            "pad": self.pen.tokenizer.pad_token_id,
            "micro": arguments.per_device_train_batch_size,
            "max_norm": 0.0 if natural else arguments.max_grad_norm,
        }
        return (NaturalUpdate if natural else SurrogateUpdate)(
            self.accelerator, module, optimizer, self.objective, **shared
        )

    # -- one step ---------------------------------------------------------------------------------

    def take_step(self) -> dict[str, Any]:
        """One rollout and its updates; returns what the log says of it."""
        seed = np.random.SeedSequence([self.arguments.seed, self.step, self.rank]).generate_state(1)[0]
        torch.manual_seed(int(seed))  # of what a model may draw by itself
        check_weights(self.core, self.step)  # before sampling, which would fail less plainly
        with failing_together(BadScores, EngineError):  # on all ranks, or none goes on
            with gathered(self.update.module):
                self.pen.take(self.core.policy, step=self.step)
                drawn = self._draw()
            beside = told_by(self.scorer) | self._gold(drawn)
        answers, size = drawn.answers, self.arguments.per_device_eval_batch_size
        with self.accelerator.autocast():
            seen = observed(self.update.module, self.reference, answers, pad=self.update.pad, size=size)
        experience = Experience.of(answers, drawn.scores, seen)
        checked = self.step == 0 or self.pen.foreign
        gap = checked_sampler(self.accelerator, self.config, answers, seen) if checked else {}
        known, everywhere = experience.gathered(self.accelerator), drawn.everywhere(self.accelerator)
        scores = known.scores.double().cpu().numpy()
        checked_scores(scores, self._asked(everywhere), step=self.step)
        shared = drawn.told(self.accelerator) | {"radius_fraction": self._strength(), "reward": float(scores.mean())}
        shared |= mean_over_ranks(beside, self.world) | gap
        samples, weighed = drawn.samples(self.prompts, experience.kl.tolist()), self.weigh(known, everywhere)
        if weighed is None:  # no update, and the learning rate counts those
            return shared | {"skipped": 1.0, "kl": float(known.kl.mean()), "samples": samples}
        here = torch.arange(len(answers), device=known.scores.device) + self.rank * len(answers)
        mine, ratios = corrected(weighed.take(here, experience.logps.shape[1]), experience, answers, self.config)
        rollout = Rollout(answers, experience, mine, self.step)
        said = self.update(rollout, generator=torch.Generator().manual_seed(int(seed)))
        said |= {"entropy": seen.entropy} | ratios
        self.schedule.step()
        shared |= self.objective.described(known, weighed) | {"skipped": 0.0}
        return mean_over_ranks(said, self.world) | shared | {"samples": samples}

    def _draw(self) -> StepGroups:
        """The groups of this rank."""
        lots, samples = Lots(self.arguments.seed, Purpose.TRAINING, self.step), self.config.samples

        def ask(mine: np.ndarray) -> list[Group]:
            with self.accelerator.autocast():
                ids = [self.encoded[i] for i in mine]
                answers = self.pen(self.core.policy, ids, lots, samples=samples, positions=mine.tolist())
            texts = [self.pen.text(answer) for answer in answers]
            scores = checked_shape(self.scorer(self._asked(mine), texts), len(texts)).reshape(-1, samples)
            parts = [slice(start, start + samples) for start in range(0, len(texts), samples)]
            return [Group(i, answers[at], texts[at], s) for i, at, s in zip(mine.tolist(), parts, scores, strict=True)]

        rows = self.order.rows(self.step, self.adversary.at(self._strength()))
        others = self.order.others(self.step, rows, self.rank)
        mine, penalty = np.split(rows, self.world)[self.rank], self.config.missing_end_penalty
        return draw(ask, mine, others=others, rounds=self.order.rounds, penalty=penalty)

    def _asked(self, rows: np.ndarray) -> list[Prompt]:
        """The prompt of every answer to the prompts ``rows``."""
        return [self.prompts[i] for i in rows.tolist() for _ in range(self.config.samples)]

    def weigh(self, known: Experience, rows: np.ndarray) -> Weighed | None:
        """Weights and advantages of the rollout of all ranks, the same on each; None where no group counts.

        Raises:
            KLExplosion: The mean KL of the answers is above ``max_kl``.
        """
        check_kl(float(known.kl.mean()), self.config, self.step)
        rule, shape = self.adversary.at(self._strength()), (len(rows), self.config.samples)
        reference = self.order.reference(self.objective.scores(known).reshape(shape), rows, rule)
        returns = self.objective.returns(known).reshape(shape)
        losses = -returns.mean(dim=1).double().cpu().numpy()
        if reference is not None and not reference.any():
            self.ledger.last_loss[rows] = losses
            return None
        weighed = self.objective.weighed(known, None if self.order.draws else rule, rows, reference=reference)
        advance_prompts(returns, rule, rows, reference=reference, accuracy=self.objective.accuracy)
        counts = np.ones(len(rows), bool) if reference is None else (reference > 0).cpu().numpy()
        plain = 1.0 if reference is None else len(rows) * reference[:, None]
        ratios = (weighed.multipliers.reshape(shape) / plain).double().cpu().numpy()[counts]  # q / p
        answered = self.order.answered(ratios, rule)
        self.ledger.record(rows[counts], ratios.mean(axis=1), losses[counts], answered=answered)
        self.ledger.last_loss[rows] = losses  # of those that are left out, too: prompts are drawn by it
        return weighed

    def _gold(self, drawn: StepGroups) -> dict[str, float]:
        if self.gold is None:
            return {}
        scores = self.gold(self._asked(drawn.rows), drawn.texts)
        told_by(self.gold)  # kept until it is asked for, and told of the reward alone
        return {"gold": float(np.mean(scores))}

    def _strength(self) -> float:
        return self.adversary.strength(self.step, self.steps)

    # -- the run ----------------------------------------------------------------------------------

    def train(self, checkpoint: Path | None = None, *, verified: bool = False) -> None:
        """Take all steps, from the beginning or from a checkpoint folder, which the caller may have ``verified``.

        Raises:
            llm.training.interrupts.Interrupted: Ctrl-C or SIGTERM; a checkpoint of the last finished step was written.
        """
        if checkpoint is not None:
            self.load(checkpoint, verified=verified)
        start_trackers(self.accelerator, self.arguments)
        self.cost.begin(self.step)
        quiet = bool(self.arguments.disable_tqdm) or not self.accelerator.is_main_process
        with listening() as stop, Steps(total=self.steps, initial=self.step, disable=quiet, desc="training") as bar:
            while self.step < self.steps:
                self.waiting.append(self.take_step())
                self.step += 1
                stopping = stop.agreed()
                if self.step == self.steps or self.step % int(self.arguments.logging_steps) == 0:
                    self._log(bar)
                saving = self.arguments.save_strategy != "no" and self.step % int(self.arguments.save_steps) == 0
                if saving or stopping:
                    self.save()
                bar.update()
                if stopping:
                    break
        for tracker in self.accelerator.trackers:  # end_training would also end the process group
            tracker.finish()

    def _log(self, bar: Steps) -> None:
        """Means over the steps since the last log, and samples of the latest."""
        waiting, self.waiting = self.waiting, []
        names = dict.fromkeys(name for step in waiting for name in step if name != "samples")  # a step knows some
        row = {name: mean_of(step[name] for step in waiting if name in step) for name in names}
        row |= {"step": self.step, "epoch": self.step / self.steps_per_epoch} | self.cost.row(self.step)
        row |= {"learning_rate": float(self.schedule.get_last_lr()[0])}
        tell_trackers(self.accelerator, row)
        self.history.append(json_ready(row | {"samples": waiting[-1]["samples"]}))
        bar.set_postfix({name: f"{row[name]:.3f}" for name in ("reward", "kl")})

    def save(self) -> None:
        """Write a checkpoint of everything that the next step depends on; older ones beyond the limit go.

        Raises:
            CheckpointError: It could not be written; earlier ones are untouched.
        """
        check_weights(self.core, self.step)
        progress = {"global_step": self.step, "log_history": self.history, "waiting": json_ready(self.waiting)}
        output, limit = Path(str(self.arguments.output_dir)), self.arguments.save_total_limit
        self.checkpoints.save(output, progress, limit=limit)

    def load(self, folder: Path, *, verified: bool = False) -> None:
        """Go on from a checkpoint folder; ``verified`` says that the caller has read it whole."""
        found = self.checkpoints.load(folder, verified=verified)
        self.step, self.history, self.waiting = found["global_step"], found["log_history"], found["waiting"]
