"""Scoring with a real model, and the numbers and tables made from margins."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from dro_core import CVaR, worst_case
from llm.data.pairs import Pair
from llm.judging.accuracy import (
    compare,
    evaluate_model,
    render_comparison,
    render_table,
    score_pairs,
    summarise,
    write_metrics,
)
from llm.judging.margins import pairs_at_once
from llm.judging.tables import groups_shown, tidy_rows
from llm.models.loading import tiny_reward_model
from llm.statistics.intervals import accuracy_interval, mcnemar_p
from llm.statistics.numbers import percent


def pair(number, chosen="four", rejected="it is five", *, asked=None, **fields):
    """A pair with a prompt of its own, or with prompt number ``asked``."""
    prompt = {"role": "user", "content": f"Add two and {number if asked is None else asked}."}
    return Pair(f"p{number}", (prompt,), chosen, rejected, **fields)


@pytest.fixture(scope="module")
def pairs():
    rng = np.random.default_rng(0)
    words = ["red", "green", "blue", "seven", "eight", "nine"]
    return [
        pair(
            number,
            " ".join(rng.choice(words, rng.integers(1, 30))),
            " ".join(rng.choice(words, rng.integers(1, 30))) + ".",
            category="ab"[number % 2],
            source="even" if number % 2 == 0 else "odd",
        )
        for number in range(13)
    ]


@pytest.fixture(scope="module")
def tiny(pairs):
    torch.manual_seed(0)
    return tiny_reward_model((p.chosen for p in pairs), max_length=64)


def test_margins_are_those_of_one_unpadded_pair_at_a_time_in_the_given_order(tiny, pairs):
    model, tokenizer = tiny
    alone = np.array([score_pairs(model, tokenizer, [one], max_length=64)[0] for one in pairs])
    for batch_size in (1, 4, 32):
        margins = score_pairs(model, tokenizer, pairs, max_length=64, batch_size=batch_size)
        assert margins.dtype == np.float64
        np.testing.assert_allclose(margins, alone, atol=1e-5)
    assert np.ptp(alone) > 1e-3  # else order could not be told


def test_margin_is_reward_of_chosen_minus_reward_of_rejected(tiny, pairs):
    model, tokenizer = tiny
    flipped = [Pair(p.id, p.prompt, p.rejected, p.chosen) for p in pairs]
    forward = score_pairs(model, tokenizer, pairs, max_length=64)
    np.testing.assert_allclose(score_pairs(model, tokenizer, flipped, max_length=64), -forward, atol=1e-5)


def test_scoring_restores_the_mode_of_every_module(tiny, pairs):
    model, tokenizer = tiny
    modes = {}
    model.train()
    frozen = next(iter(model.children()))
    frozen.eval()
    before = [module.training for module in model.modules()]
    hook = model.register_forward_pre_hook(
        lambda module, _: modes.update(train=module.training, gradient=torch.is_grad_enabled())
    )
    score_pairs(model, tokenizer, pairs, max_length=64)
    hook.remove()
    assert modes == {"train": False, "gradient": False}
    assert [module.training for module in model.modules()] == before
    assert any(before)
    assert not all(before)


def test_a_broken_model_is_named_with_its_pairs(tiny, pairs):
    model, tokenizer = tiny
    with torch.no_grad():
        saved = [parameter.clone() for parameter in model.parameters()]
        for parameter in model.parameters():
            parameter.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match=r"13 of 13 margins are nan or infinite \(pairs p0, p1"):
        score_pairs(model, tokenizer, pairs, max_length=64)
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), saved, strict=True):
            parameter.copy_(value)


def test_no_pairs_no_margins(tiny):
    assert score_pairs(*tiny, [], max_length=64).shape == (0,)
    empty = summarise([], [])
    assert empty["overall"]["accuracy"] is None
    assert empty["worst_category"] is None
    json.dumps(empty, allow_nan=False)


def test_a_suite_that_cannot_be_judged_ends_nothing(tiny, caplog):
    """Both answers of all its pairs part behind what is read."""
    model, tokenizer = tiny
    long = "The same words. " * 200
    dead = [Pair(f"d{i}", ({"role": "user", "content": f"Say {i}."},), f"{long}Yes", f"{long}No") for i in range(3)]
    alive = Pair("a", ({"role": "user", "content": "Say 1."},), "Yes", "No")
    result = evaluate_model(model, tokenizer, {"dead": dead, "some": [dead[0], alive]}, max_length=100)
    assert np.isnan(result["margins"]["dead"]).all()
    assert np.isnan(result["margins"]["some"]).tolist() == [True, False]
    assert result["margins"]["some"][1] == score_pairs(model, tokenizer, [alive], max_length=100)[0]
    overall = result["suites"]["dead"]["overall"]
    assert (overall["pairs"], overall["left_out"], overall["accuracy"]) == (0, 3, None)
    assert "nothing is judged: None of 3 pairs can be read" in caplog.text


def test_summary_by_hand():
    data = [
        pair(0, "aaaa", "b", category="x", source="s"),
        pair(1, "a", "bbb", category="x", source="t"),
        pair(2, "aa", "bb", category="x", source="s"),
        pair(3, "aaa", "b", category="y", source="s"),
    ]
    margins = np.array([2.0, -1.0, 0.0, 0.5])
    summary = summarise(data, margins)
    overall = summary["overall"]
    losses = np.log1p(np.exp(-margins))
    assert (overall["pairs"], overall["ties"], overall["accuracy"]) == (4, 1, 2.5 / 4)
    assert (overall["low"], overall["high"]) == accuracy_interval([1, 0, 0.5, 1])[1:]
    assert overall["mean_loss"] == pytest.approx(losses.mean())
    assert overall["cvar_loss"] == pytest.approx(losses.max())  # the worst tenth of four pairs is the worst one
    assert overall["longer_wins"] == pytest.approx((1 + 0 + 0.5 + 1) / 4)
    # Ranks of the margins 4 1 2 3, of the length differences 3 -2 0 2: 4 1 2 3.
    assert overall["length_correlation"] == pytest.approx(1.0)
    assert summary["by_category"]["x"]["accuracy"] == pytest.approx(1.5 / 3)
    assert summary["worst_category"]["name"] == "x"
    assert summary["macro_accuracy"] == pytest.approx((1.5 / 3 + 1) / 2)
    assert set(summary["by_source"]) == {"s", "t"}
    assert summary["by_category"]["y"]["low"] is None


def test_tail_loss_is_the_worst_case_of_the_solver(pairs):
    margins = np.random.default_rng(1).standard_normal(13)
    value = worst_case(np.logaddexp(0, -margins), CVaR(alpha=0.1)).value
    assert summarise(pairs, margins)["overall"]["cvar_loss"] == pytest.approx(float(value))


def test_shared_questions_widen_the_interval():
    margins = np.where(np.arange(40) % 20 < 13, 1.0, -1.0)
    free = summarise([pair(n) for n in range(40)], margins)["overall"]
    shared = summarise([pair(n, question_id=f"q{n % 20}") for n in range(40)], margins)["overall"]
    assert shared["clusters"] == 20
    assert shared["high"] - shared["low"] > 1.2 * (free["high"] - free["low"])


def test_margins_must_fit_the_pairs(pairs):
    with pytest.raises(ValueError, match=r"got shape \(2,\) for 13 pairs"):
        summarise(pairs, [1.0, 2.0])
    with pytest.raises(ValueError, match=r"1 of 13 margins are nan or infinite \(pairs p4\)"):
        summarise(pairs, np.where(np.arange(13) == 4, np.inf, 1.0))


def test_comparison_counts_who_alone_is_right(pairs):
    a = np.where(np.arange(13) < 9, 1.0, -1.0)
    b = np.where(np.arange(13) % 3 == 0, 1.0, -1.0)
    record = compare(pairs, a, b)["overall"]
    assert (record["only_a"], record["only_b"]) == (6, 2)
    assert record["difference"] == pytest.approx(4 / 13)
    assert record["mcnemar_p"] == mcnemar_p(a > 0, b > 0)
    swapped = compare(pairs, b, a)["overall"]
    assert (swapped["low"], swapped["high"]) == pytest.approx((-record["high"], -record["low"]))
    assert set(compare(pairs, a, b)["by_category"]) == {"a", "b"}


def test_files_hold_every_number_and_every_margin(tiny, pairs, tmp_path):
    suites = {"first": pairs, "empty": [], "one": pairs[:1]}
    result = evaluate_model(*tiny, suites, max_length=64, batch_size=8, progress=False)
    comparison = {"first": compare(pairs, result["margins"]["first"], np.ones(13))}
    write_metrics(result, suites, tmp_path / "new", comparisons=comparison)
    stored = json.loads((tmp_path / "new" / "metrics.json").read_text())
    assert stored["suites"] == result["suites"]
    assert stored["comparisons"] == comparison
    with (tmp_path / "new" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(r["suite"], r["kind"], r["group"]) for r in rows[:5]] == [
        ("first", "overall", "all"),
        ("first", "category", "a"),
        ("first", "category", "b"),
        ("first", "source", "even"),
        ("first", "source", "odd"),
    ]
    assert float(rows[0]["accuracy"]) == result["suites"]["first"]["overall"]["accuracy"]
    lines = [json.loads(line) for line in (tmp_path / "new" / "margins.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [p.id for p in [*pairs, pairs[0]]]
    assert [line["margin"] for line in lines[:13]] == result["margins"]["first"].tolist()
    assert not list((tmp_path / "new").glob("*.partial"))


def test_tables_show_the_groups_that_were_asked_for_else_the_sources(pairs):
    """What a set weighs stands in the tables of one model and of two, whatever column it is."""
    bare = [replace(p, category="") for p in pairs]
    topics = [replace(p, kept=(("topic", "tax" if n % 3 else "visa"),)) for n, p in enumerate(bare)]
    margins = np.where(np.arange(13) % 3, 1.0, -1.0)
    for own, by, expected in (
        (pairs, (), {"category": ["a", "b"]}),
        (bare, (), {"source": ["even", "odd"]}),
        (topics, ("topic", "nothing"), {"topic": ["tax", "visa"]}),
        (pairs, ("source", "topic"), {"category": ["a", "b"], "source": ["even", "odd"]}),
    ):
        summary, difference = summarise(own, margins, by=by), compare(own, margins, -margins, by=by)
        for found in (summary, difference):
            assert {kind: list(records) for kind, records in groups_shown(found).items()} == expected
        assert {row["kind"] for row in tidy_rows({"s": summary})} >= expected.keys() | {"overall"}
    summary, difference = summarise(topics, margins, by=("topic",)), compare(topics, margins, -margins, by=("topic",))
    assert {name: record["accuracy"] for name, record in summary["by_group"]["topic"].items()} == {"tax": 1, "visa": 0}
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(render_table({"s": summary}), render_comparison({"s": difference}, names=("a", "b")))
    lines = [line.split() for line in console.export_text().splitlines()]
    assert [line[1] for line in lines if line[:1] == ["visa"]] == ["5", percent(-1.0, sign="+")]
    assert lines.count(["by", "topic"]) == 2


def test_screen_tables_show_the_length_rule_and_survive_markup(pairs):
    odd = [Pair(p.id, p.prompt, p.chosen, p.rejected, category="[bold]" if n else "[/x]") for n, p in enumerate(pairs)]
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(render_table({"[red]": summarise(odd, np.ones(13)), "none": summarise([], [])}))
    console.print(render_comparison({"s": compare(pairs, np.ones(13), -np.ones(13))}, names=("a", "[b]")))
    console.file.close()
    text = console.export_text()
    assert "longer wins" in text
    assert all(name in text for name in ("[red]", "[bold]", "[/x]", "a minus [b]", "+100.0", "< 0.001"))


@pytest.mark.parametrize(("kind", "vocabulary", "length", "expected"), [
    (LlamaForCausalLM, 50_000, 128, 32), (LlamaForCausalLM, 50_000, 1024, 5), (LlamaForCausalLM, 256_000, 8192, 1),
    (LlamaForSequenceClassification, 256_000, 8192, 32),
])  # fmt: skip
def test_a_large_vocabulary_makes_smaller_batches_where_nobody_says(kind, vocabulary, length, expected):
    """By hand: 2 GiB are 2^29 logits of four bytes, and a pair is two sequences of ``length``."""
    with torch.device("meta"):
        model = kind(LlamaConfig(vocab_size=vocabulary, hidden_size=8, num_hidden_layers=1, num_attention_heads=1))
    assert pairs_at_once(model, length) == expected
