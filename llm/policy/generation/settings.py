"""The settings of a server that writes the answers: loaded without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from dro_core.command_line.settings import setting

from ...training.config import ConfigError

Door = Literal["auto", "reload", "lora"]


class Correction(NamedTuple):
    """How the log-probabilities of a server are corrected for.

    Attributes:
        of: What has an importance ratio.
        most: Above which a ratio is cut off.
    """

    of: Literal["answers", "tokens"]
    most: float


@dataclass
class ServerSettings:
    """Which server writes the answers, how it gets the weights, and how its rounding is corrected."""

    vllm_server_base_url: str | None = setting(
        None, "answers", "http://HOST:PORT of a server that speaks vLLM's completions protocol; not given: the policy"
    )
    vllm_weights: Door = setting(
        "auto",
        "answers",
        "how the server gets weights: reload (all, needs VLLM_SERVER_DEV_MODE=1), lora (the adapter, needs "
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 and --enable-lora), auto (lora with lora_rank)",
    )
    vllm_seconds: float = setting(600.0, "answers", "within which the server must answer, or have read weights")
    importance_ratios: str = setting(
        "answers:3",
        "answers",
        "of our probabilities to the server's, cut off above 3: of whole answers (exact below that), tokens:3 of "
        "single tokens (biased, less noise where answers are long), or off",
    )

    def correction(self) -> Correction | None:
        """What ``importance_ratios`` says; None where nothing is to be corrected.

        Raises:
            ConfigError: It says nothing that is known.
        """
        if self.importance_ratios == "off":
            return None
        of, _, number = self.importance_ratios.partition(":")
        try:
            most = float(number)
        except ValueError:
            most = 0.0
        if of not in ("answers", "tokens") or not 0 < most < float("inf"):
            raise ConfigError(
                "importance_ratios is answers:X or tokens:X, where X is the largest ratio, 3 as a rule, or off; got "
                f"{self.importance_ratios!r}"
            )
        return Correction(of, most)


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
    settings.correction()
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
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or set(url) & set("?# \t\r\n"):
        raise ConfigError(f"vllm_server_base_url is http://HOST:PORT or https://HOST, got {url!r}")
    return url.rstrip("/").removesuffix("/v1").rstrip("/")
