"""An audit on the screen."""

from __future__ import annotations

from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.table import Table

from ..data.overview import Cases
from ..run.terminal import shown, shown_title
from .audit import CASES, SHARE_WHOLE, Audit, Identical
from .groups import advice
from .verdicts import Concern

NAMES = {
    "pairs": "pairs",
    "prompt_whole_both": "whole prompt before both answers",
    "prompt_cut": "prompt cut",
    "prompt_absent": "nothing of the prompt",
    "same_window": "the same prompt tokens before both",
    "answers_cut": "an answer cut",
    "token_identical": "both answers the same tokens",
    "special_token_text": "text like a special token",
    "double_framing": "framed twice",
    "system_lost": "system turn lost",
    "thoughts_lost": "thoughts lost",
    "tool_calls_lost": "calls or definitions of tools lost",
    "duplicates": "duplicates",
    "contradictions": "labelled both ways",
    "negative_margins": "negative margins",
}


def rows(audit: Audit) -> Iterator[tuple[str, int, float, str]]:
    """Name, pairs, share of all pairs and first ids, of every count of pairs."""
    for name, title in NAMES.items():
        found = audit.token_identical.cases if name == "token_identical" else getattr(audit, name)
        assert name in CASES or name == "token_identical"
        yield title, found.count, found.count / max(audit.pairs.count, 1), ", ".join(found.examples)


def render(audit: Audit) -> Table:
    """The counts of an audit as a table."""
    table = Table(title=shown_title(f"{audit.file} at max_length {audit.max_length}"), box=SIMPLE_HEAD)
    for heading in ("what the model sees", "pairs", "%", "first"):
        table.add_column(heading, justify="right" if heading in ("pairs", "%") else "left")
    for title, count, share, examples in rows(audit):
        table.add_row(shown(title), f"{count:,}", f"{100 * share:.1f}", shown(examples if count else ""))
    return table


def lines(audit: Audit, found: list[Concern]) -> Iterator[str]:
    """What an audit says beside its counts, and what is of concern."""
    yield from (f"left out: {count:,} pairs: {reason}" for reason, count in audit.left_out.items())
    yield f"unknown tokens: {audit.unknown_token_share:.2%}; the chosen answer is longer: {audit.longer_wins:.1%}"
    if audit.ignored_columns:
        yield f"ignored columns with text: {', '.join(audit.ignored_columns)}"
    yield f"prompts: {audit.prompts:,} different ones" + (
        "" if audit.length is None else f"; {SHARE_WHOLE:.0%} are whole at max_length {audit.length:,}"
    )
    yield from advice(audit.groups)
    yield from _identical("both answers the same tokens", audit.token_identical)
    for suite, parts in audit.overlap.items():
        yield f"suite {suite}, also in training: {_overlap(parts['pairs'])} pairs, {_overlap(parts['prompts'])} prompts"
        yield from _identical(f"suite {suite}, both answers the same tokens", audit.suites[suite])
    yield from (f"warning: {concern}" for concern in found)


def _identical(title: str, found: Identical) -> Iterator[str]:
    for column, groups in (("category", found.by_category), ("source", found.by_source)):
        if groups:
            named = ", ".join(f"{name} {count:,} of {of:,}" for name, (count, of) in groups.items())
            yield f"{title}, by {column}: {named}"


def _overlap(found: dict[str, Cases] | object) -> str:
    assert isinstance(found, dict)
    return f"{found['exact'].count:,} (and {found['near'].count:,} nearly)"
