"""The settings of which model a run starts from, and how models are loaded."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal, TypedDict

from dro_core.command_line.settings import setting

SystemTurns = Literal["keep", "fold"]
Precision = Literal["float32", "bfloat16", "float16"]
Quantised = Literal["4bit", "8bit"]


class Loading(TypedDict, total=False):
    """Keyword arguments of ``load_reward_model`` and ``load_policy``."""

    trust_remote_code: bool
    disable_dropout: bool
    dtype: str
    attn_implementation: str | None
    quantised: Quantised | None
    fold_system: bool
    outline: bool


class FromScratch(TypedDict):
    """Keyword arguments of ``tiny_reward_model`` and ``tiny_policy``."""

    max_length: int
    attn_implementation: str | None
    dtype: str


@dataclass
class LoadingSettings:
    """A block of the settings of every run: policy, reference, value function and reward models are loaded alike."""

    model: str = setting("minilm", "model", "alias (minilm, smollm2), tiny (from scratch), folder or hub name")
    dtype: Precision = setting(
        "float32", "model", "precision the weights are loaded and kept in; also --torch-dtype", alias="torch_dtype"
    )
    attn_implementation: str | None = setting(
        None,
        "model",
        "attention by transformers' names: eager, sdpa, flash_attention_2, flex_attention, ... (default: the model's)",
    )
    load_in_4bit: bool = setting(
        False,
        "adapter",
        "keep the weights below the adapter in 4 bits (NF4, needs bitsandbytes); the adapter is exported alone",
    )
    load_in_8bit: bool = setting(False, "adapter", "the same in 8 bits (LLM.int8)", rare=True)
    disable_dropout: bool = setting(True, "model", "set every dropout rate of the model to zero")
    system_turns: SystemTurns = setting(
        "keep", "model", "fold reads a system turn as the beginning of the first user turn, in the model's template"
    )
    trust_remote_code: bool = setting(False, "model", "let a hub repository run its own code")

    @property
    def quantised(self) -> Quantised | None:
        """In how many bits the weights below the adapter are kept; None: as ``dtype`` says."""
        return "4bit" if self.load_in_4bit else "8bit" if self.load_in_8bit else None

    @property
    def outline(self) -> bool:
        """Whether a model whose weights are not there is laid out without them."""
        return False

    def loading(self) -> Loading:
        """How models are loaded: the arguments of ``load_reward_model`` and ``load_policy``."""
        return {
            "trust_remote_code": self.trust_remote_code,
            "disable_dropout": self.disable_dropout,
            "dtype": self.dtype,
            "attn_implementation": self.attn_implementation,
            "quantised": self.quantised,
            "fold_system": self.system_turns == "fold",
            "outline": self.outline,
        }


def check_quantised(settings: LoadingSettings, *, lora_rank: int) -> None:
    """Refuse weights in few bits where nothing could be trained, or nothing can make them.

    Raises:
        ValueError: One sentence with the remedy.
    """
    if settings.load_in_4bit and settings.load_in_8bit:
        raise ValueError("load_in_4bit and load_in_8bit exclude each other: choose one")
    if settings.quantised is None:
        return
    name = f"load_in_{settings.quantised}"
    if not lora_rank:
        raise ValueError(f"{name} freezes the weights, so that only an adapter can be trained: set lora_rank")
    if settings.model == "tiny":
        raise ValueError(f"{name} reads a model in few bits, and tiny is made from scratch: leave it out")
    if find_spec("bitsandbytes") is None:
        raise ValueError(f"{name} needs bitsandbytes: pip install bitsandbytes, or leave it out")
