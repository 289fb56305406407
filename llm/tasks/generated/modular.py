"""Remainders of sums and products; the difficulty is the number of operations."""

from random import Random

from ..address import Question


def draw(rng: Random, operations: int = 3, modulus: int = 11) -> Question:
    """From left to right, with brackets that say so; numbers below ``modulus``."""
    many = rng.randint(1, operations)
    value = rng.randrange(modulus)
    text = str(value)
    for left in reversed(range(many)):
        sign, number = rng.choice("+*"), rng.randrange(modulus)
        value = value + number if sign == "+" else value * number
        text = f"({text} {sign} {number})" if left else f"{text} {sign} {number}"
    return Question(f"What is {text} modulo {modulus}?", str(value % modulus), many, f"{many} operations")
