"""The figure above all tables: the difference of a few arms to plain training in every suite, the worst group marked.

Drawn by hand and not by matplotlib, since its marks are handled: each says its numbers to whoever points at it, a row
to whoever reaches it by the keyboard, and the page hides the arms whose box is not ticked, all without a script.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from math import floor, log10
from typing import NamedTuple

from markupsafe import Markup, escape

from ...run.escaping import one_line, visible
from ...run.files import JsonObject
from ...statistics.numbers import p_text, percent
from ..claims import survives
from ..drawing import Drawing
from ..export import cell_of, columns_of
from .names import brief
from .telling import plain_name

_WIDTH, _LEFT, _RIGHT, _TOP, _FOOT = 560.0, 138.0, 18.0, 22.0, 44.0
_LANE, _GAP = 17.0, 12.0  # heights of an arm, and between rows
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")  # Okabe and Ito's, in the order of arms
_SHAPES = (
    "M-4.5-4.5h9v9h-9z",
    "M0-5.6L5.4 4.4H-5.4z",
    "M0-6L6 0L0 6L-6 0z",
    "M0 5.6L5.4-4.4H-5.4z",
    "M-2-5.5h4v3.5h3.5v4h-3.5v3.5h-4v-3.5h-3.5v-4h3.5z",
    "M0-5.2A5.2 5.2 0 1 1 0 5.2A5.2 5.2 0 1 1 0-5.2z",
)


class _Row(NamedTuple):
    key: str
    heading: str
    below: str
    cells: list[tuple[int, JsonObject]]  # the arm's place in the figure, and its difference


class _Scale(NamedTuple):
    """Points of accuracy across the figure."""

    low: float
    high: float

    def __call__(self, value: float) -> float:
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 1)

    def ticks(self) -> list[float]:
        """Round numbers, five to nine of them."""
        rough = (self.high - self.low) / 6
        power = 10.0 ** floor(log10(rough))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
        first = -int(-self.low // step)
        return [number * step for number in range(first, floor(self.high / step) + 1)]


def story_figure(report: JsonObject) -> list[Drawing]:
    """One figure, or none where nothing is compared."""
    arms = [report["arms"][number] for number in report["story"]["arms"]]
    rows = list(_rows(report, arms))
    if not rows:
        return []
    scale, height = _scale(rows), _TOP + _FOOT + 20.0 * -(-len(arms) // 2) + len(rows) * _height(arms)
    body = [_ground(scale, rows, arms, plain_name(report))]
    body += [_row(row, arms, scale, _TOP + place * _height(arms)) for place, row in enumerate(rows)]
    body += [_legend(arms, _TOP + _FOOT + len(rows) * _height(arms))]
    label = f"Difference to {plain_name(report)}: " + "; ".join(_said(row, arms) for row in rows)
    svg = (
        f'<svg viewBox="0 0 {_WIDTH:g} {height:g}" role="group" aria-label="{_text(label)}" class="differences">'
        f"{''.join(body)}</svg>"
    )
    note = "Bars: 95 % intervals over test pairs. Hollow: not shown after Holm's correction."
    note += " Shaded: the worst group." if any(row.key == "worst" for row in rows) else ""
    return [Drawing("story", f"Difference to {plain_name(report)}", note, svg, _numbers(rows, arms))]


def on_page(svg: str) -> str:
    """The figure without its legend, in whose place the page has boxes to tick."""
    body, _, legend = svg.partition('<g class="legend"')
    below = 20 * -(-legend.count("<text") // 2)
    box = re.search(r'viewBox="0 0 (\S+) (\S+)"', body)
    assert box is not None
    return body.replace(box[0], f'viewBox="0 0 {box[1]} {float(box[2]) - below:g}"', 1) + "</svg>"


def marker(place: int) -> str:
    """The mark of an arm of the figure, as a small picture."""
    shape = _shape(place, 0, 0, hollow=False)
    return f'<svg viewBox="-8 -8 16 16" width="16" height="16" aria-hidden="true" class="key">{shape}</svg>'


def _rows(report: JsonObject, arms: Sequence[JsonObject]) -> Iterator[_Row]:
    for key, heading in columns_of(report):
        if key == "average" and len(report["outside"]) < 2:
            continue
        found = [(place, entry["difference"]) for place, arm in enumerate(arms)
                 if (entry := cell_of(arm, key)) and entry["difference"]]  # fmt: skip
        if found:
            role = report["suites"][key]["role"] if key in report["suites"] else ""
            below = {"inside": "in distribution", "validation": "held out of training"}.get(role, "")
            groups = list(dict.fromkeys(arm["worst"]["name"] for arm in arms if key == "worst" and arm["worst"]))
            yield _Row(key, heading, brief(groups[0], 21) if len(groups) == 1 else below, found)


def _scale(rows: Sequence[_Row]) -> _Scale:
    ends = [100 * record[name] for row in rows for _, record in row.cells for name in ("low", "difference", "high")
            if record[name] is not None]  # fmt: skip
    low, high = min(ends, default=0.0), max(ends, default=0.0)
    low, high = min(low, 0.0), max(high, 0.0)
    room = max(0.06 * (high - low), 0.5)
    return _Scale(low - room, high + room)


def _height(arms: Sequence[object]) -> float:
    return max(_LANE * len(arms), 2 * _LANE) + _GAP


def _ground(scale: _Scale, rows: Sequence[_Row], arms: Sequence[JsonObject], plain: str) -> str:
    bottom = _TOP + len(rows) * _height(arms)
    parts = [
        f'<path d="M{scale(tick):g} {_TOP:g}V{bottom:g}" stroke="var(--line)"/>'
        f'<text x="{scale(tick):g}" y="{bottom + 16:g}" text-anchor="middle" class="quiet">{_signed(tick)}</text>'
        for tick in scale.ticks()
    ]
    zero = scale(0.0)
    return "".join([
        *parts,
        f'<path d="M{zero:g} {_TOP:g}V{bottom:g}" stroke="currentColor" stroke-width="1.2"/>',
        f'<text x="{zero:g}" y="13" text-anchor="middle" class="quiet">{_text(plain, 40)}</text>',
        f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2:g}" y="{bottom + 34:g}" text-anchor="middle" class="quiet">'
        "points of accuracy; to the right is better</text>",
    ])  # fmt: skip


def _row(row: _Row, arms: Sequence[JsonObject], scale: _Scale, top: float) -> str:
    worst, height = row.key == "worst", _height(arms)
    middle = top + height / 2
    shade = f'<rect x="0" y="{top:g}" width="{_WIDTH:g}" height="{height:g}" fill="var(--mark)"/>' if worst else ""
    rule = f'<path d="M0 {top:g}H{_WIDTH:g}" stroke="var(--line)" stroke-width=".6"/>'
    weight = ' font-weight="650"' if worst else ""
    base = middle - 1 if row.below else middle + 4
    names = f'<text x="4" y="{base:g}"{weight}>{_text(row.heading, 18)}</text>'
    names += f'<text x="4" y="{middle + 13:g}" class="quiet small">{_text(row.below)}</text>' if row.below else ""
    start = middle - _LANE * (len(arms) - 1) / 2
    marks = "".join(_mark(row, arms, place, record, scale, start + _LANE * place) for place, record in row.cells)
    opening = f'<g class="row" tabindex="0" role="img" aria-label="{_text(_said(row, arms))}">'
    return f"{opening}{shade}{rule}{names}{marks}</g>"


def _mark(row: _Row, arms: Sequence[JsonObject], place: int, record: JsonObject, scale: _Scale, y: float) -> str:
    x, bar = scale(100 * record["difference"]), ""
    if record["low"] is not None:
        low, high = scale(100 * record["low"]), scale(100 * record["high"])
        bar = f'<path d="M{low:g} {y:g}H{high:g}" stroke="{COLOURS[place]}" stroke-width="2"/>'
        hit = f'<rect x="{low - 8:g}" y="{y - 8:g}" width="{high - low + 16:g}" height="16" fill="transparent"/>'
    else:
        hit = f'<rect x="{x - 8:g}" y="{y - 8:g}" width="16" height="16" fill="transparent"/>'
    title = f"{arms[place]['ambiguity']}, {row.heading}: {_value(record)}, Holm p {p_text(record['p_holm'])}"
    dx, anchor = (9, "start") if x < (_LEFT + _WIDTH) / 2 else (-9, "end")
    tip = f'<text x="{x + dx:g}" y="{y - 4:g}" text-anchor="{anchor}" class="tip">{_value(record)}</text>'
    shape = _shape(place, x, y, hollow=not survives(record))
    return f'<g class="arm{place}"><title>{_text(title)}</title>{hit}{bar}{shape}{tip}</g>'


def _shape(place: int, x: float, y: float, *, hollow: bool) -> str:
    fill = "var(--paper)" if hollow else COLOURS[place]
    return (
        f'<path d="{_SHAPES[place]}" transform="translate({x:g} {y:g})" fill="{fill}" stroke="{COLOURS[place]}" '
        'stroke-width="1.6"/>'
    )


def _legend(arms: Sequence[JsonObject], top: float) -> str:
    """For the figure as a file of its own; on the page the boxes to tick stand in its place."""
    parts = [
        f"{_shape(place, 10 + 280 * (place % 2), top + 20 * (place // 2) + 6, hollow=False)}"
        f'<text x="{22 + 280 * (place % 2)}" y="{top + 20 * (place // 2) + 10:g}">{_text(arm["ambiguity"], 36)}</text>'
        for place, arm in enumerate(arms)
    ]
    return f'<g class="legend">{"".join(parts)}</g>'


def _said(row: _Row, arms: Sequence[JsonObject]) -> str:
    cells = ", ".join(f"{brief(arms[place]['ambiguity'], 40)} {_value(record)}" for place, record in row.cells)
    return f"{brief(row.heading, 40)}: {cells}"


def _value(record: JsonObject) -> str:
    limits = (
        "" if record["low"] is None else f" [{percent(record['low'], sign='+')}, {percent(record['high'], sign='+')}]"
    )
    return f"{percent(record['difference'], sign='+')}{limits}"


def _signed(tick: float) -> str:
    return f"{round(tick, 6) + 0.0:+g}".replace("-", "\N{MINUS SIGN}") if round(tick, 6) else "0"


def _text(text: str, limit: int = 2000) -> Markup:
    return escape(visible(one_line(brief(text, limit))))


def _numbers(rows: Sequence[_Row], arms: Sequence[JsonObject]) -> list[dict[str, object]]:
    return [
        {"column": row.key, "arm": arms[place]["ambiguity"],
         "group": arms[place]["worst"]["name"] if row.key == "worst" else "",
         **{name: record[name] for name in ("difference", "low", "high", "p_holm")}}
        for row in rows
        for place, record in row.cells
    ]  # fmt: skip
