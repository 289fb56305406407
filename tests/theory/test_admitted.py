"""What the certificate of a refuted claim admits as a counterexample: nothing that the claim's assumptions exclude."""

import contextlib
import itertools
import json
from dataclasses import replace

import pytest

from proofs_check import Verdict, verifier
from proofs_check._certificates import certificate, plain
from proofs_check.exact.witnesses import Found
from proofs_check.registry import CLAIMS

REFUTED = [claim for claim in CLAIMS if claim.formula and claim.expected is Verdict.REFUTED]


def scaled(value, factor):
    """Numbers times a factor; a size, which is a whole number by itself, may decide how long a formula takes."""
    if isinstance(value, tuple):
        return tuple(one * factor if isinstance(one, int) else scaled(one, factor) for one in value)
    return value if isinstance(value, str) or (isinstance(value, int) and factor > 1) else value * factor


def inadmissible(claim, x):
    """Instances like this one that do not meet the assumptions of the claim."""
    for name, factor in itertools.product(claim.instances.kind.__dataclass_fields__, (-1, 0, 100)):
        with contextlib.suppress(Exception):  # a form that the assumptions cannot judge
            changed = replace(x, **{name: scaled(getattr(x, name), factor)})
            if not all(holds(changed) for holds in claim.assumptions.values()):
                yield plain({field: getattr(changed, field) for field in claim.instances.kind.__dataclass_fields__})


def frozen(key):
    return tuple(map(frozen, key)) if isinstance(key, list | tuple) else key


@pytest.mark.parametrize("claim", REFUTED, ids=lambda claim: claim.label)
def test_what_does_not_meet_the_assumptions_is_no_counterexample(claim):
    """Whatever the claim does not admit, its certificate does not either, or finds nothing wrong with it."""
    x = next(x for x in claim.instances.corners if claim.admits(x) and claim.violates(x))
    data = json.loads(json.dumps(certificate(claim, Verdict.REFUTED, [x])))
    said = {}
    for instance in inadmissible(claim, x):
        try:
            said[str(instance)] = verifier.holds(
                data, data["instances"][0] | instance, lambda *key: Found()[frozen(key)]
            )
        except Exception:  # refused, or no number
            said[str(instance)] = None
    assert said
    assert False not in said.values(), said
