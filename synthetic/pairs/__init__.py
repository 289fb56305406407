"""Preference problems with known answers, their shifts, and Algorithms 1 and 3 on them."""
