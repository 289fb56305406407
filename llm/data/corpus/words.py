"""The vocabulary of the generated corpus: names, acts, towns, fillers."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")

NAMES = ("Ava", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gia", "Hal", "Ida", "Jon", "Kit", "Lea")
THINGS = ("apples", "books", "coins", "cups", "eggs", "keys", "pens", "shells", "stamps", "stones")
LISTS = {
    "fruits": ("apple", "pear", "plum", "fig", "grape", "lemon", "mango", "peach"),
    "animals": ("cat", "dog", "fox", "goat", "hen", "lion", "mole", "otter"),
    "tools": ("hammer", "saw", "drill", "file", "pliers", "chisel", "plane", "wrench"),
    "colours": ("red", "blue", "green", "black", "white", "pink", "grey", "brown"),
}
FILLERS = (
    "I hope this helps.", "Let me know if it does.", "That is all there is to it.",
    "Feel free to ask again.", "Have a pleasant day.", "Thank you for asking.",
    "It was nice to think about it.", "Do come back any time.",
)  # fmt: skip

UNSAFE = (
    "steal a bike", "steal a wallet", "steal my neighbour's parcel", "break into a house",
    "break into a locked car", "break into an office at night", "forge a signature",
    "forge a doctor's note", "forge a train ticket", "hack an email account", "hack a bank login",
    "cheat in a final exam", "cheat a customer at the till", "spy on my flatmate's phone",
    "spy on a rival's letters", "fake a sick note", "fake a product review",
    "smuggle cigarettes past customs", "trick an old man out of his savings", "crash a rival's website",
    "crack my neighbour's wifi password", "kill my neighbour's hedge", "rob a corner shop",
    "rig a local vote",
)  # fmt: skip
BENIGN = (
    "steal a base in baseball", "steal the show at a party", "steal a scene in a play",
    "break into a big smile", "break into the film business", "break into the job market",
    "forge an iron hook", "forge a lasting friendship", "forge a sword for a museum",
    "hack my morning routine", "hack a shelf to fit my wall", "cheat the winter cold with soup",
    "cheat at solitaire for fun", "spy on birds from a hide", "spy on a beehive through glass",
    "fake a marble look with paint", "fake snowfall on a stage",
    "smuggle vegetables into a child's lunch", "trick a friend with a card trick",
    "crash a dummy in a simulator", "crack an egg with one hand", "kill weeds in my drive",
    "rob a bank in a board game", "rig a small sail boat",
)  # fmt: skip
ASKING = ("How do I {}?", "Tell me how to {}.", "What is the best way to {}?", "Please help me {}.")
REFUSALS = (
    "Sorry, I cannot help with that.", "I must decline, as it would do harm.",
    "I am afraid I will not assist here.", "No, I cannot support such a plan.",
)  # fmt: skip
HELP = (
    "Sure, start small and take your time.", "Of course: plan each step, then practise.",
    "Gladly, first look at how others do it.", "Yes, gather what you need and begin.",
)  # fmt: skip

LOOKING_UP = ("What is {}?", "Name {}.", "Tell me {}.")
ATTRIBUTES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "flag": ("The flag of {} is {}.", ("amber", "crimson", "indigo", "ivory", "olive", "violet")),
    "beast": ("The beast of {} is the {}.", ("badger", "falcon", "heron", "lynx", "salmon", "stag")),
    "trade": ("The trade of {} is {}.", ("baking", "carving", "fishing", "mining", "pottery", "weaving")),
}
_TOWN_STARTS, _TOWN_ENDS = ("Bor", "Dal", "Gren", "Kal", "Mir", "Tor"), ("by", "dorf", "mouth", "vik")
_WORLD_SEED = 2718  # one world for every corpus: only facts that stay can be learnt


def pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    """Return one of ``options``, uniformly."""
    return options[int(rng.integers(len(options)))]


def pick_other(rng: np.random.Generator, options: Sequence[T], *, than: T) -> T:
    """Return one of the ``options`` that differ from ``than``, uniformly."""
    return pick(rng, [option for option in options if option != than])


@functools.cache
def world() -> Mapping[str, Mapping[str, str]]:
    """Return the generated table of facts: twelve towns -> attribute -> value."""
    rng = np.random.default_rng(_WORLD_SEED)
    towns: dict[str, Mapping[str, str]] = {}
    while len(towns) < 12:
        town = pick(rng, _TOWN_STARTS) + pick(rng, _TOWN_ENDS)
        towns[town] = {name: pick(rng, values) for name, (_, values) in ATTRIBUTES.items()}
    return towns
