"""Whether a set is larger than the margins of a run bear: a verdict on its log alone."""

from __future__ import annotations

import numpy as np
import pytest

from llm.adversary.radius.beyond import Beyond, beyond, sentence_of


def log_of(values, *, used=0.2, every=8, margins=256, full=1.0, falls=False):
    """Rows of batches of 32, a value of the radius each."""
    return [
        {
            "step": every * (k + 1),
            "radius_fraction": full,
            "radius_used": used,
            "collapse_radius": value,
            "radius_ratio": (1 - used) / (1 - value) if falls else used / max(value, 1e-3),
            "collapse_margins": float(margins),
        }
        for k, value in enumerate(values)
    ]


def test_a_set_is_beyond_where_it_reaches_further_than_the_run_bore_at_best():
    """Quarters of the run: the second one bears .1 give or take .02, the others little."""
    draws = np.random.default_rng(0)
    values = np.concatenate([draws.normal(level, 0.02, 8) for level in (0.03, 0.1, 0.04, 0.03)])
    best = values[8:16]
    found = beyond(log_of(values), ambiguity="tv:0.2", batch=32)
    assert isinstance(found, Beyond)
    half = 2.364624 * best.std(ddof=1) / np.sqrt(8)  # Student's quantile of 7 degrees, from a table
    assert (found.radius, found.low, found.high) == pytest.approx(
        (best.mean(), best.mean() - half, best.mean() + half), rel=1e-5
    )
    assert (found.used, found.windows, found.margins, found.learned) == (pytest.approx(0.2), 8, 256, True)
    text = sentence_of(log_of(values), ambiguity="tv:0.2", batch=32)
    assert text == (
        "the set is larger than the data can bear: at rho .2 an adversary explains every label by noise; largest "
        f"useful radius about {found.radius:.2g} [{found.low:.2g}, {found.high:.2g}]".replace("0.", ".")
    )
    assert beyond(log_of(values, used=0.9 * best.mean()), ambiguity="tv:0.09", batch=32) is None


def test_of_cvar_a_small_alpha_is_beyond_and_a_large_one_is_not():
    values = np.random.default_rng(0).normal(0.7, 0.02, 32)
    found = beyond(log_of(values, used=0.2, falls=True), ambiguity="cvar:0.2", batch=32)
    assert isinstance(found, Beyond)
    assert found.radius == pytest.approx(0.7, abs=0.02)
    assert found.high < found.radius < found.low  # the set grows as alpha falls
    assert "at alpha .2" in found.evidence
    assert "smallest useful alpha about" in found.evidence
    ends = found.evidence.split("[")[1].rstrip("]").split(", ")
    assert float(ends[0]) < float(ends[1])
    assert beyond(log_of(values, used=0.9, falls=True), ambiguity="cvar:0.9", batch=32) is None


def test_values_that_share_margins_are_no_evidence():
    """At every step a value of the last 8 batches: the interval is over one in eight of them."""
    draws = np.random.default_rng(0).normal(0.05, 0.02, 96)
    found = beyond(log_of(draws, every=1), ambiguity="tv:0.2", batch=32)
    assert isinstance(found, Beyond)
    assert found.windows == 3
    reason = beyond(log_of(draws[:15], every=1), ambiguity="tv:0.2", batch=32)
    assert "fewer than 3 values" in str(reason)


def test_nothing_is_said_without_the_full_set_or_without_what_margins_bear():
    assert "full set" in str(beyond(log_of([0.05] * 32, full=0.5), ambiguity="tv:0.2", batch=32))
    assert "full set" in str(beyond([{"step": 1, "mean_loss": 0.6}], ambiguity="tv:0.2", batch=32))
    assert sentence_of([{"step": 1, "mean_loss": 0.6}], ambiguity="tv:0.2", batch=32) is None


def test_a_run_that_learned_nothing_is_told_from_one_that_learned():
    values = np.abs(np.random.default_rng(0).normal(0, 0.02, 32)) * np.tile([0.0, 1.0], 16)
    found = beyond(log_of(values[:12]), ambiguity="tv:0.2", batch=32)
    assert isinstance(found, Beyond)
    assert not found.learned
    assert found.low == 0
