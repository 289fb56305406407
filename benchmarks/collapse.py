"""How long a collapse radius takes: python benchmarks/collapse.py [--pairs 14000] [--features 400] [--sets tv kl].

Random features with a weak signal. One problem, and the whole call: five folds, three of random signs, the bootstrap.
Total variation and CVaR of minibatches too.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

import machine
import numpy as np

from dro_core import collapse_radius

SETS = ("tv", "cvar", "chi2", "kl", "burg")
BY_RANK = ("tv", "cvar")  # of which the radius of minibatches is known


def main(argv: list[str] | None = None) -> None:
    """Print a line for every set, and where it ran."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--pairs", type=int, default=14_000)
    parser.add_argument("--features", type=int, default=400)
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    parser.add_argument("--batch", type=int, default=64)
    options = parser.parse_args(argv)
    features = np.random.default_rng(0).normal(0.01, 1.0, (options.pairs, options.features))
    whole = [(name, None) for name in options.sets]
    for name, batch in whole + [(name, options.batch) for name in options.sets if name in BY_RANK]:
        start = time.perf_counter()
        collapse_radius(features, name, folds=0, seeds=(), batch=batch)
        alone = time.perf_counter()
        found = collapse_radius(features, name, batch=batch)
        _say(f"{alone - start:6.1f} s alone, {time.perf_counter() - alone:6.1f} s in all: {found}")
    where = f"{machine.cpu()}, {os.environ.get('OMP_NUM_THREADS', 'all')} threads, revision {machine.revision()}"
    _say(f"{options.pairs:,} pairs, {options.features} features, {where}")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
