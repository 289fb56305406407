"""Sums of two whole numbers; the difficulty, and the source, is how many digits they have."""

from random import Random

from ..address import Question


def draw(rng: Random, digits: int = 4) -> Question:
    """Both numbers have the same number of digits, at most ``digits``."""
    length = rng.randint(1, digits)
    first, second = (rng.randrange(10 ** (length - 1) if length > 1 else 0, 10**length) for _ in range(2))
    return Question(f"What is {first} + {second}?", str(first + second), length, f"{length} digits")
