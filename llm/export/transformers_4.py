"""Model folders of transformers 5 in words that version 4 reads too: RewardBench 0.1.4 is pinned to 4.51."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..run.files import write_json

# Rotary bases by kind of layer, where version 4 had one setting each.
_BASES = {"modernbert": {"full_attention": "global_rope_theta", "sliding_attention": "local_rope_theta"}}


class OldConfigError(ValueError):
    """A model that version 4 of transformers cannot describe."""


def write_for_version_4(folder: Path) -> None:
    """Add the older names beside the newer ones in the configuration and tokenizer settings of ``folder``.

    Version 4 ignores names it does not know and takes defaults instead, so that a missing one is no error but
    another model: rotary bases, which layers see everything.

    Raises:
        OldConfigError: The layers alternate in a way that version 4 has no words for.
    """
    for name, translated in (("config.json", _config), ("tokenizer_config.json", _tokenizer)):
        path = folder / name
        write_json(path, translated(json.loads(path.read_text(encoding="utf-8"))))


def _config(config: dict[str, Any]) -> dict[str, object]:
    added: dict[str, Any] = {"torch_dtype": config.get("dtype")}
    rotary = config.get("rope_parameters") or {}
    if "rope_theta" in rotary:
        added["rope_theta"] = rotary["rope_theta"]
        scaling = {key: value for key, value in rotary.items() if key != "rope_theta"}
        added["rope_scaling"] = None if scaling.get("rope_type") == "default" else scaling
    for layer, older in _BASES.get(config["model_type"], {}).items():
        added[older] = rotary[layer]["rope_theta"]
    if config["model_type"] == "modernbert":
        added["global_attn_every_n_layers"] = _period(config["layer_types"])
    return config | added


def _period(layer_types: list[str]) -> int:
    """The n of "layer 0, n, 2 n, ... see everything, the others a window"."""
    whole = [layer == "full_attention" for layer in layer_types]
    for period in range(1, len(whole) + 1):
        if whole == [layer % period == 0 for layer in range(len(whole))]:
            return period
    raise OldConfigError(
        f"transformers 4.51 knows only layers that see everything in a fixed rhythm, and this model has "
        f"{', '.join(layer_types)}: RewardBench cannot run it"
    )


def _tokenizer(settings: dict[str, object]) -> dict[str, object]:
    changed = dict(settings)
    if changed.get("tokenizer_class") == "TokenizersBackend":  # unknown to version 4; version 5 reads both
        changed["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(changed.get("extra_special_tokens"), list):
        changed["additional_special_tokens"] = changed.pop("extra_special_tokens")
    return changed
