"""What the machine is and has, and what was carried along; nothing is installed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import zipfile
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from machine import cpu, revision

_PACKAGES = ("torch", "transformers", "accelerate", "peft", "trl", "numpy", "scipy", "safetensors", "tokenizers")


@dataclass(frozen=True)
class Setting:
    """What a stage is told.

    Attributes:
        tiny: A dry run: the smallest sizes, on the CPU.
        carried: The folder of what was carried along (``pack.py``).
        until: When the stage should have come to an end by itself, on the clock of ``time.monotonic``.
        earlier: A file of the records that an earlier start has measured, one a line; "" where there is none.
    """

    tiny: bool
    carried: str
    until: float = float("inf")
    earlier: str = ""

    def has(self, **what: Any) -> bool:
        """Whether an earlier start has measured this."""
        return any(what.items() <= record.items() for record in _lines(self.earlier))

    @property
    def device(self) -> str:
        """Where tensors live."""
        return "cpu" if self.tiny else "cuda"

    def within(self, seconds: float) -> dict[str, Any]:
        """The setting for a stage that is stopped after this time, with a little left to end by itself."""
        return asdict(replace(self, until=time.monotonic() + 0.92 * seconds))

    @property
    def left(self) -> float:
        """Seconds until the stage should end."""
        return self.until - time.monotonic()


@cache
def _lines(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()] if path else []


def unpacked(carried: Path, site: Path) -> list[str]:
    """Unpack the pure-Python wheels of the folder; returns what to put in front of the path."""
    wheels = sorted(carried.glob("*.whl"))
    for wheel in wheels:
        try:
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(site)
        except zipfile.BadZipFile as error:
            raise SystemExit(f"{wheel} cannot be unpacked ({error}): pack it again") from error
        except OSError as error:
            raise SystemExit(f"{wheel} cannot be unpacked into {site} ({error}): set TMPDIR to a folder with room") from error  # noqa: E501  # fmt: skip
    return [str(site)] if wheels else []


_LOOK = """
import importlib.metadata, importlib.util, json, sys
found = {}
for name in json.loads(sys.argv[1]):
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        found[name] = "" if importlib.util.find_spec(name) else None
print(json.dumps(found))
"""
_DEVICE = """
import json, torch
if not torch.cuda.is_available():
    print("null")
else:
    about = torch.cuda.get_device_properties(0)
    print(json.dumps({"name": about.name, "gib": round(about.total_memory / 2**30, 1),
        "count": torch.cuda.device_count(),
        "multiprocessors": about.multi_processor_count, "capability": f"{about.major}.{about.minor}",
        "cuda": torch.version.cuda}))
"""


def _asked(program: str, env: dict[str, str], *given: str) -> Any:
    """What a short program in the environment of the stages prints, as JSON."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", program, *given], env=env, capture_output=True, text=True, check=False, timeout=120
        )
    except subprocess.TimeoutExpired as error:
        raise SystemExit("the machine cannot be looked at: torch or its device did not answer in 120 s") from error
    if done.returncode:
        raise SystemExit(f"the machine cannot be looked at: {(done.stderr.strip().splitlines() or ['no reason'])[-1]}")
    return json.loads(done.stdout)


def versions(names: tuple[str, ...], env: dict[str, str]) -> dict[str, str | None]:
    """Versions of packages as a stage will see them; "" where there is none to be told, None where it is missing."""
    return _asked(_LOOK, env, json.dumps(names))


def missing(needs: tuple[str, ...], env: dict[str, str]) -> list[str]:
    """The packages that a stage needs and this machine lacks, or has too old."""
    wanted = {name: least for name, _, least in (need.partition(">=") for need in needs)}
    found = versions(tuple(wanted), env)
    lacking = []
    for name, least in wanted.items():
        has = found[name]
        if has is None:
            lacking.append(name)
        elif least and _number(has) < _number(least):
            lacking.append(f"{name} >= {least}, found {has}")
    return lacking


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("+")[0].split(".")[:2] if part.isdigit())


def about(env: dict[str, str], carried: Path) -> dict[str, Any]:
    """Date, revision, device and versions, for the record; a tree without its history has the revision carried."""
    noted = carried / "REVISION"
    found = revision()
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "revision": noted.read_text().strip() if found == "unknown" and noted.exists() else found,
        "cpu": cpu(),
        "device": _asked(_DEVICE, env),
        "versions": {"python": sys.version.split()[0], **versions(_PACKAGES, env)},
    }
