"""The engine that the settings of a run name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..rollouts import Answers
from .client import Client
from .engine import Engine, Sampling
from .remote import RemoteEngine
from .settings import root_of
from .weights import ServerWeights

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, TrainingArguments

    from ..config import PolicyConfig

_WEIGHTS = ".vllm-weights"  # in the run folder, where a hidden name counts for nothing


def engine_of(config: PolicyConfig, arguments: TrainingArguments, tokenizer: PreTrainedTokenizerBase) -> Engine:
    """The server where there is one, or the policy itself; nothing is asked yet."""
    sampling = Sampling(config.max_new_tokens, config.temperature, config.top_p)
    if config.vllm_server_base_url is None:
        return Answers(tokenizer, sampling, batch_size=arguments.per_device_eval_batch_size)
    client = Client(root_of(config.vllm_server_base_url), config.vllm_seconds)
    door = ("lora" if config.lora_rank else "reload") if config.vllm_weights == "auto" else config.vllm_weights
    folder = Path(str(arguments.output_dir), _WEIGHTS)
    return RemoteEngine(
        tokenizer, sampling, client, ServerWeights(client, folder, door=door, longest=config.max_length)
    )
