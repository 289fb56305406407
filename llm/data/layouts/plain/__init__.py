"""Layouts that say which answer was chosen, with nothing else to know."""
