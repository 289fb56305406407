"""How a server gets the policy's weights: from a folder that it reads between rollouts, by one of two doors of vLLM.

- ``reload``: all weights, by the development endpoint ``/collective_rpc`` with ``reload_weights`` and ``weights_path``;
  then what the server has cached of prompts goes (``/reset_prefix_cache``).
- ``lora``: an adapter alone, by ``/v1/load_lora_adapter``.

Every step has a folder, and an adapter a name, of its own: a server cannot take an earlier one for it (vLLM issue
32718: of a folder that it has read before, it may serve what stood there then).
"""

from __future__ import annotations

import copy
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from torch import nn

from ...models.adapters import merged
from .client import Client, EngineError

Door = Literal["reload", "lora"]

DOORS: dict[Door, str] = {"reload": "/collective_rpc", "lora": "/v1/load_lora_adapter"}
_NO_RELOAD = "start it with VLLM_SERVER_DEV_MODE=1, without which it reloads no weights"
_NO_LORA = "start it with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 and --enable-lora, without which it loads no adapter"
OPENED: dict[Door, str] = {"reload": _NO_RELOAD, "lora": _NO_LORA}
_NO_MODELS = "name the root of a server that speaks the OpenAI completions protocol as vllm serve does"


class Served(NamedTuple):
    """A model of a server.

    Attributes:
        name: That requests give.
        root: Where the server has it from; None where it does not say.
    """

    name: str
    root: str | None


class ServerWeights:
    """The weights that a server writes with.

    Args:
        client: The server.
        folder: Where weights are written for it; it must see them under the same path.
        door: How it gets them.
        longest: Tokens of a prompt with its answer that it must be able to read.
    """

    def __init__(self, client: Client, folder: Path, *, door: Door, longest: int) -> None:
        self.client, self.folder, self.door, self.longest = client, folder.absolute(), door, longest
        self._session, self._served, self._adapter = secrets.token_hex(4), "", ""

    def load(self, model: nn.Module, step: int) -> str:
        """Have the server read the weights of ``model``; the name that requests for answers give.

        Raises:
            EngineError: It does not.
        """
        self._served = self._served or served(self.client, longest=self.longest).name
        self.clear()
        name = f"policy-{self._session}-{step}"
        place = self.folder / name
        place.mkdir(parents=True)
        return self._as_adapter(model, place) if self.door == "lora" else self._whole(model, place)

    def clear(self) -> None:
        """Delete what was written last."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _whole(self, model: nn.Module, place: Path) -> str:
        adapted = hasattr(model, "merge_and_unload")  # a copy is merged: taken apart again it would be rounded
        merged(copy.deepcopy(model) if adapted else model, merge=True).save_pretrained(place)
        told = {"method": "reload_weights", "kwargs": {"weights_path": str(place)}}
        self.client.said(DOORS["reload"], told, missing=_NO_RELOAD)
        self.client.said("/reset_prefix_cache?reset_running_requests=true", {}, missing=_NO_RELOAD)
        return self._served

    def _as_adapter(self, model: nn.Module, place: Path) -> str:
        merged(model, merge=False).save_pretrained(place)
        if self._adapter:
            self.client.said("/v1/unload_lora_adapter", {"lora_name": self._adapter}, missing=_NO_LORA)
        self._adapter = ""
        told = {"lora_name": place.name, "lora_path": str(place)}
        self.client.said(DOORS["lora"], told, missing=_NO_LORA)
        self._adapter = place.name
        return place.name


def served(client: Client, *, longest: int) -> Served:
    """The model that is served, which must read sequences that are long enough.

    Raises:
        EngineError: None is, or it reads less.
    """
    models = client.told("/v1/models", missing=_NO_MODELS).get("data")
    first = models[0] if isinstance(models, list) and models else None
    name = first.get("id") if isinstance(first, Mapping) else None
    if not isinstance(first, Mapping) or not isinstance(name, str):
        raise EngineError(f"{client.url}/v1/models names no model, {client.kept}: {_NO_MODELS}")
    most, root = first.get("max_model_len"), first.get("root")
    if isinstance(most, int) and most < longest:
        raise EngineError(
            f"{client.url} reads at most {most} tokens and max_length is {longest}, {client.kept}: start the "
            f"server with --max-model-len {longest}, or lower max_length"
        )
    return Served(name, root if isinstance(root, str) else None)
