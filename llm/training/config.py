"""What a run is told: one dataclass for what all kinds of training share, one more for each kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, get_args

from dro_core.command_line.settings import setting

from ..adversary.radius.settings import LastWindow, SliceSettings, check_slice
from ..audit.limits import AuditLimits, check_limits
from ..data.columns import columns_of
from ..data.mixtures import held_out_parts, settled
from ..data.trained_on.pairs import CrossPrompt, check_share
from ..models.settings import FromScratch, LoadingSettings, SystemTurns, check_quantised
from ..run.kinds import has_reference
from ..text.encoding import TooLong
from .soft.settings import SoftLabels, check_soft_labels

if TYPE_CHECKING:
    from ..adversary.schedule import RadiusSchedule
    from ..models.adapters import Adapter


class ConfigError(ValueError):
    """A recipe or flag that makes no sense; the message says which and what would."""


Iterate = Literal["last", "best", "average"]
ReferenceKind = Literal["auto", "model", "adapter", "precomputed"]
_CAUSAL = "alias (smollm2), tiny (from scratch), folder or hub name of a causal model"


@dataclass
class RunConfig(LoadingSettings):
    """What every run is told: from which model, against which adversary, how it is kept."""

    kind: ClassVar[str] = ""  # in ``llm.run.kinds``
    own_answers: ClassVar[bool] = False  # trained on what the model writes, not on pairs
    best_metric: ClassVar[str] = "accuracy"  # on the held-out pairs, what final=best goes by unless told

    train_file: str | list[str] = setting(
        "", "data", "pairs: a file, a folder or hf://datasets/OWNER/NAME:SPLIT; several, each with :WEIGHT"
    )
    columns: str | None = setting(
        None, "data", "which column holds what, for files in no known layout: prompt=question,chosen=good,..."
    )
    suites: list[str] = setting([], "judging", "files to evaluate on after training")
    subset_seed: int = setting(0, "data", "which random subset of the data is taken, and which prompts are held out")
    max_length: int = setting(512, "model", "tokens per answer with its prompt")
    ambiguity: str = setting(
        "erm",
        "adversary",
        "erm, tv:0.2, tv:auto=0.5, tv:0.2,max_ratio=4, tv:0.2,by=source, cvar:0.3, chi2:0.5, kl:0.3, ...",
    )
    plain_share: float = setting(0.0, "adversary", "share of the steps trained plainly first")
    ramp_share: float = setting(0.0, "adversary", "share of the steps over which the radius then grows")
    lora_rank: int = setting(
        0, "adapter", "train a low-rank adapter of this rank instead of all weights; 0: all weights"
    )
    lora_alpha: float | None = setting(None, "adapter", "scale of the adapter (default: twice the rank)")
    lora_dropout: float = setting(
        0.0, "adapter", "dropout inside the adapter; needs gradient_accumulation_steps 1", rare=True
    )
    lora_targets: list[str] = setting(["all-linear"], "adapter", "modules to be adapted")
    merge_adapter: bool = setting(True, "adapter", "export the model with the adapter merged in, not the adapter alone")
    publish: str | None = setting(
        None, "run", "upload the exported model with its card to this hub repository (OWNER/NAME)"
    )
    dry_run: bool = setting(False, "run", "print the plan of the run and stop")
    resume: bool = setting(False, "run", "continue the run in output_dir")
    skip_damaged: bool = setting(
        False, "run", "resume from the newest checkpoint that is whole where a newer one is damaged", rare=True
    )
    force: bool = setting(False, "run", "resume although settings changed; the model card says so")
    overwrite: bool = setting(False, "run", "delete the run in output_dir first")

    def __post_init__(self) -> None:
        from ..adversary.spec import parse_reweighting  # loads torch, which what is told does without

        try:
            parse_reweighting(self.ambiguity)
            self.schedule()
            columns = columns_of(self.columns)
            self.train_file = settled(self.train_file)  # one text for one mixture, however it was written
            check_quantised(self, lora_rank=self.lora_rank)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        self.columns = None if columns is None else str(columns)  # one text for one mapping, however it was written
        self.check_shares("lora_dropout")
        self.check_least(max_length=8, lora_rank=0)
        self.check_choices(system_turns=SystemTurns)
        self.merge_adapter &= self.quantised is None  # into few bits nothing can be merged without rounding
        if self.lora_rank and not self.merge_adapter and self.model == "tiny":
            raise ConfigError("an adapter for tiny cannot stand alone, its base is nowhere else: keep merge_adapter")
        if self.system_turns == "fold" and self.model == "tiny":
            raise ConfigError("system_turns=fold changes the template of a model, and tiny has none: leave it out")

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Self:
        """The settings that a ``run.json`` of this or an earlier version holds; what is gone since is left out."""
        return cls(**{name: value for name, value in record.items() if name in {f.name for f in fields(cls) if f.init}})

    def check_shares(self, *names: str) -> None:
        """Refuse settings outside [0, 1)."""
        for name in names:
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ConfigError(f"{name} must lie in [0, 1), got {getattr(self, name)}")

    def check_least(self, **least: float) -> None:
        """Refuse settings below a bound; None is no setting."""
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and not value >= bound:
                raise ConfigError(f"{name} must be at least {bound}, got {value}")

    def check_choices(self, **kinds: object) -> None:
        """Refuse settings that are none of the values of their ``Literal``."""
        for name, kind in kinds.items():
            if getattr(self, name) not in get_args(kind):
                raise ConfigError(f"{name} must be one of {', '.join(get_args(kind))}, got {getattr(self, name)!r}")

    def schedule(self) -> RadiusSchedule:
        """The radius schedule these fields describe."""
        from ..adversary.schedule import RadiusSchedule

        return RadiusSchedule(plain_share=self.plain_share, ramp_share=self.ramp_share)

    def reads(self) -> dict[str, str | None]:
        """The models that the run is made from, by role; their content is part of what the run is."""
        return {"model": self.model}

    def from_scratch(self) -> FromScratch:
        """How ``tiny`` is made: the arguments of ``tiny_reward_model`` and ``tiny_policy``."""
        return {
            "max_length": self.max_length, "attn_implementation": self.attn_implementation, "dtype": self.dtype,
        }  # fmt: skip

    def adapter(self) -> Adapter | None:
        """The adapter to train instead of all weights."""
        from ..models.adapters import Adapter

        alone_on = None if self.merge_adapter else self.model
        lora = Adapter(self.lora_rank, self.lora_alpha, self.lora_dropout, self.lora_targets, alone_on)
        return lora if self.lora_rank else None


@dataclass
class TrainConfig(CrossPrompt, SliceSettings, AuditLimits, RunConfig):
    """Training on preference pairs."""

    eval_pairs: int | None = setting(None, "judging", "evaluate at most this many pairs of each suite")
    eval_file: str | list[str] = setting(
        "", "judging", "held-out pairs for evaluation while training: a file, or several"
    )
    validation_share: float = setting(0.0, "judging", "share of the training prompts to hold out instead of eval_file")
    too_long: TooLong = setting(
        "cut", "model", "what becomes of a pair of more than max_length tokens: cut, drop or refuse"
    )
    padding_free: bool = setting(
        False, "model", "read the sequences of a batch in one row without padding, where attention keeps them apart"
    )
    cache_tokens: bool = setting(
        True, "model", "keep the tokens of large training sets on disk, for the next run on the same"
    )
    max_pairs: int | None = setting(None, "data", "train on a random subset of this size")
    passes: str = setting(
        "auto",
        "adversary",
        "how often a step looks at its examples: auto once where one micro-batch holds them all, else "
        "twice; single insists on once; two always looks twice, cheaper where a set ignores many",
    )
    last_window: LastWindow = setting(
        "drop",
        "adversary",
        "under a set: what is left over at the end of an epoch and fills no effective batch; keep takes a "
        "full-size step of the worst case of these alone",
    )
    adapt_radius: bool = setting(
        False, "adversary", "raise the radius while the loss of the worst held-out category falls, back off otherwise"
    )
    final: Iterate = setting("last", "judging", "what is exported; best needs eval_file or validation_share")
    average_after: float = setting(0.5, "judging", "final=average leaves out this share of the steps")
    patience: int | None = setting(None, "judging", "final=best stops after this many evaluations without improvement")

    def __post_init__(self) -> None:
        from .passes import check_passes

        super().__post_init__()
        self.check_shares("validation_share", "average_after")
        self.check_least(max_pairs=1, eval_pairs=1, patience=1)
        try:
            self.eval_file = settled(held_out_parts(self.eval_file))
            check_passes(self.passes)
            check_share(self.cross_prompt)
            for check in (check_limits, check_slice, check_soft_labels):
                check(self)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        self.check_choices(final=Iterate, last_window=LastWindow, too_long=TooLong)
        self._check_held_out()

    @property
    def outline(self) -> bool:
        """A plan does without weights."""
        return self.dry_run

    def _check_held_out(self) -> None:
        """What needs held-out pairs must have them."""
        if self.patience is not None and self.final != "best":
            raise ConfigError("patience counts evaluations since the best one: it needs final=best")
        for name, wanted in (("final=best", self.final == "best"), ("adapt_radius", self.adapt_radius)):
            if wanted and not (self.eval_file or self.validation_share):
                raise ConfigError(f"{name} needs held-out pairs: set eval_file or validation_share")


@dataclass
class RewardConfig(SoftLabels, TrainConfig):
    """A Bradley-Terry reward model."""

    kind: ClassVar[str] = "reward"


@dataclass
class SFTConfig(TrainConfig):
    """A policy that imitates the chosen answers."""

    kind: ClassVar[str] = "sft"
    best_metric: ClassVar[str] = "loss"

    model: str = setting("smollm2", "model", _CAUSAL)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cross_prompt:
            raise ConfigError("cross_prompt adds rejected answers, which sft does not read: leave it out")


@dataclass
class DPOConfig(SoftLabels, TrainConfig):
    """A policy trained on preferences directly, against a reference policy."""

    kind: ClassVar[str] = "dpo"

    model: str = setting("smollm2", "model", _CAUSAL)
    beta: float = setting(
        0.1, "reference", "scale of log-ratios: strength of the KL regularisation towards the reference"
    )
    loss: str = setting("sigmoid", "update", "loss of a pair: sigmoid, ipo, cdpo:0.1, simpo:0.5, orpo, and others")
    reference: ReferenceKind = setting(
        "auto",
        "reference",
        "model: a second model; adapter: the policy without its adapter; precomputed: once, kept on disk; "
        "auto: adapter with lora_rank, else precomputed, or none where the loss needs none",
    )
    reference_model: str | None = setting(None, "reference", "the reference (default: the starting model)")
    reference_cache: str | None = setting(
        None, "reference", "file of precomputed reference log-probabilities (default: output_dir/reference.npz)"
    )

    def __post_init__(self) -> None:
        from .objectives.table import check_reference, parse_pair_loss

        super().__post_init__()
        if not self.beta > 0:
            raise ConfigError(f"beta must be positive, got {self.beta}")
        self.check_choices(reference=ReferenceKind)
        try:
            parse_pair_loss(self.loss, beta=self.beta)
            check_reference(self)
        except ValueError as error:
            raise ConfigError(str(error)) from error

    def reads(self) -> dict[str, str | None]:
        """The model and, where it is another one, the reference."""
        return super().reads() | {"reference_model": self.reference_model}

    def reference_kind(self) -> ReferenceKind | None:
        """``reference`` with ``auto`` decided; None where the loss needs none."""
        if not has_reference(self.loss):
            return None
        if self.reference != "auto":
            return self.reference
        return "adapter" if self.lora_rank and not self.reference_model else "precomputed"
