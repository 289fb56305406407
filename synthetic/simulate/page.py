"""The study as one page in the style of the house: what it shows, its figure, its slopes, and how to run it again."""

from __future__ import annotations

import base64
from html import escape
from typing import TYPE_CHECKING, Any

from dro_core.files import whole
from dro_core.messages import visible
from dro_core.pages import house_style

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

_SLOPES = ("panel", "curve", "theory", "slope", "95 % interval", "fitted on")


def write_page(path: Path, summary: Mapping[str, Any], *, title: str, picture: Path | None) -> None:
    """Write the page; it needs no other file and no script.

    Args:
        path: Of the page.
        summary: The content of ``summary.json``.
        title: Of the study.
        picture: The figure, a PNG; None where nothing could be drawn.
    """
    parts = [
        f"<p>{_text(summary['about'])}</p>",
        _figure(picture, title, summary) if picture else '<p class="note">There is nothing to draw.</p>',
        _slopes(summary["slopes"]),
        _failures(summary["failures"]),
        "<h2>Run it again</h2>",
        f"<p>Study <code>{_text(summary['study'])}</code>, {summary['records']} records in curves.csv, all of this in "
        "summary.json.</p>",
        _facts({**summary["parameters"], **summary["versions"]}),
    ]
    head = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">\n'
        f"<title>{_text(title)}</title>\n<style>\n{house_style()}figure {{ max-width: 72rem; }} "
        "figure img { width: 100%; min-width: 50rem; background: #fff; }\n</style>\n</head>\n<body>\n"
    )
    body = "\n".join([f"<header><h1>{_text(title)}</h1></header>\n<main>", *filter(None, parts), "</main>"])
    with whole(path, unlocked=True) as stream:
        stream.write(f"{head}{body}\n</body>\n</html>\n".encode())


def _figure(picture: Path, title: str, summary: Mapping[str, Any]) -> str:
    data = base64.b64encode(picture.read_bytes()).decode()
    said = "; ".join(f"{one['curve']} has slope {one['value']:.2f}" for one in summary["slopes"][:12])
    return (
        '<figure><div class="scroll" tabindex="0" role="region" aria-label="Figure">'
        f'<img src="data:image/png;base64,{data}" alt="{_text(f"{title}. {said}")}"></div>'
        f"<figcaption>{_text(summary['figure'])}</figcaption></figure>"
    )


def _slopes(slopes: Sequence[Mapping[str, Any]]) -> str:
    if not slopes:
        return ""
    rows = [
        (one["panel"], one["curve"], one["theory"] or "", f"{one['value']:.3f}",
         "a floor" if one.get("floor") else "" if one["low"] is None else f"[{one['low']:.3f}, {one['high']:.3f}]",
         f"{one['first']:g} to {one['last']:g}")
        for one in slopes
    ]  # fmt: skip
    return f"<h2>Slopes</h2>\n{_table('Fitted on logarithmic axes, as the figure shows them.', _SLOPES, rows)}"


def _failures(failures: Sequence[Mapping[str, Any]]) -> str:
    if not failures:
        return ""
    rows = [(str(one["point"]), str(one["seed"]), str(one["error"])) for one in failures]
    return f"<h2>Failures</h2>\n{_table('Points that are missing.', ('point', 'seed', 'error'), rows)}"


def _table(caption: str, heading: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col" class="text">{_text(name)}</th>' for name in heading)
    body = "".join(
        f'<tr><th scope="row">{_text(first)}</th>{"".join(f"<td>{_text(cell)}</td>" for cell in cells)}</tr>\n'
        for first, *cells in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{_text(caption)}"><table>'
        f"<caption>{_text(caption)}</caption><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>"
    )


def _facts(facts: Mapping[str, Any]) -> str:
    items = "".join(f"<dt>{_text(name)}</dt><dd>{_text(_fact(value))}</dd>" for name, value in facts.items())
    return f'<dl class="facts">{items}</dl>'


def _fact(value: object) -> object:
    """Several values are listed; None leaves the choice to the study."""
    if value is None:
        return "as the study has it"
    return ", ".join(map(str, value)) if isinstance(value, tuple | list) else value


def _text(value: object) -> str:
    return escape(visible(str(value)))
