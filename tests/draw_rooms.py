"""The rooms of llm as a picture and a table, from the imports: ``python tests/draw_rooms.py`` writes them.

A room stands one floor above the highest room that it imports. An arrow that a longer way implies is left out.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from test_rooms import FILES, LLM, MAY, imports

DOCS = Path(__file__).parents[1] / "docs"
PAGE, PICTURE = DOCS / "architecture.md", DOCS / "architecture.svg"
_TABLE = re.compile(r"(<!-- rooms -->\n).*?(<!-- end -->)", re.DOTALL)
Below = dict[str, set[str]]


def used() -> Below:
    """Room -> the rooms that its files import, lazily or not."""
    found: Below = {room: set() for room in MAY}
    for room, path in FILES:
        found[room] |= {name.split(".")[1] for name, _ in imports(path) if name.startswith("llm.")} - {room}
    return found


def floors(below: Below) -> dict[str, int]:
    """Room -> its floor, from 1; ``MAY`` names lower rooms first."""
    floor: dict[str, int] = {}
    for room in MAY:
        floor[room] = 1 + max((floor[other] for other in below[room]), default=0)
    return floor


def arrows(below: Below) -> list[tuple[str, str]]:
    """The arrows that no longer way implies."""
    reach: Below = {}
    for room in MAY:
        reach[room] = below[room] | {far for near in below[room] for far in reach[near]}
    return [
        (room, near) for room in MAY for near in sorted(below[room]) if not any(near in reach[o] for o in below[room])
    ]


def signs() -> dict[str, str]:
    """Room -> the first sentence on its door."""
    texts = {room: ast.get_docstring(ast.parse((LLM / room / "__init__.py").read_text())) or "" for room in MAY}
    return {room: " ".join(text.split("\n\n")[0].split()).split(". ")[0].rstrip(".") for room, text in texts.items()}


def table() -> str:
    """The rooms as Markdown, from the top."""
    below, said = used(), signs()
    floor = floors(below)
    rows = ["| floor | room | who lives there | may touch |", "|--:|---|---|---|"]
    for room in sorted(MAY, key=lambda room: (-floor[room], room)):
        mine = ", ".join(sorted(below[room])) or "nothing"
        rows.append(f"| {floor[room]} | `{room}` | {said[room]} | {mine} |")
    return "\n".join(rows) + "\n"


def draw(path: Path) -> None:
    """The picture."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    plt.rcParams |= {"svg.hashsalt": "rooms", "svg.fonttype": "none", "font.family": "sans-serif"}
    below = used()
    floor = floors(below)
    rows = [[room for room in MAY if floor[room] == level] for level in range(1, max(floor.values()) + 1)]
    figure, axes = plt.subplots(figsize=(9, 0.8 * len(rows) + 0.4), layout="constrained")
    place = {
        room: ((position + 0.5) / len(row) * 9, level)
        for level, row in enumerate(rows)
        for position, room in enumerate(row)
    }
    for room, near in arrows(below):
        (x, y), (u, v) = place[room], place[near]
        bend = f"arc3,rad={0.18 if v < y - 1 else 0.0}"
        look = {"arrowstyle": "->", "color": "0.55", "lw": 0.9, "connectionstyle": bend}
        axes.annotate("", (u, v + 0.17), (x, y - 0.17), arrowprops=look, zorder=1)
    for room, (x, y) in place.items():
        box = {"boxstyle": "round,pad=0.35", "fc": "#eaf2fb", "ec": "#0072b2"}
        axes.text(x, y, room, ha="center", va="center", bbox=box, zorder=2, fontsize=10)
    axes.set(xlim=(0, 9), ylim=(-0.5, len(rows) - 0.5))
    axes.axis("off")
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else {})
    plt.close(figure)


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(_TABLE.sub(lambda found: f"{found[1]}{table()}{found[2]}", page), encoding="utf-8")
    draw(PICTURE)
