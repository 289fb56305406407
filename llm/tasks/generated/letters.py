"""How often a letter stands in a word; the difficulty is the length of the word."""

from random import Random

from ..address import Question


def draw(rng: Random, length: int = 12, letters: int = 4) -> Question:
    """Words of 3 to ``length`` letters, out of the first ``letters`` of the alphabet."""
    alphabet = "abcdefghijklmnopqrstuvwxyz"[: max(letters, 2)]
    word = "".join(rng.choices(alphabet, k=rng.randint(3, max(length, 3))))
    letter = rng.choice(alphabet)
    source = "short" if len(word) <= 6 else "long"
    return Question(f"How often does {letter} stand in {word}?", str(word.count(letter)), len(word), source)
