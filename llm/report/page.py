"""Writing the report: one page, and every figure and table beside it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dro_core.pages import house_style

from ..run.escaping import csv_text, visible
from ..run.files import JsonObject, write_json, write_text
from ..statistics.numbers import bracket, decimals, p_text, percent
from . import detail_figures, figures, overoptimisation, training
from .claims import ROLES, survives
from .drawing import Drawing, standalone
from .export import accuracy_table, cell_of, columns_of, difference_table, latex, markdown, seed_spread, tidy
from .lesson.picture import caption, lesson_figures, remarks
from .lesson.table import PLACES, TITLE, lesson_rows
from .story.figure import marker, on_page, story_figure
from .story.kept import kept, main_detail
from .story.names import breakable, brief
from .story.telling import plain_name
from .story.words import WORDS, coded, first_uses, linked
from .weights import FACTORS

_NUMBERS = "report.json"
_FIGURES = {
    "lesson": lesson_figures,
    "story": story_figure,
    "policies": overoptimisation.curve_figures,
    "trade_off": figures.trade_off,
    "radius": figures.radius_curves,
    "sample_size": figures.sample_size,
    "side": figures.side_by_side,
    "categories": figures.by_category,
    "weights": detail_figures.weight_figures,
    "calibration": detail_figures.calibration_figures,
    "tails": detail_figures.tail_figures,
    "shifts": detail_figures.shift_figures,
    "training": training.training_figures,
}


def draw(report: Mapping[str, object]) -> dict[str, list[Drawing]]:
    """All figures of a report, by section."""
    return {section: build(report) for section, build in _FIGURES.items()}


def write_report(report: Mapping[str, object], output: str | Path) -> list[Path]:
    """Write the page and, in a folder beside it, the figures (SVG, CSV), tables (LaTeX, Markdown, CSV) and numbers.

    The page needs no other file. The folder is called after the page, ``report_files`` beside ``report.html``, and is
    replaced as a whole: nothing of an earlier report stays in it.

    Args:
        report: As from ``build_content``.
        output: The page, a .html file.

    Returns:
        The page and the folder.

    Raises:
        ValueError: ``output`` is no .html file, or the folder beside it holds what no report has written.
    """
    output = Path(output)
    if output.suffix.lower() not in (".html", ".htm") or output.is_dir():
        raise ValueError(f"The report is a page, so {output} should end in .html and be no folder.")
    drawings = draw(report)
    page = _page(report, drawings)  # before anything is written: a failure leaves an earlier report as it is
    output.parent.mkdir(parents=True, exist_ok=True)
    folder = _fresh_folder(output.with_name(f"{output.stem}_files"))
    write_json(folder / _NUMBERS, report)
    for drawing in (one for section in drawings.values() for one in section):
        write_text(folder / f"{drawing.name}.svg", standalone(drawing.svg))
        write_text(folder / f"{drawing.name}.csv", csv_text(drawing.rows))
    for name, table in (("accuracy", accuracy_table(report)), ("difference", difference_table(report))):
        write_text(folder / f"table-{name}.md", markdown(table))
        write_text(folder / f"table-{name}.tex", latex(table, name))
    write_text(folder / "arms.csv", csv_text(tidy(report)))
    write_text(output, page)
    return [output, folder]


def _fresh_folder(folder: Path) -> Path:
    """The folder, empty. The numbers tell whose it is: they go last and come first, lest a kill leave it in the way."""
    if folder.exists() and any(folder.iterdir()):
        if not (folder / _NUMBERS).is_file():
            raise ValueError(
                f"{folder} is in the way and was not written by a report: move it, or choose another name."
            )
        for path in sorted(folder.iterdir(), key=lambda path: path.name == _NUMBERS):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    folder.mkdir(exist_ok=True)
    return folder


def _page(report: JsonObject, drawings: Mapping[str, list[Drawing]]) -> str:
    filters = {"percent": percent, "decimals": decimals, "p_text": p_text, "bracket": bracket}
    names = {"shortened": _cut, "breakable": breakable, "brief": brief, "linked": linked, "coded": coded}
    return _filled(
        "results.html.j2",
        {**filters, **names},
        report=report,
        drawings=drawings,
        svg=Markup,
        columns=columns_of(report),
        cell=cell_of,
        spread=seed_spread,
        survives=survives,
        factors=FACTORS,
        caption=caption,
        remarks=remarks,
        lesson_rows=lesson_rows,
        lesson_heads=(TITLE, PLACES),
        roles=ROLES,
        words=WORDS,
        first_uses=first_uses,
        marker=marker,
        on_page=on_page,
        plain=plain_name(report),
        kept=kept(report),
        main=main_detail(report),
        story_names=" ".join(report["arms"][number]["ambiguity"] for number in report["story"]["arms"]),
        flagged=len({version for arm in report["arms"] for version in arm["versions"]}) > 1,
    )


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]} [...]"


def _filled(template: str, filters: Mapping[str, Callable[..., object]], **values: object) -> str:
    """The page that a template makes of these values with these filters.

    Everything is escaped, nothing may be undefined, and a character that acts instead of showing is an escape wherever
    it stands: in texts, attributes and drawings alike. ``css`` is the style sheet.
    """
    environment = Environment(
        loader=PackageLoader("llm.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters)
    own, *_ = environment.loader.get_source(environment, "report.css")  # type: ignore[union-attr]
    css = house_style() + own
    return visible(environment.get_template(template).render(css=Markup(css), **values))
