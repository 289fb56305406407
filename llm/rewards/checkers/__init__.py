"""Checkers by name: each says of one answer whether it is right, from the columns of its prompt."""
