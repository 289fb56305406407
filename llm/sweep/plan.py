"""What a sweep is told: models, regimes and grids from YAML, and the list of trainings they come to."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, get_args

import yaml

from dro_core.command_line.parser import meant

from ..data.columns import columns_of
from ..data.mixtures import parts_of
from ..models.settings import Precision
from ..run.files import JsonObject
from ..training.config import ConfigError, Iterate, RewardConfig
from ..training.settings import check_known, read_recipe
from .asked import Asked
from .head_settings import HeadTraining
from .regimes import Regime, read_regime

ITERATES = get_args(Iterate)
_AXES = ("model", "ambiguity", "radius", "regime", "batch_size", "learning_rate", "epochs", "seeds")


@dataclass(frozen=True)
class HeadModel:
    """A linear head on the frozen features of ``model``, or of the embeddings of its tokens alone (``static:NAME``).

    A grid may say otherwise than the three defaults.
    """

    model: str
    max_length: int = 128
    dtype: str = "float32"
    batch_size: int = 32
    learning_rate: float = 0.01
    epochs: float = 5.0

    def __post_init__(self) -> None:
        if self.dtype not in get_args(Precision):
            raise ConfigError(f"dtype must be one of {', '.join(get_args(Precision))}, got {self.dtype!r}")
        for name, least in (("max_length", 8), ("batch_size", 1), ("learning_rate", 0), ("epochs", 0)):
            value = getattr(self, name)
            if isinstance(value, str) or not (value >= least and value > 0):
                raise ConfigError(f"{name} of a head must be a number, at least {least} and positive, got {value!r}")


@dataclass(frozen=True)
class FullModel:
    """A whole reward model, as ``robust-rlhf train reward`` trains it; ``settings`` are its recipe and what changes it.

    Every iterate in ``final`` is a training of its own.
    """

    settings: JsonObject
    final: tuple[str, ...] = ("last",)
    keep_models: bool = False


Model = HeadModel | FullModel


@dataclass(frozen=True)
class Cell:
    """One training of a sweep.

    Attributes:
        model: A name among the sweep's models.
        ambiguity: Text of a set or rule; before it is resolved it may be matched: ``chi2:?@tv:0.2``.
        regime: A name among the regimes.
        seed: Of initial weights, order, subset and wrong labels.
        batch_size: Pairs per optimizer step; 0 for what the recipe of a whole model says.
        learning_rate: At the start; 0 likewise.
        epochs: Passes over the training pairs; 0 likewise.
        final: The iterates that are kept.
    """

    model: str
    ambiguity: str
    regime: str
    seed: int
    batch_size: int
    learning_rate: float
    epochs: float
    final: tuple[str, ...]


@dataclass(frozen=True)
class SweepConfig:
    """Everything that decides the results of a sweep.

    Attributes:
        data: ``builtin`` or ``shortcut``, which are made, or a folder with train.* and suites beside it; "" where the
            two settings below name all.
        models: By name.
        regimes: By name; ``all`` is there unless it is redefined.
        cells: The trainings, without repetitions.
        final: The iterates whose results are kept.
        head: How heads are trained.
        builtin: What ``write_corpus`` or ``write_shortcut`` of ``llm.data.corpus`` is told.
        validation_share: Share of the training prompts held out of every run.
        eval_pairs: At most this many pairs of each suite, a fixed random subset.
        shift_budget: Whether to write shift.json: how far the prompts of each suite lie from the training prompts.
        columns: Which column of the training file, and of the suites that have it, holds what.
        train_file: What to train on instead of what ``data`` has: texts of ``llm.data.mixtures.Part``.
        suites: Files to judge by instead of those that ``data`` has.
    """

    data: str
    models: dict[str, Model]
    regimes: dict[str, Regime]
    cells: tuple[Cell, ...]
    final: tuple[str, ...] = ITERATES
    head: HeadTraining = field(default_factory=HeadTraining)
    builtin: dict[str, object] = field(default_factory=dict)
    validation_share: float = 0.1
    eval_pairs: int | None = None
    shift_budget: bool = False
    columns: str | None = None
    train_file: tuple[str, ...] = ()
    suites: tuple[str, ...] = ()


def sweep_folder() -> Path:
    """The sweeps that travel with the package."""
    return Path(__file__).parents[1] / "recipes" / "sweeps"


def read_sweep(name: str, **instead: object) -> tuple[SweepConfig, str]:
    """A sweep from a YAML file, or a shipped one by its name; and its settings as YAML.

    Args:
        name: The file, or the name.
        **instead: Settings (``data``, ``train_file``, ...) in place of what the file says; None: as it says.

    Raises:
        ConfigError: No such file, unknown settings, values out of range; the message says what would do.
    """
    path = Path(name) if Path(name).exists() else sweep_folder() / f"{name}.yaml"
    if not path.is_file():
        shipped = sorted(recipe.stem for recipe in sweep_folder().glob("*.yaml"))
        raise ConfigError(f"no sweep {name!r}: give a YAML file or one of {', '.join(shipped)}{meant(name, shipped)}")
    settings = read_recipe(str(path)) | {key: value for key, value in instead.items() if value is not None}
    return parse_sweep(settings), yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)


def parse_sweep(settings: JsonObject) -> SweepConfig:
    """A sweep from settings by name. Raises as ``read_sweep``."""
    known = {f.name for f in fields(SweepConfig)} - {"cells"} | {"grid"}
    _refuse_unknown("the sweep", settings, known)
    models = {name: _model(name, given) for name, given in _mapping(settings, "models").items()}
    regimes = {"all": Regime()}
    regimes |= {name: read_regime(name, given) for name, given in _mapping(settings, "regimes", empty=True).items()}
    final = _names(settings.get("final", list(ITERATES)), ITERATES, "final")
    share = float(settings.get("validation_share", 0.1))
    if not 0 <= share < 1:
        raise ConfigError(f"validation_share must lie in [0, 1), got {share}")
    if "best" in final and not share:
        raise ConfigError("the best iterate is chosen by validation pairs: set validation_share, or leave best out")
    head, eval_pairs = settings.get("head", {}), settings.get("eval_pairs")
    if eval_pairs is not None and not (isinstance(eval_pairs, int) and eval_pairs > 0):
        raise ConfigError(f"eval_pairs must be a number of pairs, at least 1, got {eval_pairs!r}")
    _refuse_unknown("head", head, {f.name for f in fields(HeadTraining)})
    grids = settings.get("grid")
    grids = grids if isinstance(grids, list) else [grids]
    cells = dict.fromkeys(cell for grid in grids for cell in _cells(grid, models, regimes, final))
    return SweepConfig(
        **_data(settings),
        models=models,
        regimes=regimes,
        cells=tuple(cells),
        final=final,
        head=HeadTraining(**head),
        builtin=dict(settings.get("builtin", {})),
        validation_share=share,
        eval_pairs=eval_pairs,
        shift_budget=bool(settings.get("shift_budget", False)),
        columns=None if (columns := columns_of(settings.get("columns"))) is None else str(columns),
    )


def _data(settings: JsonObject) -> dict[str, Any]:
    """What to train on and be judged by; beside ``train_file`` the built-in corpus is read only where it is named."""
    files = [str(part) for part in parts_of(settings.get("train_file"))]
    suites = settings.get("suites") or []
    suites = [suites] if isinstance(suites, str) else suites
    if not (isinstance(suites, list) and all(isinstance(suite, str) for suite in suites)):
        raise ConfigError(f"suites must be files to judge by, got {suites!r}")
    data = settings.get("data") or ("" if files else "builtin")
    if not (data or suites):
        raise ConfigError("there is nothing to judge by: beside train_file, name suites, or a folder with them as data")
    return {"data": str(data), "train_file": tuple(files), "suites": tuple(suites)}


def _model(name: str, given: object) -> Model:
    settings = dict(given) if isinstance(given, dict) else {}
    kind = settings.pop("kind", None)
    if kind == "head":
        _refuse_unknown(f"the model {name}", settings, {f.name for f in fields(HeadModel)})
        if "model" not in settings:
            raise ConfigError(f"the model {name} lacks its model: name minilm, a folder or a hub name")
        return HeadModel(**settings)
    if kind == "full":
        final = _names(settings.pop("final", ["last"]), ITERATES, f"final of the model {name}")
        keep = bool(settings.pop("keep_models", False))
        recipe = read_recipe(settings.pop("recipe")) if "recipe" in settings else {}
        check_known(RewardConfig, recipe | settings, where=f"the model {name}")
        return FullModel(recipe | settings, final, keep)
    raise ConfigError(f"the model {name} must say its kind, head (on frozen features) or full, got {kind!r}")


def _cells(
    grid: object, models: Mapping[str, Model], regimes: Mapping[str, Regime], final: tuple[str, ...]
) -> Iterator[Cell]:
    """The trainings of one grid: the product of its axes."""
    if not isinstance(grid, dict):
        raise ConfigError(f"grid must be a mapping of axes ({', '.join(_AXES)}), or a list of such, got {grid!r}")
    _refuse_unknown("grid", grid, set(_AXES))
    seeds = grid.get("seeds", 1)
    axes = {
        "model": _names(grid.get("model", list(models)), models, "model"),
        "regime": _names(grid.get("regime", "all"), regimes, "regime"),
        "ambiguity": tuple(_specs(_listed(grid.get("ambiguity", "erm")), _listed(grid.get("radius", [])))),
        "batch_size": _numbers(grid, "batch_size", int),
        "learning_rate": _numbers(grid, "learning_rate", float),
        "epochs": _numbers(grid, "epochs", float),
        "seed": tuple(range(seeds)) if isinstance(seeds, int) else _numbers(grid, "seeds", int),
    }
    for values in itertools.product(*axes.values()):
        yield from _resolved(Cell(**dict(zip(axes, values, strict=True)), final=final), models)


def _resolved(cell: Cell, models: Mapping[str, Model]) -> Iterator[Cell]:
    """The cell with the defaults of its model; a whole model once for each of its iterates."""
    model = models[cell.model]
    if isinstance(model, FullModel):
        if Asked.of(cell.ambiguity).reference is not None:
            raise ConfigError(f"{cell.ambiguity} is matched on the losses of heads: give {cell.model} a radius")
        yield from (replace(cell, final=(final,)) for final in model.final)
        return
    defaults = {name: getattr(model, name) for name in ("batch_size", "learning_rate", "epochs")}
    yield replace(cell, **{name: value for name, value in defaults.items() if not getattr(cell, name)})


def _specs(texts: list[object], radii: list[object]) -> Iterator[str]:
    """Texts of sets, ``{radius}`` replaced by every radius; all of them can be read."""
    for text in map(str, texts):
        if "{radius}" in text and not radii:
            raise ConfigError(f"{text} asks for radii, and the grid has none: add radius: [0.1, 0.2]")
        for radius in radii if "{radius}" in text else [""]:
            spec = text.replace("{radius}", str(radius))
            Asked.of(spec).check()
            yield spec


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _numbers(grid: Mapping[str, object], name: str, kind: type) -> tuple[object, ...]:
    """The values of an axis; 0 where it is left out."""
    values = _listed(grid.get(name, []))
    try:
        numbers = tuple(kind(value) for value in values)
    except (TypeError, ValueError):
        raise ConfigError(f"{name} of a grid must be numbers, got {values}") from None
    if name != "seeds" and not all(number > 0 for number in numbers):
        raise ConfigError(f"{name} of a grid must be positive, got {values}")
    return numbers or (0,)


def _names(value: object, known: Collection[str], what: str) -> tuple[str, ...]:
    names = tuple(map(str, _listed(value)))
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(f"unknown {what} {unknown[0]!r}: the known ones are {', '.join(known)}")
    return names


def _mapping(settings: Mapping[str, object], name: str, *, empty: bool = False) -> dict[str, object]:
    value = settings.get(name) or {}
    if not isinstance(value, dict) or not (value or empty):
        raise ConfigError(f"{name} must be a mapping of names, got {settings.get(name)!r}")
    return value


def _refuse_unknown(where: str, given: object, known: set[str]) -> None:
    if not isinstance(given, dict):
        raise ConfigError(f"{where} must be a mapping, got {given!r}")
    if unknown := sorted(map(str, given.keys() - known)):
        raise ConfigError(f"{where} has the unknown setting {unknown[0]!r}: it takes {', '.join(sorted(known))}")


__all__ = ["Cell", "FullModel", "HeadModel", "Model", "SweepConfig", "parse_sweep", "read_sweep"]
