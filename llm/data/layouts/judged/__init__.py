"""Layouts where ratings, ranks or a verdict say which answer won."""
