"""The style of all pages: one sheet for reports, verdicts and whatever else is written as HTML."""

from __future__ import annotations

from importlib.resources import files


def house_style() -> str:
    """The style sheet, without the tags around it.

    It needs no other file and no script; it is fit for print, dark screens, 500 pixels and a keyboard.
    """
    return files("dro_core").joinpath("house.css").read_text(encoding="utf-8")
