"""Functions that are asked for scores and do something else, or give them in another form."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

NEEDED = 3


def seen(prompts, completions, **columns):
    """Note what was given; a score that the answer decides."""
    told = {"prompts": prompts, "completions": completions, "columns": columns}
    Path(os.environ["SEEN"]).write_text(json.dumps(told, default=str))
    return [float(len(str(completion)) % 5) for completion in completions]


async def waits(completions, **columns):
    return [0.25 for _ in completions]


class _Counting:
    def __call__(self, completions, **columns):
        return [0.5 for _ in completions]


class _Waiting:
    async def __call__(self, completions, **columns):
        return [0.75 for _ in completions]


counting, waiting = _Counting(), _Waiting()


def half(completions):
    return [0.5 for _ in completions]


def some(completions, **columns):
    """Scores every second answer."""
    return [None if place % 2 else 1.0 for place in range(len(completions))]


def never(completions, **columns):
    return [None for _ in completions]


def chance(completions, **columns):
    return [place / 1000 for place in range(len(completions))]


def wants(completions, solution, level=1, **columns):
    return [1.0 for _ in solution]


def wants_ids(completions, completion_ids):
    return [1.0 for _ in completions]


# Forms of scores.


def bools(completions, **columns):
    return [place % 2 == 0 for place in range(len(completions))]


def whole_numbers(completions, **columns):
    return (1,) * len(completions)


def of_numpy(completions, **columns):
    return np.linspace(0, 1, len(completions), dtype=np.float32)


def of_numpy_scalars(completions, **columns):
    return [np.float32(0.5), *[np.bool_(1) for _ in completions[1:]]]


def of_torch(completions, **columns):
    import torch

    return torch.ones(len(completions), dtype=torch.bfloat16)


# What is no score.


def raises(completions, **columns):
    return [1 / (text_of(one) != "bad") for one in completions]


async def raises_late(completions, **columns):
    return raises(completions)


def hangs(completions, **columns):
    while True:
        pass


def sleeps(completions, **columns):
    time.sleep(600)


def hangs_in_c(completions, **columns):
    import re

    return [float(bool(re.match(r"(a+)+$", "a" * 64 + "b"))) for _ in completions]


def nan(completions, **columns):
    return [float("nan") if text_of(one) == "bad" else 1.0 for one in completions]


def infinite(completions, **columns):
    return [-np.inf if text_of(one) == "bad" else 1.0 for one in completions]


def enormous(completions, **columns):
    return [10**400 if text_of(one) == "bad" else 1.0 for one in completions]


def words(completions, **columns):
    return ["good" if text_of(one) == "bad" else 1.0 for one in completions]


def nested(completions, **columns):
    return [[1.0] if text_of(one) == "bad" else 1.0 for one in completions]


def too_few(completions, **columns):
    return [1.0] * (len(completions) - 1)


def too_many(completions, **columns):
    return np.ones(len(completions) + 1)


def text(completions, **columns):
    return "1" * len(completions)


def nothing(completions, **columns):
    return None


def one_number(completions, **columns):
    return 1.0


def mapping(completions, **columns):
    return dict.fromkeys(range(len(completions)), 1.0)


def ends(completions, **columns):
    os._exit(3)


def exits(completions, **columns):
    sys.exit("enough")


def crashes(completions, **columns):
    os.kill(os.getpid(), 11)


# What is left alone.


def forks(completions, **columns):
    """Both come back from here."""
    os.fork()
    return [float(len(text_of(one))) for one in completions]


def prints(completions, **columns):
    for _ in range(2000):
        sys.stdout.write("x" * 100_000)
    return [1.0 for _ in completions]


def moves(completions, **columns):
    os.chdir("/")
    os.environ["HOME"] = "/nowhere"
    sys.setrecursionlimit(100)
    sys.stdout.close()
    return [1.0 for _ in completions]


def text_of(completion):
    return completion if isinstance(completion, str) else completion[0]["content"]
