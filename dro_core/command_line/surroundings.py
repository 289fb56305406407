"""``env``: what a report of a fault should say of its surroundings, gathered without waiting for any of them."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import NamedTuple

from ..messages import one_line, visible
from .names import APART, foreign
from .parser import DONE, FOUND, Parser, UsageError, refused

PROJECT = "robust-rlhf"
HUB = "https://huggingface.co"
_HUB_SECONDS, _SMI_SECONDS, _TORCH_SECONDS = 5.0, 5.0, 60.0
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_DEVICES = """
import json, torch
kind = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
count = torch.accelerator.device_count() if kind else 0
names = [torch.cuda.get_device_name(n) if kind.type == "cuda" else f"{kind.type}:{n}" for n in range(count)]
print(json.dumps(names))
"""


Told = str | list[str] | dict[str, str]


class Needed(NamedTuple):
    """A package that the project can use.

    Attributes:
        name: Of the package.
        extra: Of the project's extra that brings it; empty: always needed.
        version: That is installed; None: it is not.
    """

    name: str
    extra: str
    version: str | None


def parser() -> Parser:
    """What ``env`` takes."""
    told = Parser(
        f"{PROJECT} env",
        description="Versions, devices, whether the model hub answers, and whether another package has taken the "
        "import name llm; status 1 where something is wrong. Waits for nothing longer than a minute.",
    )
    told.add_argument("--json", action="store_true", help="print it as JSON")
    return told


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; status 1 where something is wrong."""
    try:
        options = parser().parse_args(argv)
    except UsageError as error:
        return refused(error)
    found, wrong = surroundings(os.environ)
    if options.json:
        sys.stdout.write(visible(json.dumps(found | {"wrong": wrong}, indent=1)) + "\n")
    else:
        lines = [f"{name}: {_shown(value)}" for name, value in found.items()]
        sys.stdout.write("".join(f"{visible(line)}\n" for line in [*lines, *(f"wrong: {what}" for what in wrong)]))
    return FOUND if wrong else DONE


def surroundings(environment: Mapping[str, str]) -> tuple[dict[str, Told], list[str]]:
    """What there is, by name, and what is wrong with it, a sentence each."""
    needed = needed_packages()
    devices, fault = _devices() if importlib.util.find_spec("torch") else ([], "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found: dict[str, Told] = {
        PROJECT: version_of(PROJECT) or "not installed, run from its source",
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": f"{platform.platform()}, {cores} cores",
        "packages": {one.name: one.version for one in needed if one.version},
        "not installed": {one.name: one.extra for one in needed if not one.version},
        "devices": devices or ["CPU"],
        "hub": hub(environment),
        "import name llm": taken() or "ours",
    }
    wrong = [f"{one.name} is missing: pip install {PROJECT}" for one in needed if not (one.extra or one.version)]
    wrong += [f"torch cannot be used: {fault}"] if fault else []
    if not devices and (cards := _cards()):
        wrong.append(f"nvidia-smi shows {', '.join(cards)}, and torch no GPU: install its build for your CUDA")
    wrong += [clash] if (clash := taken()) else []
    return found, wrong


def needed_packages() -> list[Needed]:
    """What the metadata of the project name, each once."""
    try:
        requirements = metadata.requires(PROJECT) or []
    except metadata.PackageNotFoundError:
        return []
    found: dict[str, Needed] = {}
    for requirement in requirements:
        extra = re.search(r"extra == ['\"]([\w-]+)", requirement)
        name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        if name != PROJECT:
            found.setdefault(name, Needed(name, extra[1] if extra else "", version_of(name)))
    return sorted(found.values())


def version_of(package: str) -> str | None:
    """The version that is installed; None: it is not."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def taken() -> str | None:
    """A sentence where the unrelated PyPI package ``llm``, which has our import name, is or may be what is imported."""
    if version_of("llm") is not None and foreign() is None:
        return f"the PyPI package `llm` is installed beside ours, and both are imported as `llm`; {APART}"
    return foreign()


def hub(environment: Mapping[str, str]) -> str:
    """Whether the model hub answers; it is not asked where the environment says offline."""
    place = environment.get("HF_ENDPOINT") or HUB
    if offline := [name for name in _OFFLINE if environment.get(name, "").upper() in ("1", "ON", "YES", "TRUE")]:
        return f"{place}: not asked, {offline[0]} is set"
    answers: list[str] = []
    asking = threading.Thread(target=lambda: answers.append(_answer(place)), daemon=True)
    asking.start()  # a name that is looked up knows no time limit
    asking.join(_HUB_SECONDS)
    return f"{place}: {answers[0] if answers else f'no answer within {_HUB_SECONDS:g} seconds'}"


def _answer(place: str) -> str:
    try:
        with urllib.request.urlopen(urllib.request.Request(place, method="HEAD"), timeout=_HUB_SECONDS):
            return "answers"
    except urllib.error.HTTPError as error:
        return f"answers (status {error.code})"
    except (OSError, ValueError) as error:
        return f"does not answer ({one_line(getattr(error, 'reason', error))}); set HF_HUB_OFFLINE=1 to work without"


def _devices() -> tuple[list[str], str]:
    """Names of the accelerators, and what is wrong with torch; asked in a process that may hang or die."""
    try:
        command = [sys.executable, "-c", _DEVICES]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_TORCH_SECONDS)
        return json.loads(done.stdout), ""
    except subprocess.TimeoutExpired:
        return [], f"it is not loaded within {_TORCH_SECONDS:g} seconds"
    except subprocess.CalledProcessError as error:
        return [], one_line((error.stderr.strip().splitlines() or [f"status {error.returncode}"])[-1])


def _cards() -> list[str]:
    """What the driver of NVIDIA lists."""
    if (command := shutil.which("nvidia-smi")) is None:
        return []
    try:
        told = subprocess.run([command, "-L"], capture_output=True, text=True, check=True, timeout=_SMI_SECONDS).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.split(" (UUID")[0] for line in told.splitlines() if line.startswith("GPU")]


def _shown(value: Told) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {told}".strip() for name, told in value.items()) or "none"
    return ", ".join(value) if isinstance(value, list) else value
