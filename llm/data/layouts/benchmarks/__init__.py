"""Layouts of evaluation sets."""
