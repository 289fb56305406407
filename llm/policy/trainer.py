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

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.utils import gather_object
from transformers import Trainer, TrainingArguments, get_scheduler

from ..adversary.adversary import Adversary
from ..adversary.ledger import AdversaryLedger
from ..adversary.masses import masses_of
from ..data.grouping.columns import PromptColumns
from ..data.prompts import Prompt
from ..rewards.scorer import BadScores, Scorer, checked_scores, told_by
from ..run.files import json_ready
from ..run.folder import TrainingClock
from ..run.progress import Steps
from ..training.guards import check_weights
from ..training.interrupts import listening
from ..training.processes import failing_together
from .actor_critic import ActorCritic, Reference
from .checkpoints import PolicyCheckpoints
from .config import PolicyConfig
from .experience import Experience, Objective, Weighed
from .observation import observed
from .prompt_weights import advance_prompts
from .rollouts import Answers, Sampling
from .setup import accelerator_for, check_rollouts, checked_sampler, prompt_rule, start_trackers, value_accuracy
from .token_draws import Lots, Purpose
from .update import NaturalUpdate, Rollout, SurrogateUpdate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def _mean(numbers: Iterable[float | None]) -> float:
    """Nan where one of them is none, as it is in a file."""
    return float(np.mean([np.nan if number is None else number for number in numbers]))


