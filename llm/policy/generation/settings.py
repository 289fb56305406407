"""The settings of a server that writes the answers: loaded without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from dro_core.command_line.settings import setting

from ...training.config import ConfigError

Door = Literal["auto", "reload", "lora"]
Ratios = Literal["sequence_truncate", "token_truncate"]


@dataclass
class ServerSettings:
    """Which server writes the answers, how it gets the weights, and how its rounding is corrected; names as TRL's."""

    vllm_server_base_url: str | None = setting(
        None,
        "server",
        "http://HOST:PORT of a server that speaks vLLM's completions protocol; not given: the policy writes itself",
    )
    vllm_weights: Door = setting(
        "auto",
        "server",
        "how it gets the weights: reload (all of them, with VLLM_SERVER_DEV_MODE=1), lora (the adapter, with "
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 and --enable-lora); auto: lora with lora_rank",
    )
    vllm_seconds: float = setting(600.0, "server", "within which it must answer a request, or have read the weights")
    vllm_importance_sampling_mode: Ratios = setting(
        "sequence_truncate",
        "server",
        "what is multiplied by the ratio of our probabilities to its own: whole answers (exact below the bound) or "
        "every token (biased, less noise where answers are long)",
    )
    vllm_importance_sampling_clip_max: float = setting(
        3.0, "server", "largest such ratio, the rest is cut off; 0: no correction"
    )


def check_server(settings: ServerSettings, *, adapted: bool, temperature: float, top_p: float) -> None:
    """Refuse settings by which no server could be asked.

    Args:
        settings: Those of the server.
        adapted: Whether an adapter is trained.
        temperature: Of the sampling.
        top_p: Of the sampling.

    Raises:
        ConfigError: Naming it.
    """
    if not 0 < settings.vllm_seconds <= 1e6:
        raise ConfigError(f"vllm_seconds must be positive and at most 1000000, got {settings.vllm_seconds}")
    if not 0 <= settings.vllm_importance_sampling_clip_max < float("inf"):
        raise ConfigError(
            "vllm_importance_sampling_clip_max is the largest ratio, at least 1 as a rule, or 0 for no correction, got "
            f"{settings.vllm_importance_sampling_clip_max}"
        )
    if settings.vllm_server_base_url is None:
        return
    root_of(settings.vllm_server_base_url)
    if settings.vllm_weights == "lora" and not adapted:
        raise ConfigError("vllm_weights=lora sends an adapter, and there is none: set lora_rank, or take reload")
    if temperature != 1 and top_p < 1:
        raise ConfigError(
            "a server tells log-probabilities before temperature and top_p or after both, and those that are trained "
            "are after the temperature alone: leave top_p or temperature at 1"
        )


def root_of(url: str) -> str:
    """Where the server is, without the path of its protocol.

    Raises:
        ConfigError: It is no address of one, or has a password in it.

    >>> root_of("http://localhost:8000/v1/")
    'http://localhost:8000'
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"vllm_server_base_url is no address ({error}): write http://HOST:PORT") from error
    if parts.username or parts.password:
        raise ConfigError(
            "vllm_server_base_url is written down with the run and must hold no password: put the key into the "
            "environment variable VLLM_API_KEY"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or port == 0:
        raise ConfigError(f"vllm_server_base_url is http://HOST:PORT or https://HOST, got {url!r}")
    return url.rstrip("/").removesuffix("/v1").rstrip("/")
