"""Low-rank adapters through peft: put on before training, merged on export, found again on loading."""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedModel

from ..run.files import JsonObject
from ..run.finished import check_model
from .architectures import head_modules, tied_embeddings
from .fetching import ModelError, model_of
from .quantised import is_quantised

if TYPE_CHECKING:
    from peft import PeftModel

_SETTINGS = "adapter_config.json"
_UNFIT = (OSError, RuntimeError, TypeError, ValueError, SafetensorError, pickle.UnpicklingError)
_DRAWN = "weights_drawn_at_random"  # an attribute of a loaded model


def remember_drawn(model: PreTrainedModel, names: Sequence[str]) -> PreTrainedModel:
    """The model, which from now on knows which of its weights were in no file: an adapter must carry them."""
    setattr(model, _DRAWN, list(names))
    return model


@dataclass(frozen=True)
class Adapter:
    """A low-rank adapter to train.

    Attributes:
        rank: Of its matrices.
        alpha: Its scale; None: twice the rank.
        dropout: Inside it.
        targets: Names of the modules that get one, or ``all-linear``.
        alone_on: The name of the model below it, where it is exported alone; None: it is merged.
    """

    rank: int
    alpha: float | None = None
    dropout: float = 0.0
    targets: Sequence[str] = ("all-linear",)
    alone_on: str | None = None


def with_adapter(model: PreTrainedModel, adapter: Adapter | None, *, task: str) -> nn.Module:
    """The model to train: itself, or frozen under a new adapter.

    Args:
        model: The model to start from.
        adapter: None: all weights are trained.
        task: What peft calls the kind of model; with ``SEQ_CLS`` the head is trained whole beside the adapter.

    Raises:
        ModelError: peft is missing, no module has the name of a target, or the adapter could not stand alone; all
            weights are to be trained, and they are in few bits.
    """
    if adapter is None:
        if is_quantised(model):
            raise ModelError(f"the weights of {model.name_or_path} are quantised and cannot be trained: set lora_rank")
        return model
    peft, targets = _peft(), list(adapter.targets)
    if adapter.alone_on is not None and len(adapter_chain(adapter.alone_on)) > 1:
        raise ModelError(f"an adapter on top of the one in {adapter.alone_on} cannot stand alone: keep merge_adapter")
    settings = peft.LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha if adapter.alpha is not None else 2 * adapter.rank,
        lora_dropout=adapter.dropout,
        target_modules=targets[0] if targets == ["all-linear"] else targets,
        task_type=task,
        modules_to_save=head_modules(model, getattr(model, _DRAWN, ())) if task == "SEQ_CLS" else None,
    )
    try:
        with _quiet(), _untouched_ties(model):
            adapted = peft.get_peft_model(model, settings)
        settings.base_model_name_or_path = _lasting(model.name_or_path)
        return _lifted(adapted)
    except (TypeError, ValueError) as error:
        raise ModelError(f"lora_targets {' '.join(targets)} does not fit this model: {error}") from error


def _lifted(model: PeftModel) -> PeftModel:
    """The trained weights in at least float32, as peft keeps its matrices: small steps vanish in bfloat16 ones."""
    for module in model.modules():
        own = [part for part in module.parameters(recurse=False) if part.requires_grad]
        if any(part.dtype in (torch.bfloat16, torch.float16) for part in own):
            module.float()
            module.register_forward_pre_hook(_as_weights)
    return model


def _as_weights(module: nn.Module, inputs: tuple[object, ...]) -> tuple[object, ...]:
    """Without autocast a float32 head would refuse the half-precision states below it."""
    dtype = next(module.parameters()).dtype
    return tuple(part.to(dtype) if torch.is_tensor(part) and part.is_floating_point() else part for part in inputs)


def merged(model: Any, *, merge: bool) -> PreTrainedModel:
    """What is exported: the model with its adapter folded into the weights, or the adapter alone.

    Alone it is with ``merge`` off, and on weights in few bits: folded in, it would be rounded with them.
    """
    return (
        model.merge_and_unload() if merge and hasattr(model, "merge_and_unload") and not is_quantised(model) else model
    )


def adapter_chain(name: str) -> list[str]:
    """The base model of a folder that holds an adapter, and the adapters on it; any other name is a model by itself.

    Raises:
        ModelError: An adapter does not say what it belongs to, or the folder that it names is gone.
    """
    chain = [model_of(name)]
    while (settings := Path(chain[0]) / _SETTINGS).exists():
        base = _read(settings).get("base_model_name_or_path")
        if not base or not isinstance(base, str):
            raise ModelError(f"{chain[0]} holds an adapter without the name of its base model: add it to {_SETTINGS}")
        base = model_of(_place(base, settings.parent))
        if Path(base).is_absolute() and not Path(base).exists():
            raise ModelError(
                f"{chain[0]} holds an adapter for {base}, which is not there: write where its base model is now into "
                f"base_model_name_or_path of its {_SETTINGS}"
            )
        if base in chain:
            raise ModelError(f"{chain[0]} holds an adapter for itself: name its base model in {_SETTINGS}")
        chain.insert(0, base)
    return chain


