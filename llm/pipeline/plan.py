"""The whole of RLHF from one file: which stages there are, what each is told, and what each needs of another.

``rlhf.yaml`` has a section per stage. A section is a recipe (``recipe: NAME``) and any settings over it, as on the
command line of ``train``; ``robust: SET`` at the reward and the policy stage is the switch of the ablation: with it the
stage is trained twice, plainly and against that set.

    output_dir: runs/rlhf
    train_file: train.jsonl            # pairs; for the policy, their prompts
    seeds: 2                           # of reward models and policies; the start is shared
    sft:    {recipe: sft-tiny}         # optional: else the policy's own model is the start
    reward: {recipe: reward-tiny, robust: "tv:0.2,by=source"}
    policy: {recipe: policy-tiny, robust: "tv:0.2,by=source"}
    evaluation: {pairs: [test.jsonl], prompts: [test.jsonl], gold: builtin, best_of: 16}

Stages are independent runs in their own folders, so each can be looked at, resumed and judged alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from transformers import TrainingArguments

from ..data.columns import columns_of
from ..kinds.registry import config_of
from ..policy.config import samples_by_default
from ..run.files import JsonObject
from ..training.config import ConfigError, RunConfig
from ..training.settings import check_known, parse_settings, read_recipe

STANDARD, ROBUST = "standard", "robust"
_DECIDED = ("output_dir", "seed", "resume", "overwrite", "dry_run", "suites", "gold", "publish")
_STAGES = ("sft", "reward", "policy")


class Combination(NamedTuple):
    """A cell of the ablation: how the reward model and how the policy were trained, ``standard`` or ``robust``."""

    reward: str
    policy: str

    def __str__(self) -> str:
        return f"{self.reward}/{self.policy}"


@dataclass(frozen=True)
class Stage:
    """One run.

    Attributes:
        name: For people: ``policy robust/standard, seed 0``.
        kind: What is trained: a key of ``llm.run.kinds.KINDS``.
        folder: Where the run is kept.
        settings: All of them, by name.
        seed: Of the run.
        arm: The cell of the ablation of a policy; None for what arms share.
    """

    name: str
    kind: str
    folder: Path
    settings: JsonObject
    seed: int
    arm: Combination | None = None

    @property
    def model(self) -> Path:
        """The exported model, when the run is done."""
        return self.folder / "model"

    def parsed(self) -> tuple[Any, TrainingArguments]:
        """The settings as the run takes them.

        Raises:
            ConfigError: A setting is unknown or out of its interval; the message names the stage.
        """
        try:
            return parse_settings(config_of(self.kind), self.settings, where=f"stage {self.name}")
        except ConfigError as error:
            said = str(error)
            raise ConfigError(said if said.startswith("stage ") else f"stage {self.name}: {said}") from error


@dataclass(frozen=True)
class Judging:
    """What models are judged by.

    Attributes:
        pairs: Preference files for the reward models.
        prompts: Files of prompts, or of pairs for their prompts, for the policies.
        gold: A reward that nothing is trained on, by any of the names in ``llm.rewards.names``.
        best_of: Answers per prompt that best-of-n chooses from, drawn from the policy that all arms start from; 0 for
            no best-of-n.
    """

    pairs: list[str] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)
    gold: str | None = None
    best_of: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.best_of, int) or isinstance(self.best_of, bool) or self.best_of < 0 or self.best_of == 1:
            raise ConfigError(
                "evaluation: best_of is how many answers to a prompt best-of-n chooses from and must be at least 2, or "
                f"0 for no best-of-n; got {self.best_of!r}"
            )
        for name in ("prompts", "gold"):
            if self.best_of and not getattr(self, name):
                raise ConfigError(f"evaluation: best_of answers prompts and is judged by gold: name {name} beside it")


@dataclass(frozen=True)
class Pipeline:
    """What ``rlhf.yaml`` says.

    Attributes:
        output_dir: Holds the folders of all stages.
        reward: Settings of the reward stage.
        policy: Settings of the policy stage.
        sft: Settings of supervised fine-tuning; None starts from the policy's ``model``.
        train_file: For every stage that names none; several with their weights, as ``train --train_file`` takes them.
        columns: Which column of these files holds what, as ``train --columns`` takes it.
        seeds: How many, from 0.
        arms: Cells of the ablation, ``reward/policy``; empty: all that the switches allow.
        evaluation: Fields of ``Judging``.
    """

    output_dir: str
    reward: JsonObject
    policy: JsonObject
    sft: Mapping[str, object] | None = None
    train_file: str | Sequence[object] | None = None
    columns: str | Mapping[str, str] | None = None
    seeds: int = 1
    arms: Sequence[str] = ()
    evaluation: JsonObject = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.seeds, int) or isinstance(self.seeds, bool) or self.seeds < 1:
            raise ConfigError(f"seeds is how many seeds to train and must be at least 1, got {self.seeds!r}")
        for name in _STAGES:
            if (section := getattr(self, name)) is not None:
                _check_section(name, section)
        _check_names("evaluation", self.evaluation, {entry.name for entry in fields(Judging)})
        if self.sft is not None and "model" in self.policy:
            raise ConfigError("policy: model is what the sft stage makes: drop it here, or drop the section sft")
        self.cells()
        self.judged_by()

    def cells(self) -> list[Combination]:
        """The arms that are trained, the plainest first."""
        switches = [
            (STANDARD, ROBUST) if "robust" in section else (STANDARD,) for section in (self.reward, self.policy)
        ]
        possible = [Combination(*names) for names in product(*switches)]
        if unknown := [name for name in self.arms if name not in map(str, possible)]:
            raise ConfigError(
                f"arms: {unknown[0]!r} cannot be trained: choose from {', '.join(map(str, possible))}; a stage can be "
                "robust where its section says robust: SET"
            )
        return [arm for arm in possible if not self.arms or str(arm) in self.arms]

    def judged_by(self) -> Judging:
        """The section ``evaluation``."""
        return Judging(**self.evaluation)

    def stages(self) -> list[Stage]:
        """All runs, each after those whose models it needs."""
        return [*self._start(), *(stage for seed in range(self.seeds) for stage in self._of_seed(seed))]

    def _start(self) -> Iterator[Stage]:
        if self.sft is not None:
            yield self._stage("sft", Path("sft"), "sft", {}, seed=0)

    def _of_seed(self, seed: int) -> Iterator[Stage]:
        """Reward models that an arm needs, then the policies of all arms."""
        base, cells, start = Path(f"seed-{seed}"), self.cells(), [stage.model for stage in self._start()]
        judged = self.judged_by()
        rewards: dict[str, Stage] = {}
        for how in dict.fromkeys(arm.reward for arm in cells):
            wired: dict[str, object] = {"ambiguity": self._set(self.reward, how), "suites": judged.pairs or None}
            folder = base / "reward" / how
            rewards[how] = self._stage("reward", folder, f"reward {how}, seed {seed}", wired, seed=seed)
        yield from rewards.values()
        for arm in cells:
            wired = {"ambiguity": self._set(self.policy, arm.policy), "suites": judged.prompts or None}
            wired |= {"reward_model": str(rewards[arm.reward].model), "gold": judged.gold}
            wired |= {"model": str(start[0])} if start else {}
            wired |= self._equal_answers()
            folder = base / "policy" / f"{arm.reward}-{arm.policy}"
            yield self._stage("policy", folder, f"policy {arm}, seed {seed}", wired, seed=seed, arm=arm)

    def _equal_answers(self) -> dict[str, object]:
        """As many answers for the plain arms as the robust ones take by default: arms differ in the set alone."""
        if "samples" in _settings(self.policy):
            return {}
        return {"samples": samples_by_default(self.policy.get("robust", "erm"))}

    def _columns(self) -> str | None:
        columns = columns_of(self.columns)
        return None if columns is None else str(columns)

    def _set(self, section: JsonObject, how: str) -> str:
        return section["robust"] if how == ROBUST else "erm"

    def _stage(
        self,
        kind: str,
        folder: Path,
        name: str,
        wired: Mapping[str, object],
        *,
        seed: int,
        arm: Combination | None = None,
    ) -> Stage:
        """A run of the section ``kind``, with the settings ``wired`` by the pipeline over it; None is no setting."""
        place = Path(self.output_dir) / folder
        own = _settings(getattr(self, kind))
        shared = {} if "train_file" in own else {"train_file": self.train_file, "columns": self._columns()}
        settings = {**shared, **own, **wired}
        settings |= {"output_dir": str(place), "seed": seed, "resume": True}
        return Stage(name, kind, place, {key: value for key, value in settings.items() if value is not None}, seed, arm)


def read_pipeline(path: str | Path, *, columns: str | None = None, output_dir: str | None = None) -> Pipeline:
    """Read and check ``rlhf.yaml``, the settings of every stage too: nothing is trained before all is right.

    Args:
        path: The file.
        columns: Instead of those that the file names.
        output_dir: Instead of the folder that it names.

    Raises:
        ConfigError: The file, a section, a setting or an arm makes no sense; the message names it.
    """
    instead: JsonObject = {"columns": columns, "output_dir": output_dir}
    settings = read_recipe(str(path)) | {name: value for name, value in instead.items() if value is not None}
    _check_names(str(path), settings, {entry.name for entry in fields(Pipeline)})
    for name in ("output_dir", "reward", "policy"):
        if not settings.get(name):
            raise ConfigError(f"{path}: {name} is missing" + ("" if name == "output_dir" else ": it needs a section"))
    for name in (*_STAGES, "evaluation"):
        if name in settings and not isinstance(settings[name], dict):
            raise ConfigError(f"{path}: {name} must be a section of settings, got {settings[name]!r}")
    pipeline = Pipeline(**settings)
    for stage in pipeline.stages():
        stage.parsed()
    return pipeline


def _settings(section: JsonObject) -> dict[str, object]:
    """The recipe of a section and what the section changes."""
    recipe = read_recipe(section["recipe"]) if section.get("recipe") else {}
    return recipe | {name: value for name, value in section.items() if name not in ("recipe", "robust")}


def _check_section(name: str, section: Mapping[str, object]) -> None:
    kind: type[RunConfig] = config_of(name)
    check_known(kind, {key: value for key, value in section.items() if key not in ("recipe", "robust")}, where=name)
    decided = {*_DECIDED, *(("reward_model",) if name == "policy" else ()), *(() if name == "sft" else ("ambiguity",))}
    if taken := sorted(decided & section.keys()):
        instead = {
            "ambiguity": "the switch is robust: SET; without it the stage is trained plainly",
            "suites": "name pairs and prompts in evaluation",
            "gold": "it belongs into evaluation",
        }.get(taken[0], "the pipeline decides it")
        raise ConfigError(f"{name}: {taken[0]} cannot be set here: {instead}")
    if "robust" in section and (name == "sft" or section["robust"] in (None, "", "erm")):
        reason = "sft has no switch: set ambiguity" if name == "sft" else "robust names the set of the robust arm"
        raise ConfigError(f"{name}: robust is {section['robust']!r}, but {reason}")


def _check_names(where: str, given: Mapping[str, object], known: set[str]) -> None:
    if unknown := sorted(given.keys() - known):
        raise ConfigError(f"{where}: unknown entry {unknown[0]!r}: there are {', '.join(sorted(known))}")
