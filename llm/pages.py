"""What the pages of this package share: how templates are filled, and the style sheet."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape


def environment_of(**filters: Callable[..., Any]) -> tuple[Environment, Markup]:
    """The templates with these filters, everything escaped and nothing undefined; and the style sheet."""
    environment = Environment(
        loader=PackageLoader("llm", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters)
    css, *_ = environment.loader.get_source(environment, "report.css")  # type: ignore[union-attr]
    return environment, Markup(css)


def breakable(name: str) -> Markup:
    """A name that may wrap after an underscore, comma, hyphen or slash."""
    return Markup(re.sub(r"([_,/-])(?=\w)", r"\1<wbr>", str(escape(name))))
