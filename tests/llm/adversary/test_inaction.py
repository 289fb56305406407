"""What is said of an adversary that did not act, from its account, which older versions wrote too."""

from __future__ import annotations

import numpy as np
import pytest

from dro_core import Wasserstein
from llm.adversary.inaction import inaction
from llm.adversary.ledger import AdversaryLedger


def ledger_of(*answers):
    ledger = AdversaryLedger(4)
    for answered in answers:
        ledger.record(np.arange(4), answered, np.ones(4), answered=answered)
    return ledger


def test_the_verdict_names_what_is_known():
    even, apart = np.ones(4), np.array([0.9, 1.1, 1.0, 1.0])
    assert inaction("tv:0.2", ledger_of(even, apart, even)) is None
    assert inaction("erm", AdversaryLedger(4)) is None
    for spec, ledger, reason in [
        ("tv:0.2", AdversaryLedger(4), "the schedule of the radius left it no step"),
        ("tv:0", ledger_of(even), "tv:0 holds nothing but equal weights"),
        ("tv:0", AdversaryLedger(4), "tv:0 holds nothing but equal weights"),
        ("kl:0,by=source,trim=0", ledger_of(even), "holds nothing but equal weights"),
        (Wasserstein(0.2, 1 - np.eye(4)), AdversaryLedger(4), "left it no step"),  # has no text to read again
        ("cvar:1,by=source", ledger_of(even), "holds nothing but equal weights"),
        ("tv:0.2", ledger_of(even + 1e-7), "the weights were equal whenever it was asked"),
        ("gr_dpo:1,by=source", ledger_of(even), "the weights were equal"),
    ]:
        assert inaction(spec, ledger).startswith("the adversary did not act: ")
        assert reason in inaction(spec, ledger)


def test_an_account_of_an_older_version_is_read(tmp_path):
    kept, found = ledger_of(np.array([0.9, 1.1, 1.0, 1.0])), AdversaryLedger(0)
    kept.save(tmp_path)
    found.load(tmp_path)
    assert (found.looks, found.largest_change) == (1, pytest.approx(0.1))
    parts = {name: getattr(kept, name) for name in ("multiplier_sum", "visits", "last_loss")}
    np.savez(tmp_path / "ledger.npz", **parts)
    found.load(tmp_path)
    assert (found.acted, found.largest_change) == (True, pytest.approx(0.1))
