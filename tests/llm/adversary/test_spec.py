"""Sets and rules as text: what every kind says of itself is read back as itself, and any other text is one sentence."""

from dataclasses import fields, is_dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dro_core import KL, CressieRead, CVaR, Grouped, KLPenalty, Minibatch, Spectral, TotalVariation, Trimmed
from llm.adversary.comparisons import Focal, Hardest, PerMicroBatch, RandomSubset, Shuffled
from llm.adversary.geometry import PromptDiscrepancy, PromptTransport
from llm.adversary.group_controls import Balanced, PermutedGroups
from llm.adversary.regret import Regret
from llm.adversary.rule_forms import RULES
from llm.adversary.rules import DrDPO, GroupAscent, layers
from llm.adversary.spec import parse_reweighting
from llm.adversary.weightings.estimates import Pooled, Running, Shrunk
from llm.adversary.weightings.rule import WEIGHTINGS, weighting

SHARES = st.floats(0, 1, exclude_min=True)
SIZES = st.floats(0, allow_infinity=False)
COLUMNS = st.text(st.characters(exclude_characters=","), min_size=1).map(str.strip).filter(bool)
SINGLE = {
    "tv": st.builds(TotalVariation, SHARES, st.none() | st.floats(1, allow_infinity=False)),
    "cvar": st.builds(CVaR, SHARES),
    "spectral": st.just(Spectral((0.1, 0.3, 0.6))),
    "cressie_read": st.builds(CressieRead, st.sampled_from([0.5, 1.5]), SIZES),
    "grouped": st.builds(Grouped, st.builds(KL, SIZES), COLUMNS),
    "trimmed": st.builds(Trimmed, st.builds(Grouped, st.builds(KL, SIZES), COLUMNS), st.floats(0, 0.9)),
    "charged": st.builds(lambda alpha, price: CVaR(alpha) + KLPenalty(price), SHARES, SHARES),
    "minibatch": st.builds(Minibatch, st.builds(CVaR, SHARES), st.integers(1, 10**6)),
    "kldpo": st.builds(KLPenalty, SHARES | st.just(float("inf"))),
    "dr_dpo": st.builds(DrDPO, st.floats(0, exclude_min=True)),
    "balanced": st.builds(Balanced, COLUMNS.filter(lambda name: ":" not in name)),
    "gr_dpo": st.builds(GroupAscent, SIZES, COLUMNS),
    "random": st.builds(RandomSubset, SHARES),
    "hardest": st.builds(Hardest, SHARES, st.floats(1, allow_infinity=False)),
    "focal": st.builds(Focal, SIZES),
    "wasserstein": st.builds(PromptTransport, SIZES),
    "mmd": st.builds(PromptDiscrepancy, SIZES),
}
for name, known in WEIGHTINGS.items():
    told = {
        one.name: st.integers(int(one.least), 10**6).map(float)
        if one.whole
        else st.floats(one.least, min(one.most, 0.5 if one.name == "low" else 1e300), exclude_min=one.open)
        for one in known.parameters
    }
    told |= {"high": st.floats(0.5, 1, exclude_min=True)} if "high" in told else {}
    SINGLE[name] = st.fixed_dictionaries(told).map(lambda said, name=name: weighting(name, **said))
ANY = st.one_of(*SINGLE.values())
NESTED = {
    "shuffled": lambda inner: st.builds(Shuffled, inner, st.none() | COLUMNS),
    "permuted_groups": lambda inner: st.builds(
        PermutedGroups, inner.filter(lambda rule: any(hasattr(part, "groups") for part in layers(rule)))
    ),
    "micro": lambda inner: st.builds(PerMicroBatch, inner, st.integers(1, 10**6)),
}
KINDS = SINGLE | {name: made(ANY) for name, made in NESTED.items()}
KINDS["regret"] = st.builds(Regret, ANY)  # which stands once, as do what shows estimates
KINDS["running"] = st.builds(Running, st.floats(0, 1, exclude_max=True), ANY)
KINDS["shrunk"] = st.builds(Shrunk, SIZES, ANY)
KINDS["pooled"] = st.builds(Pooled, KINDS["running"] | ANY, COLUMNS)
KINDS["deep"] = st.recursive(ANY, lambda inner: st.one_of(*(made(inner) for made in NESTED.values())), max_leaves=8)