def _lasting(name: str | None) -> str | None:
    """A folder by its whole path, for readers that start elsewhere; a hub name, or none, as it is."""
    return str(Path(name).resolve()) if name and Path(name).is_dir() else name


def _place(base: str, folder: Path) -> str:
    """Where the base model of the adapter in ``folder`` is.

    Older adapters name it from where their run was started: one of the folders around them, as a rule.
    """
    if not Path(base).is_absolute():
        for around in folder.resolve().parents:
            if any((around / base / settings).exists() for settings in ("config.json", _SETTINGS)):
                return str(around / base)
    return base


def has_tokenizer(folder: str) -> bool:
    """Whether a tokenizer lies beside an adapter; those made elsewhere often come without."""
    return (Path(folder) / "tokenizer_config.json").exists()


def adapter_task(name: str) -> str | None:
    """What peft calls the kind of model an adapter is for; None where there is no adapter, or it does not say."""
    settings = Path(model_of(name)) / _SETTINGS
    return _read(settings).get("task_type") if settings.exists() else None


def _read(settings: Path) -> JsonObject:
    """The settings of an adapter.

    Raises:
        ModelError, RunError: They are none, or not what was written.
    """
    check_model(settings.parent)
    try:
        found = json.loads(settings.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{settings} cannot be read ({error}): put a whole copy of it back") from error
    if not isinstance(found, dict):
        raise ModelError(f"{settings} holds a {type(found).__name__} and no settings: put a whole copy of it back")
    return found


def merge_adapter(model: PreTrainedModel, folder: str) -> tuple[PreTrainedModel, set[str]]:
    """The model with the adapter of ``folder`` folded into its weights, and the names of weights it brings whole.

    All that could be trained before can be trained again.

    Raises:
        ModelError: The adapter does not fit this model, or is of a kind that cannot be merged.
    """
    peft = _peft()
    _check_kind(folder)
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    try:
        brought = {_plain(key): value.shape for key, value in peft.utils.load_peft_weights(folder, "cpu").items()}
        _make_room(model, brought)
        with _quiet(), _untouched_ties(model):
            warnings.filterwarnings("error", "Found missing adapter keys", UserWarning)  # it would go on without them
            adapted = peft.PeftModel.from_pretrained(model, folder)
    except (*_UNFIT, UserWarning) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"the adapter in {folder} does not fit {model.name_or_path}: {reason}") from error
    whole = adapted.merge_and_unload()
    for name, weight in whole.named_parameters():
        weight.requires_grad_(name in trained)
    return whole, set(brought)


def _check_kind(folder: str) -> None:
    """Look at the settings before peft does: of other kinds some read files that they name, or import what they name.

    Raises:
        ModelError: The adapter cannot be merged, or names code.
    """
    settings = json.loads((Path(folder) / _SETTINGS).read_text(encoding="utf-8"))
    kinds = _peft().mapping.PEFT_TYPE_TO_TUNER_MAPPING
    if not hasattr(kinds.get(settings.get("peft_type")), "merge_and_unload"):
        raise ModelError(f"the adapter in {folder} cannot be merged into weights: only LoRA and its relatives can")
    if settings.get("megatron_config"):
        raise ModelError(f"the adapter in {folder} names code to import: take megatron_config out of its {_SETTINGS}")


def _plain(key: str) -> str:
    """The name of a weight inside the model that peft wraps."""
    return key.removeprefix("base_model.model.").replace(".modules_to_save", "")


def _make_room(model: PreTrainedModel, brought: dict[str, torch.Size]) -> None:
    """Enlarge the embedding where the adapter was trained with added tokens and brings one with more rows."""
    embedding: Any = model.get_input_embeddings()
    name = next((name for name, weight in model.named_parameters() if weight is embedding.weight), "")
    if name in brought and brought[name][0] > embedding.num_embeddings:
        model.resize_token_embeddings(brought[name][0], mean_resizing=False)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide that peft asks for an attribute which transformers has renamed, and what it does about GPT-2's layers."""
    with warnings.catch_warnings():
        for said in ("fan_in_fan_out is set to False", "Model (has|with) `tie_word_embeddings=True`"):
            warnings.filterwarnings("ignore", said, UserWarning)
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield


@contextmanager
def _untouched_ties(model: PreTrainedModel) -> Iterator[None]:
    """Refuse an adapter on one of two layers that share a weight: merged into it, it would change the other as well.

    Raises:
        ValueError: When the adapter is on.
    """
    shared = tied_embeddings(model)
    yield
    now = (model.get_input_embeddings(), model.get_output_embeddings())
    if shared and any(hasattr(part, "base_layer") for part in now):
        raise ValueError(
            "input and output embedding share one weight, so that no adapter of either can be merged: leave both out"
        )


def _peft() -> Any:
    try:
        import peft
    except ModuleNotFoundError:
        raise ModelError("adapters need peft: pip install peft") from None
    return peft
