"""Verdicts for people: text, page, figures. Called by ``__main__``."""