def same(one, two):
    if is_dataclass(one):
        names = [field.name for field in fields(one)]
        return type(one) is type(two) and all(same(getattr(one, name), getattr(two, name)) for name in names)
    return np.array_equal(one, two)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_read_back_from_its_own_text(kind):
    @given(KINDS[kind])
    def survives(rule):
        text = str(rule)
        assert same(parse_reweighting(text), rule), text
        assert str(parse_reweighting(f" {text.replace(':', ' : ', 1)} ")) == text

    survives()


def test_no_kind_is_left_out():
    assert set(RULES) <= set(KINDS)
    for name, form in RULES.items():
        assert str(parse_reweighting(form.example)).startswith("kl_penalty" if name == "kldpo" else name)


PIECES = [
    *RULES, "erm", "tv", "cvar", "by", "within", "factor", "trim", "max_ratio", "source", "0.2", "1", "8", "-1", "inf",
    "nan", "1e400", "", " ", "?", *":::,,,===/@.",
]  # fmt: skip


@given(st.text() | st.lists(st.sampled_from(PIECES)).map("".join) | st.lists(st.sampled_from(PIECES)).map(":".join))
def test_no_text_ends_otherwise_than_in_a_rule_or_a_sentence(text):
    try:
        found = parse_reweighting(text)
    except ValueError as error:
        assert str(error)  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert found is None or same(parse_reweighting(str(found)), found)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("kldpo:0.5", KLPenalty(0.5)),
        ("dr_dpo:1,", DrDPO(1.0)),
        ("gr_dpo:0.1,by= source ", GroupAscent(0.1, "source")),
        (" hardest: 0.1 ,factor= 4 ", Hardest(0.1, 4.0)),
        ("balanced: by = source", Balanced("source")),
        ("balanced,by=source*length_gap/4", Balanced("source*length_gap/4")),
        ("permuted_groups:tv:0.2,by=a*b", PermutedGroups(Grouped(TotalVariation(0.2), "a*b"))),
        ("permuted_groups:balanced:by=a", PermutedGroups(Balanced("a"))),
        ("micro:8:permuted_groups:gr_dpo:1,by=a", PerMicroBatch(PermutedGroups(GroupAscent(1.0, "a")), 8)),
        ("micro:8:tv:0.2,by=source", PerMicroBatch(Grouped(TotalVariation(0.2), "source"), 8)),
        ("regret:tv:0.2,by=source", Regret(Grouped(TotalVariation(0.2), "source"))),
        ("running:0.9:tv:0.2,by=source", Running(0.9, Grouped(TotalVariation(0.2), "source"))),
        ("shrunk:4:running:0.5:maxrl", Shrunk(4.0, Running(0.5, weighting("maxrl")))),
        ("pooled:tv:0.2,by=a", Pooled(TotalVariation(0.2), "a")),
        ("pooled:tv:0.2,by=a,by=b", Pooled(Grouped(TotalVariation(0.2), "a"), "b")),
        ("dgpo,temperature=1", weighting("dgpo", temperature=1.0)),
        ("gdro, bins= 5, rate=2", weighting("gdro", rate=2.0, bins=5.0)),
        ("micro:8.7:tv:0.2", PerMicroBatch(TotalVariation(0.2), 8)),
        ("shuffled:tv:0.2,by=source,within=category", Shuffled(Grouped(TotalVariation(0.2), "source"), "category")),
        ("shuffled:tv:0.2,within=", Shuffled(TotalVariation(0.2))),
        ("shuffled:micro:8:gr_dpo:1,by=a", Shuffled(PerMicroBatch(GroupAscent(1.0, "a"), 8))),
        ("shuffled:shuffled:tv:0.2,within=a", Shuffled(Shuffled(TotalVariation(0.2)), "a")),
        ("shuffled:shuffled:tv:0.2,within=a,within=b", Shuffled(Shuffled(TotalVariation(0.2), "a"), "b")),
        ("shuffled:shuffled:tv:0.2,within=a,within=", Shuffled(Shuffled(TotalVariation(0.2), "a"))),
    ],
)
def test_texts_mean_what_they_meant(text, rule):
    assert same(parse_reweighting(text), rule)
    assert same(parse_reweighting(str(rule)), rule)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("random:", "'random:' lacks its share; write for example 'random:0.4'"),
        ("random:1.5", "in \\(0, 1\\]"),
        ("random:0.4:tv:0.2", "has '0.4:tv:0.2' where a number belongs, as in 'random:0.4'"),
        ("hardest:0.1", "lacks factor; add ',factor=NUMBER'"),
        ("hardest:0.1,factor=", "has '' where a number belongs, as in 'hardest:0.1,factor=4'"),
        ("hardest:0.1,factor=0.5", "at least 1"),
        ("focal:-1", "at least 0"),
        ("rs_grpo:0", "takes a beta of above 0, got 0"),
        ("pass_at_k:0.5", "takes a k of at least 1, got 0.5"),
        ("maxrl:2", "has '2'|unknown ambiguity 'maxrl:2'"),
        ("difficulty_band,low=0.2", "lacks high; add ',high=NUMBER'"),
        ("difficulty_band,low=0.8,high=0.2", "a low that lies below its high"),
        ("curverl,bins=1", "takes a bins of at least 2"),
        ("running:1:tv:0.2", "at least 0 and below 1, got 1"),
        ("running:0.9:erm", "nothing can be made"),
        ("running:0.9:shuffled:running:0.5:tv:0.2", "running: stands twice"),
        ("shrunk:-1:tv:0.2", "at least 0, got -1"),
        ("pooled:tv:0.2", "lacks by; add ',by=NAME'"),
        ("pooled:tv:0.2,by=", "names no column after by="),
        ("focal:1/2", "has '1/2' where a number belongs, as in 'focal:2'"),
        ("shuffled:erm", "nothing can be made"),
        ("shuffled:", "lacks its set; write for example 'shuffled:tv:0.2'"),
        (
            "shuffled:tv:0.2,within=a,within=b",
            "has the option 'within=a', but the allowed ones, once each",
        ),
        ("shuffled:tv:0.2,cap=3", "has the option 'cap=3', but the allowed ones, once each, are: within=NAME, max_rat"),
        ("micro:tv:0.2", "has 'tv' where a number belongs, as in 'micro:8:tv:0.2'"),
        ("micro:8", "lacks its set; write for example 'micro:8:tv:0.2'"),
        ("micro:0:tv:0.2", "at least 1"),
        ("micro:inf:tv:0.2", "at least 1, got inf"),
        ("micro:8:erm", "nothing can be made"),
        ("regret:0.2", "has '0.2' where a set belongs, as in 'regret:tv:0.2'"),
        ("regret:micro:8:regret:tv:0.2", "regret: stands twice"),
        ("micro:8:nothing:1", "unknown ambiguity 'nothing:1' in 'micro:8:nothing:1'"),
        ("shufled:tv:0.2", "unknown ambiguity 'shufled:tv:0.2', did you mean 'shuffled:tv:0.2'\\? The known ones are:"),
        ("mmd:x", "has 'x' where a number belongs, as in 'mmd:0.1'"),
        ("mmd:-1", "at least 0"),
        ("dr_dpo", "lacks its temperature"),
        ("dr_dpo:0", "must be positive"),
        ("dr_dpo:1,by=source", "has the option 'by=source', but takes none"),
        ("gr_dpo:0.1", "lacks by; add ',by=NAME'"),
        ("gr_dpo:0.1,by=", "names no column"),
        ("gr_dpo:0.1,by=a,by=b", "has the option 'by=b', but the allowed ones, once each, are: by=NAME"),
        ("gr_dpo:-1,by=source", "at least 0"),
        ("kldpo:x", "has 'x' where a number belongs, as in 'kldpo:1'"),
        ("tv=0.2", "unknown ambiguity 'tv=0.2', did you mean 'tv:0.2'\\? The known ones are:"),
        ("nothing:1", "unknown ambiguity 'nothing:1'; the known ones are: erm, burg:RADIUS, .* mmd:RADIUS\\."),
    ],
)
def test_what_cannot_be_read_is_explained(spec, said):
    with pytest.raises(ValueError, match=said):
        parse_reweighting(spec)
