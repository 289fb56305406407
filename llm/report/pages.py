"""What the pages of this package share: how templates are filled, and the style sheet."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from ..run.escaping import visible


def filled(template: str, filters: Mapping[str, Callable[..., Any]], **values: Any) -> str:
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
    css, *_ = environment.loader.get_source(environment, "report.css")  # type: ignore[union-attr]
    return visible(environment.get_template(template).render(css=Markup(css), **values))


def breakable(name: str) -> Markup:
    """A name that may wrap after an underscore, comma, hyphen or slash."""
    return Markup(re.sub(r"([_,/-])(?=\w)", r"\1<wbr>", str(escape(name))))
