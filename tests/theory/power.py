"""How much the search sees: planted false claims that it refutes, and true ones that it must not.

    python tests/theory/power.py --budget quick              # the planted claims, one line each, and shares by kind
    python tests/theory/power.py --budget full --alone       # without their corners
    python tests/theory/power.py --true 40 --seeds 20        # false refutations of true claims of the registry
    python tests/theory/power.py --blind                     # those of somebody who had not read the search

``--markdown FILE`` writes the figures.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from planted_numbers import NUMBERS, Planted
from planted_sets import SETS

from proofs_check import FULL, QUICK, Budget, Claim, Verdict, check
from proofs_check.registry import CLAIMS

PLANTED: dict[str, Planted] = NUMBERS | SETS
BUDGETS = {"quick": QUICK, "full": FULL}


def blind() -> dict[str, Planted]:
    """``planted_blind.BLIND`` of somebody who had not read the code of the search; nothing if there is no such file."""
    if importlib.util.find_spec("planted_blind") is None:
        return {}
    return dict(importlib.import_module("planted_blind").BLIND)


class Outcome(NamedTuple):
    """Whether one claim was refuted, and the seconds that took."""

    kind: str
    refuted: bool
    seconds: float


def without_corners(claim: Claim[Any]) -> Claim[Any]:
    return replace(claim, instances=replace(claim.instances, corners=()))


def attempt(planted: Planted, budget: Budget, *, seed: int = 0, alone: bool = False) -> Outcome:
    """Search for a counterexample to one planted claim."""
    start = time.process_time()
    claim = without_corners(planted.claim) if alone else planted.claim
    refuted = check(claim, budget=budget, seed=seed).verdict is Verdict.REFUTED
    return Outcome(planted.kind, refuted, time.process_time() - start)


def true_claims(count: int) -> list[Claim[Any]]:
    """The first claims of the registry that are expected to hold and have something to draw, without mutants."""
    drawn = (claim for claim in CLAIMS if claim.expected is Verdict.UPHELD and claim.instances.strategy is not None)
    return [claim.with_mutants() for claim, _ in zip(drawn, range(count), strict=False)]


def falsely_refuted(claims: Iterable[Claim[Any]], seed: int, budget: Budget) -> list[str]:
    """Labels of the true claims that the search calls refuted."""
    return [claim.label for claim in claims if check(claim, budget=budget, seed=seed).verdict is Verdict.REFUTED]


def shares(outcomes: Mapping[str, Outcome]) -> str:
    """A table: kind, refuted of how many, and all together."""
    kinds: dict[str, list[bool]] = defaultdict(list)
    for outcome in outcomes.values():
        kinds[outcome.kind].append(outcome.refuted)
        kinds["all"].append(outcome.refuted)
    rows = [f"| {kind} | {sum(found)} of {len(found)} |" for kind, found in sorted(kinds.items())]
    return "\n".join(["| kind | refuted |", "|---|---|", *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", choices=BUDGETS, default="quick")
    parser.add_argument("--alone", action="store_true", help="without corners")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--blind", action="store_true", help="the claims of planted_blind.py only")
    parser.add_argument("--true", type=int, default=0, metavar="N", help="check N true claims instead")
    parser.add_argument("--seeds", type=int, default=20, help="of the true claims")
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    budget = BUDGETS[arguments.budget]
    if arguments.true:
        claims, found = true_claims(arguments.true), list[str]()
        for seed in range(arguments.seeds):
            found += falsely_refuted(claims, seed, budget)
            print(f"seed {seed} done, {len(found)} false refutations so far {found or ''}", flush=True)
        text = f"{len(found)} false refutations in {arguments.seeds} seeds of {len(claims)} true claims."
    else:
        outcomes: dict[str, Outcome] = {}
        for name, planted in (blind() if arguments.blind else PLANTED).items():
            outcomes[name] = attempt(planted, budget, seed=arguments.seed, alone=arguments.alone)
            one = outcomes[name]
            print(f"{'refuted' if one.refuted else 'MISSED '} {one.seconds:6.1f} s  {one.kind}: {name}", flush=True)
        text = shares(outcomes) if outcomes else "No planted claims."
    print(text)
    if arguments.markdown:
        arguments.markdown.write_text(text + "\n")


if __name__ == "__main__":
    main()
