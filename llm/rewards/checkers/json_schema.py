"""``json_schema``: the answer is JSON that a schema allows; the schema is a file behind the colon, or in the prompt.

Columns of the prompt: ``schema``, else ``answer``. Of an answer with a fenced block of JSON the last one counts.
Nothing is fetched: a reference to another document is refused with the schema.
"""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

from ..names import RewardError
from .base import Checker, Row, block, given, said

OPTIONS: dict[str, object] = {}
ARGUMENT = True


def checker(file: str | None) -> Checker:
    """Validate against the schema in ``file``, or against that of each prompt.

    Raises:
        RewardError: The package jsonschema is missing, or the file holds no schema.
    """
    try:
        jsonschema: object = import_module("jsonschema")
        referencing: object = import_module("referencing")
    except ImportError as error:
        raise RewardError(
            'json_schema needs the package jsonschema, which is not installed: pip install "robust-rlhf[json]".'
        ) from error

    def validator(schema: object) -> Any:
        if isinstance(schema, str):
            schema = json.loads(schema)
        names = schema.get("$schema", "") if isinstance(schema, dict) else "" if isinstance(schema, bool) else None
        if not isinstance(names, str):
            raise ValueError("a schema is an object, true or false")
        kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
        kind.check_schema(schema)
        return kind(schema, registry=referencing.Registry())

    if file is not None:
        try:
            shared = validator(Path(file).read_text(encoding="utf-8"))
        except (OSError, ValueError, jsonschema.SchemaError) as error:
            raise RewardError(f"json_schema: {file} holds no JSON schema ({str(error).splitlines()[0]}).") from error
    else:
        shared = None

    def score(text: str, row: Row) -> float:
        try:
            value = json.loads(block(said(text), "json"))
        except (ValueError, RecursionError):
            return 0.0
        return float((shared or validator(given(row, "schema", "answer"))).is_valid(value))

    def lacks(row: Row) -> str | None:
        if shared is not None:
            return None
        if (schema := given(row, "schema", "answer")) is None:
            return "no `schema` and no `answer`"
        try:
            validator(schema)
        except (ValueError, jsonschema.SchemaError):
            return "no JSON schema in `schema` or `answer`"
        return None

    return Checker(score, lacks)
