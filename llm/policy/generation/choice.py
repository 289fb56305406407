"""The engine that the settings of a run name, and what a server is asked before anything is loaded."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from ..rollouts import Answers
from .client import Client
from .completions import AskedPrompt, Completions
from .engine import Engine, Sampling
from .remote import RemoteEngine
from .settings import root_of
from .weights import DOORS, OPENED, Door, ServerWeights, served

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, TrainingArguments

    from ..config import PolicyConfig

_WEIGHTS = ".vllm-weights"  # in the run folder, where a hidden name counts for nothing
_SOON = 30.0  # seconds within which a server must answer that has nothing to do
_log = logging.getLogger(__name__)


def engine_of(config: PolicyConfig, arguments: TrainingArguments, tokenizer: PreTrainedTokenizerBase) -> Engine:
    """The server where there is one, or the policy itself; nothing is asked yet."""
    sampling = Sampling(config.max_new_tokens, config.temperature, config.top_p)
    if config.vllm_server_base_url is None:
        return Answers(tokenizer, sampling, batch_size=arguments.per_device_eval_batch_size)
    client = Client(root_of(config.vllm_server_base_url), config.vllm_seconds)
    folder = Path(str(arguments.output_dir), _WEIGHTS)
    weights = ServerWeights(client, folder, door=_door(config), longest=config.max_length)
    return RemoteEngine(tokenizer, sampling, client, weights)


def greet(config: PolicyConfig) -> str:
    """Who writes the answers of a run; a server is asked, by one token, whether it can, before anything is loaded.

    A door for weights that seems closed is no more than named: the first rollout tells.

    Raises:
        EngineError: It is not there, speaks another protocol, or reads less than ``max_length``.
    """
    if config.vllm_server_base_url is None:
        return "the policy itself"
    url, door = root_of(config.vllm_server_base_url), _door(config)
    again = "start the server first, or correct vllm_server_base_url"
    client = Client(url, min(config.vllm_seconds, _SOON), "and nothing was loaded yet", again)
    found = served(client, longest=config.max_length)
    sampling = Sampling(1, config.temperature, config.top_p)
    Completions(client, sampling).answers(found.name, AskedPrompt([0], 1, ends=[], vocabulary=2**31), seed=0)
    if not client.has(DOORS[door]):
        _log.warning("%s seems to have no %s, by which it gets the weights: %s", url, DOORS[door], OPENED[door])
    root = "" if found.root in (None, found.name) else f" ({found.root})"
    return f"{url}, which serves {found.name}{root} and gets weights by {door}"


def _door(config: PolicyConfig) -> Door:
    chosen = config.vllm_weights
    return ("lora" if config.lora_rank else "reload") if chosen == "auto" else chosen