class KLExplosion(ArithmeticError):
    """The policy has left its reference so far behind that its reward says nothing any more."""


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
        self.pen = Answers(
            tokenizer,
            Sampling(config.max_new_tokens, config.temperature, config.top_p),
            batch_size=arguments.per_device_eval_batch_size,
        )
        self.columns = PromptColumns(prompts)
        rule = prompt_rule(config, self.columns, world=self.world, seed=arguments.seed, tell=self.rank == 0)
        self.masses = masses_of([prompt.weight for prompt in prompts])
        self.adversary = Adversary(rule, len(prompts), schedule=config.schedule(), masses=self.masses)
        self.steps_per_epoch = len(prompts) // (config.prompts_per_step * self.world)
        epochs = int(np.ceil(arguments.num_train_epochs * self.steps_per_epoch))
        self.steps = arguments.max_steps if arguments.max_steps > 0 else epochs
        check_rollouts(config, arguments, self.accelerator, prompts=len(prompts), steps=self.steps)
        self.update = self._prepared_update()
        self.step, self.clock = 0, TrainingClock()
        self.history: list[dict[str, Any]] = []
        self.waiting: list[dict[str, Any]] = []  # steps since the last log
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
        trained = [parameter for parameter in self.core.parameters() if parameter.requires_grad]
        kind, settings = Trainer.get_optimizer_cls_and_kwargs(arguments, self.core.policy)  # pyright: ignore
        optimizer = (
            torch.optim.SGD(trained, lr=arguments.learning_rate)
            if natural
            else kind(trained, weight_decay=arguments.weight_decay, **settings)
        )
        module, optimizer = self.accelerator.prepare(self.core, optimizer)
        if self.reference.model is not None:
            self.reference.model.to(self.accelerator.device)
        self.schedule = get_scheduler(
            arguments.lr_scheduler_type,
            getattr(optimizer, "optimizer", optimizer),
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

    def rows(self, step: int) -> np.ndarray:
        """Positions of the prompts of a step, of all ranks in rank order, shape ``(prompts_per_step * world,)``."""
        epoch, place = divmod(step, self.steps_per_epoch)
        size = self.config.prompts_per_step * self.world
        order = np.random.default_rng([self.arguments.seed, epoch]).permutation(len(self.prompts))
        return order[place * size : (place + 1) * size]

    def take_step(self) -> dict[str, Any]:
        """One rollout and its updates; returns what the log says of it."""
        seed = np.random.SeedSequence([self.arguments.seed, self.step, self.rank]).generate_state(1)[0]
        torch.manual_seed(int(seed))  # of what a model may draw by itself
        check_weights(self.core, self.step)  # before sampling, which would fail less plainly
        everywhere = self.rows(self.step)
        mine = np.split(everywhere, self.world)[self.rank]
        lots, ids = Lots(self.arguments.seed, Purpose.TRAINING, self.step), [self.encoded[i] for i in mine]
        with self.accelerator.autocast():
            answers = self.pen(self.core.policy, ids, lots, samples=self.config.samples, positions=mine.tolist())
        asked = [self.prompts[i] for i in mine for _ in range(self.config.samples)]
        texts = [self.pen.text(answer) for answer in answers]
        with failing_together(BadScores):  # on all ranks, or none goes on
            scores = np.asarray(self.scorer(asked, texts), dtype=np.float64)
            beside = told_by(self.scorer) | self._gold(asked, texts)
        size, device = self.arguments.per_device_eval_batch_size, self.accelerator.device
        with self.accelerator.autocast():
            seen = observed(self.core, self.reference, answers, pad=self.update.pad, size=size)
        gap = checked_sampler(self.accelerator, self.config, answers, seen) if self.step == 0 else None
        ended = torch.tensor([answer.ended for answer in answers], device=device)
        worth = torch.tensor(scores, dtype=seen.logps.dtype, device=device)
        experience = Experience(worth, ended, seen.lengths, seen.logps, seen.reference, seen.values)
        known = experience.gathered(self.accelerator)
        everyone = [self.prompts[i] for i in everywhere for _ in range(self.config.samples)]
        checked_scores(known.scores.double().cpu().numpy(), everyone, step=self.step)
        weighed = self.weigh(known, everywhere)
        here = torch.arange(len(answers), device=device) + self.rank * len(answers)
        width = experience.logps.shape[1]
        rollout = Rollout(answers, experience, weighed.take(here, width), self.step)
        generator = torch.Generator().manual_seed(int(seed))
        said = self.update(rollout, generator=generator) | {"entropy": seen.entropy} | beside
        self.schedule.step()
        if gap is not None:
            said["sampler_gap"] = gap
        kl = experience.kl.tolist()
        samples = [
            {"prompt": asked[i].messages[-1]["content"], "answer": texts[i], "score": float(scores[i]), "kl": kl[i]}
            for i in range(0, len(texts), max(len(texts) // 2, 1))
        ]
        shared = self.objective.described(known, weighed) | {"radius_fraction": self._strength()}
        return self._mean_over_ranks(said) | shared | {"samples": samples}

    def weigh(self, known: Experience, rows: np.ndarray) -> Weighed:
        """Weights and advantages of the rollout of all ranks; the same on each.

        Raises:
            KLExplosion: The mean KL of the answers is above ``max_kl``.
        """
        kl, strength = float(known.kl.mean()), self._strength()
        if not abs(kl) <= self.config.max_kl:
            raise KLExplosion(
                f"answers are {kl:.1f} nats from the reference at step {self.step + 1}, more than max_kl "
                f"({self.config.max_kl:g}), and the policy was not updated: raise kl_coefficient, lower the learning "
                "rate, or continue from the last checkpoint with a larger max_kl"
            )
        rule, shape = self.adversary.at(strength), (len(rows), self.config.samples)
        masses = None if self.masses is None else self.masses[torch.from_numpy(rows)].to(known.scores)
        reference = None if masses is None else masses / masses.sum()
        weighed, accuracy = self.objective.weighed(known, rule, rows, reference=reference), self.objective.accuracy
        advance_prompts(weighed.returns.reshape(shape), rule, rows, reference=reference, accuracy=accuracy)
        values = weighed.returns.reshape(shape).mean(dim=1)
        ratios = weighed.multipliers.reshape(shape)
        ratios = (ratios if reference is None else ratios / (len(rows) * reference[:, None])).double().cpu()  # q / p
        answered = None if rule is None else ratios.numpy()
        self.ledger.record(rows, ratios.mean(dim=1).numpy(), -values.double().cpu().numpy(), answered=answered)
        return weighed

    def _gold(self, asked: Sequence[Prompt], texts: Sequence[str]) -> dict[str, float]:
        return {} if self.gold is None else {"gold": float(np.mean(self.gold(asked, texts)))}

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
        names = [name for name in waiting[0] if name != "samples"]  # the first step alone knows the sampler's gap
        row = {name: _mean(step[name] for step in waiting if name in step) for name in names}
        row |= {"step": self.step, "learning_rate": self.schedule.get_last_lr()[0]}
        self.accelerator.log(row, step=self.step)
        self.history.append(json_ready(row | {"samples": waiting[-1]["samples"]}))
        bar.set_postfix({name: f"{row[name]:.3f}" for name in ("reward", "kl")})

    def _mean_over_ranks(self, said: dict[str, float]) -> dict[str, float]:
        found: defaultdict[str, list[float]] = defaultdict(list)
        for row in [said] if self.world == 1 else gather_object([said]):
            for name, number in row.items():
                found[name].append(number)
        return {name: float(np.mean(numbers)) for name, numbers in found.items()}

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
