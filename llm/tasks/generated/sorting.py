"""Words to be copied, reversed or sorted; the difficulty is how many they are."""

from random import Random

from ..address import Question

WORDS = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen", "jay", "kid", "owl", "pig", "rat", "yak")
ASKED = {"copy": "Copy", "reverse": "Write from last to first", "sort": "Sort by alphabet"}


def draw(rng: Random, words: int = 6) -> Question:
    """From one word to ``words`` different ones, at most fourteen."""
    kind, chosen = rng.choice(list(ASKED)), rng.sample(WORDS, rng.randint(1, min(words, len(WORDS))))
    answer = {"copy": chosen, "reverse": chosen[::-1], "sort": sorted(chosen)}[kind]
    return Question(f"{ASKED[kind]}: {' '.join(chosen)}", " ".join(answer), len(chosen), kind)
