"""Sets matched at equal effective sample size."""

import numpy as np
import pytest

from llm.adversary.matching import UnreachableShare, effective_share, matched_radius, sampled_batches
from llm.adversary.spec import parse_reweighting

RNG = np.random.default_rng(0)
LOSSES = np.logaddexp(0, -RNG.normal(0.5, 1, size=600))
COLUMNS = {"source": RNG.integers(0, 4, 600), "prompt_embedding": RNG.normal(size=(600, 6))}
BATCHES = sampled_batches(600, 32, count=20)
TEMPLATES = [
    "tv:?", "tv:?,max_ratio=4", "chi2:?", "kl:?", "cvar:?", "tv:?,trim=0.05", "hardest:0.2,factor=?", "focal:?",
    "random:?", "shuffled:chi2:?", "wasserstein:?", "mmd:?",
]  # fmt: skip


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_radius_found_has_the_effective_share_asked_for(template):
    spec = matched_radius(template, 0.6, LOSSES, BATCHES, COLUMNS)
    rule = parse_reweighting(spec).bind(COLUMNS)
    assert effective_share(rule, LOSSES, BATCHES) == pytest.approx(0.6, abs=2e-3)


def test_the_radius_of_chi_square_is_known_by_hand():
    """With no weight at zero 1 / (n sum q^2) = 1 / (1 + 2 radius), whatever the losses."""
    assert matched_radius("chi2:?", 0.8, LOSSES, BATCHES, {}) == "chi2:0.125"
    assert matched_radius("cvar:?", 0.5, LOSSES, BATCHES, {}) == "cvar:0.5"


def test_the_share_is_that_of_the_weights():
    assert effective_share(None, LOSSES, BATCHES) == pytest.approx(1)
    assert effective_share(parse_reweighting("cvar:0.25"), LOSSES, BATCHES) == pytest.approx(0.25)


def test_a_share_out_of_reach_is_refused_with_what_can_be_had():
    with pytest.raises(UnreachableShare, match=r"between .* and .* on these losses, not 0.020"):
        matched_radius("tv:?,max_ratio=4", 0.02, LOSSES, BATCHES, {})


@pytest.mark.parametrize(("template", "said"), [("tv:0.2", "must have one"), ("nothing:?", "unknown ambiguity")])
def test_a_template_that_is_none_is_refused(template, said):
    with pytest.raises(ValueError, match=said):
        matched_radius(template, 0.5, LOSSES, BATCHES, {})
