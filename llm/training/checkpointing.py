"""Checkpoints of ``transformers.Trainer`` that are known to be whole: written in order, verified, loaded as data."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import Trainer, TrainerState
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_utils import TrainOutput

from ..run.folder import MARKER, keep_newest, writing
from ..run.manifest import MANIFEST, write_manifest
from ..run.progress import Cost
from .guards import check_weights
from .processes import on_main_process
from .resuming import Resumable, best_of, check_parts, loading, verify

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class CheckpointingTrainer(Trainer):
    """A ``Trainer`` whose checkpoints end with a manifest, and that goes on from whole ones only.

    Attributes:
        resumable: What is saved and loaded beside what ``Trainer`` knows.

    Raises:
        CheckpointError: A checkpoint could not be written, and earlier ones are untouched; or it cannot be loaded.
    """

    resumable: list[Resumable]
    model: PreTrainedModel  # this and the following are those of Trainer, which allows None
    model_wrapped: nn.Module
    processing_class: PreTrainedTokenizerBase

    def train(self, resume_from_checkpoint: str | None = None, *, verified: bool = False, **kwargs: Any):  # type: ignore[override]
        """Train, or continue from a checkpoint folder together with everything in ``resumable``.

        Args:
            resume_from_checkpoint: The folder.
            verified: Whether the caller has read it whole.
            **kwargs: Those of ``Trainer.train``.
        """
        if resume_from_checkpoint is not None:
            folder = Path(resume_from_checkpoint)
            if not verified:
                on_main_process(lambda: verify(folder))
            with loading(folder, "the state of the run"):
                for part in self.resumable:
                    part.load(folder)
                state = TrainerState.load_from_json(str(folder / MARKER))
            total = self.args.max_steps if self.args.max_steps > 0 else state.max_steps
            if state.global_step >= total:  # only the export was missing; Trainer would take one more step
                self.state = state
                best = best_of(folder) if self.args.load_best_model_at_end else None
                if best is not None and best != folder:
                    on_main_process(lambda: verify(best))
                self._load_from_checkpoint(str(best or folder))
                return TrainOutput(state.global_step, float("nan"), {})
            self.cost.begin(state.global_step)
        else:
            self.cost.begin(0)
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    @cached_property
    def cost(self) -> Cost:
        """What the steps cost."""
        return Cost()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add what the steps since the last row cost; evaluations among them are left out."""
        if "loss" in logs:
            logs |= self.cost.row(self.state.global_step)
        self.cost.leave_out(logs.get("eval_runtime", 0.0))
        super().log(logs, start_time)

    # -- loading ----------------------------------------------------------------------------------

    def _load_best_model(self) -> None:
        """Load the best checkpoint from where the run folder is now, if it is whole."""
        best = Path(str(self.args.output_dir)) / Path(str(self.state.best_model_checkpoint)).name
        on_main_process(lambda: verify(best))
        self.state.best_model_checkpoint = str(best)
        with loading(best, "the weights"):
            super()._load_best_model()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        with loading(Path(resume_from_checkpoint), "the weights"):
            super()._load_from_checkpoint(resume_from_checkpoint, model=model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            check_parts(Path(checkpoint))  # Trainer would go on with fresh ones in silence
            with loading(Path(checkpoint), "the optimizer or its schedule"):
                super()._load_optimizer_and_scheduler(checkpoint)

    def _load_scaler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            with loading(Path(checkpoint), "the scale of the gradients"):
                super()._load_scaler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            with loading(Path(checkpoint), "the state of the random numbers"):
                super()._load_rng_state(checkpoint)

    # -- saving -----------------------------------------------------------------------------------

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:  # noqa: FBT001, FBT002
        """Save the model; inside a checkpoint everything ``resumable`` too, and no pickled settings."""
        super().save_model(output_dir, _internal_call=_internal_call)
        if _internal_call and output_dir is not None and self.args.should_save:
            (Path(output_dir) / TRAINING_ARGS_NAME).unlink(missing_ok=True)
            for part in self.resumable:
                part.save(Path(output_dir))

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()  # the manifest comes soon: every rank's part must stand before it

    def _save_checkpoint(self, model: nn.Module, trial: object) -> None:
        """As ``Trainer`` does, then the manifest, and only then do older checkpoints go."""
        step, output = self.state.global_step, Path(self._get_output_dir(trial=trial))
        check_weights(model, step)
        folder, limit = output / f"checkpoint-{step}", self.args.save_total_limit
        self.args.save_total_limit = None
        try:
            with writing(output, step):
                if self.args.should_save:
                    (folder / MANIFEST).unlink(missing_ok=True)
                super()._save_checkpoint(model, trial)
                if self.args.should_save:
                    write_manifest(folder)
        finally:
            self.args.save_total_limit = limit
        if self.args.should_save:
            keep_newest(output, limit, best=self.state.best_model_checkpoint)
