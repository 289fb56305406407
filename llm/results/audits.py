"""What each model of a sweep sees of the pairs, kept beside the results, and an audit in one line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..run.files import JsonObject, json_ready
from ..run.sealed import read_sealed, write_sealed

AUDITS = "audits.json"
Audits = Mapping[str, JsonObject]
"""Model -> ``key`` (what the audit depends on), ``audit`` (as ``llm.audit`` writes it), ``concerns`` (sentences)."""


def write_audits(folder: Path, audits: Audits) -> None:
    """Write what ``read_audits`` reads."""
    write_sealed(folder / AUDITS, json_ready(audits))


def read_audits(folder: str | Path) -> JsonObject:
    """The audits of a results folder; {} where there are none, or they are damaged."""
    return read_sealed(Path(folder) / AUDITS) or {}


def summary(audit: JsonObject) -> str:
    """An audit, as its JSON holds it, in one line."""
    count = {name: audit[name]["count"] for name in ("pairs", "prompt_whole_both", "prompt_absent", "token_identical")}
    return (
        f"of {count['pairs']:,} pairs {count['prompt_whole_both']:,} show the whole prompt, "
        f"{count['prompt_absent']:,} nothing of it, {count['token_identical']:,} cannot be told apart "
        f"(max_length {audit['pairs']['max_length']})"
    )
