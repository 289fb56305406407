"""Files that are whole or not there, and what JSON can hold."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dro_core.files import whole

JsonObject = Mapping[str, Any]  # an object read from JSON: whoever looks at an entry checks what it is


def json_ready(value: object) -> Any:
    """Plain lists, dicts and numbers; None for nan and infinities, text for everything JSON does not know.

    >>> json_ready({"a": np.array([1.0, np.nan]), 2: Path("x")})
    {'a': [1.0, None], '2': 'x'}
    """
    if isinstance(value, Mapping):
        return {_encodable(str(key)): json_ready(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return json_ready(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [json_ready(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int) else _encodable(str(value))


def _encodable(text: str) -> str:
    # Half of a surrogate pair can come in by a JSON escape; UTF-8 has no bytes for it.
    return text.encode("utf-8", errors="replace").decode("utf-8")


def write_text(path: Path, text: str) -> None:
    """Write a text whole or not at all."""
    with whole(path) as stream:
        stream.write(text.encode("utf-8", errors="replace"))  # a lone surrogate must not cost the file


def write_json(path: Path, content: object) -> None:
    """Write JSON whole or not at all."""
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    with whole(path) as stream:
        stream.write(text.encode("utf-8"))
