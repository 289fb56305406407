"""What a head can reach and bear, against linear programs on real pairs, and pairs whose answer is known."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import linprog

from dro_core.collapse.crossfit import deal
from llm import ceiling
from llm.data.corpus.corpus import generate
from llm.data.pairs import DataError, read_pairs, write_pairs
from llm.features.ceiling import SETS, Bearing, Ceiling, ceiling_of, drawn
from llm.features.features import load_backbone, pair_features
from llm.statistics.intervals import Interval
from llm.text.encoding import encode_pairs
from robust_rlhf import main

LENGTH = 64


def made(n, signal, *, seed=0, d=4, source=lambda row: "a"):
    """Features with a signal, and pairs each of its own prompt."""
    rng = np.random.default_rng(seed)
    pairs = [replace(pair, id=f"p{row}", source=source(row)) for row, pair in enumerate(generate(n, seed=3))]
    alone = [replace(pair, prompt=({"role": "user", "content": f"question {row}"},)) for row, pair in enumerate(pairs)]
    return rng.standard_normal((n, d)) + signal, alone


# Against linear programs


def balancing(x):
    """The least total variation from uniform at which the mean of the rows is 0; the direction is its dual."""
    n, d = x.shape
    upper = np.hstack([np.eye(n), -np.eye(n)])  # q - excess <= 1/n
    equal = np.vstack([np.hstack([x.T, np.zeros((d, n))]), np.r_[np.ones(n), np.zeros(n)]])
    found = linprog(
        np.r_[np.zeros(n), np.ones(n)], A_ub=upper, b_ub=np.full(n, 1 / n), A_eq=equal, b_eq=np.r_[np.zeros(d), 1.0],
        method="highs-ipm",
    )  # fmt: skip
    return found.fun, found.eqlin.marginals[:d]


def below(margins):
    """The least total variation from uniform at which margins have a mean of at most 0."""
    n = len(margins)
    if margins.mean() <= 0:
        return 0.0
    found = linprog(
        np.r_[np.zeros(n), np.ones(n)],
        A_ub=np.vstack([np.hstack([np.eye(n), -np.eye(n)]), np.r_[margins / np.abs(margins).max(), np.zeros(n)]]),
        b_ub=np.r_[np.full(n, 1 / n), 0.0], A_eq=[np.r_[np.ones(n), np.zeros(n)]], b_eq=[1.0], method="highs",
    )  # fmt: skip
    return found.fun


@pytest.mark.exhaustive(turns=8)
def test_real_pairs_bear_what_linear_programs_say(shared_data):
    """In sample, at random and held out, on features of real pairs."""
    pairs = drawn(read_pairs(shared_data / "train.jsonl.gz").pairs, 330)
    found = ceiling(pairs, model="tiny", max_length=LENGTH, sets=["tv"], by=[]).ceiling
    backbone = load_backbone("tiny", max_length=LENGTH, train=pairs)
    kept = [pairs[row] for row in encode_pairs(pairs, backbone.tokenizer, max_length=LENGTH).kept]
    assert found.pairs == len(kept)
    chosen, rejected = pair_features(backbone, kept)
    x = np.linalg.svd(chosen.astype(float) - rejected.astype(float), full_matrices=False)[0]  # the same radius
    x *= np.sqrt(len(x))
    [one] = found.bearings
    assert one.in_sample == pytest.approx(balancing(x)[0], rel=1e-4)
    nulls = [
        balancing(np.random.default_rng(seed).choice([-1.0, 1.0], size=len(x))[:, None] * x)[0] for seed in range(3)
    ]
    assert one.null == pytest.approx(np.median(nulls), rel=2e-3)
    prompts = [json.dumps(list(pair.prompt)) for pair in kept]
    codes = np.unique([name if prompts.count(name) > 1 else f"own {row}" for row, name in enumerate(prompts)])
    assert found.prompts == len(codes)


def test_held_out_values_are_those_of_linear_programs():
    """The direction of a linear program on the other folds, judged by a linear program on the fold."""
    x, pairs = made(150, 0.3)
    [one] = ceiling_of(x, pairs, file="made", model="none", sets=["tv"]).bearings
    folds = deal(np.unique([f"own {row}" for row in range(150)], return_inverse=True)[1], 5, np.random.default_rng(0))
    values = []
    for fold in folds:
        others = np.delete(x, fold, axis=0)
        _, dual = balancing(others)
        direction = dual * np.sign((others @ dual).mean())  # the sign of a multiplier is a convention
        values.append(below(x[fold] @ direction))
    assert one.held_out == pytest.approx(np.mean(values), rel=0.02)


# What is known


def test_signs_bear_what_the_closed_form_says_and_half_is_suggested():
    rng = np.random.default_rng(5)
    signs = np.where(rng.random((1500, 1)) < 0.7, 1.0, -1.0)
    _, pairs = made(1500, 0.0)
    found = ceiling_of(signs, pairs, file="signs", model="none", sets=["tv", "cvar", "kl"], seeds=(0,))
    a = float((signs > 0).mean())
    tv, cvar, kl = found.bearings
    assert (tv.in_sample, cvar.in_sample, kl.in_sample) == pytest.approx(
        (a - 0.5, 2 * (1 - a), -np.log(4 * a * (1 - a)) / 2), rel=1e-4
    )
    assert found.accuracy.mean == pytest.approx(a)
    assert found.learnable
    assert tv.suggestion == f"tv:{tv.low / 2:.2g}"
    assert cvar.suggestion == f"cvar:{1 - (1 - cvar.high) / 2:.2g}"
    [said] = found.verdicts()
    assert said.startswith("pairs: a set inside the radius may pay")
    assert kl.suggestion in said


def test_without_a_signal_nothing_is_suggested():
    found = ceiling_of(*made(300, 0.0, d=20), file="noise", model="none", seeds=(0,))
    assert not found.learnable
    [said] = found.verdicts()
    assert said.startswith("no sign that a worst case can pay here")
    assert found.as_json()["verdicts"] == [said]


def test_groups_that_features_always_tell_apart_bear_every_set():
    x, pairs = made(600, 0.8, d=2, source=lambda row: "ab"[row % 2])
    sources = [pair.source for pair in pairs]
    found = ceiling_of(x, pairs, file="groups", model="none", by={"source": sources}, seeds=(0,), sets=["tv", "burg"])
    over = [one for one in found.bearings if one.by == "source"]
    assert [one.scenarios for one in over] == [2, 2]
    assert all(one.vacuous and one.held_out == np.inf and one.suggestion == "" for one in over)
    assert list(found.verdicts())[1] == "groups by source: unseen prompts bear every set"
    assert json.dumps(found.as_json(), allow_nan=False)  # infinite radii as text


@pytest.mark.parametrize(("least", "null", "held_out"), [((0.01, 0.05), 0.02, False), ((0.03, 0.05), 0.02, True)])
def test_what_noise_seems_to_bear_is_nothing(least, null, held_out):
    one = Bearing("tv", "", 10, 0.1, 0.05, 0.04, *least, null, vacuous=False)
    assert one.bears is held_out
    turned = Bearing("cvar", "", 10, 0.9, 0.95, 0.96, 1 - least[1], 1 - least[0], 1 - null, vacuous=False)
    assert turned.bears is held_out


@pytest.mark.parametrize("kind", ["tv", "cvar"])
@pytest.mark.parametrize(
    ("interval", "said"),
    [
        ((0.01, 0.015), "a worst case cannot pay:"),
        ((0.01, 0.05), "no sign that a worst case can pay, and none that it cannot:"),
        ((0.03, 0.05), "a set inside the radius may pay;"),
    ],
)
def test_that_a_worst_case_cannot_pay_is_said_where_the_interval_shows_it(kind, interval, said):
    low, high, noise = (*interval, 0.02) if kind == "tv" else (1 - interval[1], 1 - interval[0], 0.98)
    one = Bearing(kind, "", 10, 0.1, 0.05, (low + high) / 2, low, high, noise, vacuous=False)
    found = Ceiling("made", "none", 10, 10, 2, Interval(0.7, 0.6, 0.8), 0.5, (one,), {})
    assert next(found.verdicts()).startswith(f"pairs: {said}")


# The command and the Python face


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("pairs") / "train.jsonl"
    write_pairs(generate(160, seed=2), path)
    return path


@pytest.mark.slow("the tables twice")
def test_the_command_shows_what_the_face_returns(file, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    asked = ["data", "ceiling", str(file), "--model", "tiny", "--max-length", "48", "--sets", "tv", "kl"]
    assert main([*asked, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    table = ceiling(str(file), model="tiny", max_length=48, sets=["tv", "kl"]).table
    assert [one["in_sample"] for one in said["bearings"]] == pytest.approx(
        [float(value) for value in table["in_sample"]], rel=1e-6
    ) or not np.isfinite(table["in_sample"]).all()
    assert main(asked) == 0
    shown = capsys.readouterr().out
    for text in ("pairs (160)", "by category", "held out", "plain heads rank", "decide by what is held out"):
        assert text in shown


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--sets", "hellinger"], "no collapse radius is known for 'hellinger'"),
        (["--by", "source", "colour"], "by=colour: there is no column 'colour'; the columns are: source"),
        (["--folds", "2"], "folds must be at least 3, got 2"),
        (["--max-pairs", "0"], "max_pairs must be at least 1"),
        (["--max-length", "0"], "max_length must be at least 1"),
        (["--max-pairs", "4"], "different prompts are too few for 5 folds"),
        (["--model", "no-such-folder/model"], "no-such-folder/model"),
    ],
)
def test_bad_requests_get_a_sentence(file, more, said, capsys):
    assert main(["data", "ceiling", str(file), "--model", "tiny", "--max-length", "48", *more]) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("robust-rlhf: ")
    assert said in message


@pytest.mark.exhaustive(turns=8)
def test_groups_have_names_as_after_by(file, tmp_path):
    """Bins, products, and a column of the file that no layout knows."""
    records = [json.loads(line) | {"shift": "ab"[row % 2]} for row, line in enumerate(file.read_text().splitlines())]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    for data in (tmp_path / "own.jsonl", records):
        found = ceiling(data, model="tiny", max_length=48, sets=["tv"], by=["length_gap/2", "category*shift"]).ceiling
        sizes = {one.by: one.scenarios for one in found.bearings}
        combined = {(record["category"], record["shift"]) for record in records}
        assert sizes == {"": 160, "length_gap/2": 2, "category*shift": len(combined)}


def test_groups_of_which_there_is_one_are_refused_where_they_are_asked_for(file):
    records = [json.loads(line) | {"source": "here"} for line in file.read_text().splitlines()]
    with pytest.raises(ValueError, match=r"by source: all pairs are of one group \(here\)"):
        ceiling(records, model="tiny", max_length=48, sets=["tv"], by=["source"])
    found = ceiling(records, model="tiny", max_length=48, sets=["tv"]).ceiling
    assert {one.by for one in found.bearings} == {"", "category", "length_gap"}


def test_weights_of_pairs_are_the_reference():
    """A weight of 2 is the pair twice: in sample the same radius; pairs of no weight are not there."""
    x, pairs = made(120, 0.6)
    weighed = [replace(pair, weight=2.0 if row < 40 else 1.0) for row, pair in enumerate(pairs)]
    [found] = ceiling_of(x, weighed, file="a", model="b", sets=["tv"], seeds=(0,)).bearings
    twice = np.vstack([x, x[:40]])
    [expected] = ceiling_of(twice, pairs + pairs[:40], file="a", model="b", sets=["tv"], seeds=(0,)).bearings
    assert found.in_sample == pytest.approx(expected.in_sample, rel=1e-5)
    alike = [replace(pair, weight=3.0) for pair in pairs]
    reports = [ceiling_of(x, some, file="a", model="b", sets=["tv"], seeds=(0,)).as_json() for some in (alike, pairs)]
    assert reports[0] == reports[1]


def test_a_weight_of_zero_leaves_a_pair_out(file):
    pairs = read_pairs(file).pairs
    light = [replace(pair, weight=0.0 if row < 50 else None) for row, pair in enumerate(pairs)]
    assert ceiling(light, model="tiny", max_length=48, sets=["tv"], by=[]).ceiling.pairs == len(pairs) - 50


def test_pairs_that_cannot_be_told_apart_are_left_out_and_said(file):
    pairs = read_pairs(file).pairs
    long = [replace(pair, id=f"l{row}", chosen=pair.chosen + " word" * 400) for row, pair in enumerate(pairs[:3])]
    cut = [replace(pair, rejected=pair.chosen + " other") for pair in long]
    found = ceiling(pairs + cut, model="tiny", max_length=48, sets=["tv"], by=[]).ceiling
    assert found.pairs == len(pairs)
    assert list(found.left_out.values()) == [3]
    with pytest.raises(DataError, match="None of 3 pairs can be read"):
        ceiling(cut, model="tiny", max_length=48)


def test_the_same_pairs_are_drawn_whatever_stands_around_them(file):
    pairs = read_pairs(file).pairs
    kept = drawn(pairs, 50)
    assert [pair.id for pair in kept] == [pair.id for pair in pairs if pair in kept]
    assert {pair.id for pair in drawn(pairs[::-1], 50)} == {pair.id for pair in kept}
    assert drawn(pairs, 1000) == pairs


def test_all_sets_of_the_default_have_a_radius():
    assert {one.set for one in ceiling_of(*made(60, 1.0), file="a", model="b", seeds=(0,)).bearings} == set(SETS)
