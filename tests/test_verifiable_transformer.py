"""Transformers on arithmetic, and the units that a study of verifiable rewards keeps."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from experiments.verifiable import rules, tables, tasks, transformer, units
from experiments.verifiable.stored import Told

SMALL = transformer.Sizes(hidden=16, layers=1, warm=4, tokens=2500, every=1000)


def written(tokens):
    return "".join(tasks.SIGNS[token] for token in tokens)


@pytest.fixture(scope="module")
def warm():
    return transformer.warmed(SMALL, 0)


def test_answers_are_right_and_held_out_prompts_are_others(warm):
    _, train, held_out = warm
    assert len(train.prompts) == len(held_out.prompts) == 300
    assert len(tasks.texts(train) | tasks.texts(held_out)) == 600
    for part in (train, held_out):
        for prompt, answer, source in zip(part.prompts.tolist(), part.answers.tolist(), part.source, strict=True):
            asked, end = written(prompt).lstrip("_"), written(answer)
            told = asked[:-1]
            copies = {"c": told[1:], "r": told[:0:-1]}
            expected = copies[told[0]] if told[0] in copies else str(eval(told))
            assert asked[-1] == "="
            assert end.rstrip("_") == expected + ";"
            assert list(tasks.SOURCES)[source] == {"c": "copied", "r": "reversed"}.get(
                told[0], "products" if "*" in told else "large sums" if len(told) == 5 else "small sums"
            )


def test_pass_rates_are_products_of_what_is_drawn_sign_by_sign(warm):
    """Without a cache, a sign at a time; padding is never drawn; and shares of many answers."""
    model, train, _ = warm
    rates = transformer.rates_of(model, train)
    for place in (0, 150, 299):
        given, chance = train.prompts[place], 1.0
        for sign in train.answers[place]:
            if sign == tasks.PAD:
                break
            with torch.no_grad():
                logits = model(given[None]).logits[0, -1].double()
            logits[tasks.PAD] = -torch.inf
            chance *= float(logits.softmax(dim=0)[sign])
            given = torch.cat([given, sign[None]])
        assert rates[place] == pytest.approx(chance, rel=1e-4)
    many = train.prompts[:1].repeat(4000, 1)
    answers = transformer.sampled(model, many, torch.Generator().manual_seed(0))
    first = torch.bincount(answers[:, 0], minlength=len(tasks.SIGNS)) / 4000
    with torch.no_grad():
        expected = transformer._policy(model(train.prompts[:1]).logits[0, -1]).exp()
    assert (first - expected).abs().max() < 0.04
    for row in answers[:50].tolist():
        text = written(row)
        assert "_" not in text.rstrip("_")
        assert ";" not in text.rstrip("_")[:-1]
        assert text.rstrip("_").endswith(";") or "_" not in text


def test_log_probabilities_count_nothing_after_the_end(warm):
    """Two answers that differ there alone are one."""
    model, train, _ = warm
    answers = torch.tensor([[3, tasks.END, tasks.PAD, tasks.PAD, tasks.PAD]])
    found = transformer.log_probabilities(model, train.prompts[:1], answers)
    with torch.no_grad():
        steps = transformer._policy(model(torch.cat([train.prompts[:1], answers[:, :1]], dim=1)).logits[0, -2:])
    assert found.item() == pytest.approx((steps[0, 3] + steps[1, tasks.END]).item(), abs=1e-4)


def test_advantages_are_weighed_by_prompt():
    rewards = torch.tensor([[1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], [1.0] * 7 + [0.0]]).double()
    by_name = {arm.name: arm for arm in transformer.ARMS}
    plain, weighed = (transformer.advantages(by_name[name], rewards) for name in ("plain", "kl_penalty:0.3"))
    tilt = np.exp(-np.array([1 / 8, 7 / 8]) / 0.3)
    assert (weighed / plain).numpy() == pytest.approx(np.outer(tilt / tilt.mean(), np.ones(8)))
    assert plain[0].tolist() == pytest.approx([1.0, *[-1 / 7] * 7])


def test_a_cell_is_trained_once_and_told(tmp_path, monkeypatch):
    cells = [transformer.Cell(name, 1e-3, seed) for name in ("plain", "kl_penalty:0.3") for seed in (0, 1)]
    here = SMALL.folder(tmp_path)
    here.mkdir()
    for cell in cells:
        transformer.work(cell, SMALL, tmp_path)
    first = json.loads(cells[0].path(here).read_text())
    tokens = [point["tokens"] for point in first["curve"]]
    assert tokens[0] == 0
    assert tokens[-1] >= SMALL.tokens > tokens[-2]
    assert first["curve"][0] != first["curve"][-1]
    starts = [json.loads(cell.path(here).read_text())["curve"][0] for cell in cells]
    assert starts[0] == starts[2], "arms of a seed have one warm start"
    monkeypatch.setattr(transformer, "train_cell", lambda *_: pytest.fail("trained again"))
    transformer.work(cells[0], SMALL, tmp_path)
    found = transformer.collected(tmp_path, SMALL)
    assert transformer.collected(tmp_path, transformer.Sizes()) == []
    assert {(cell["arm"], cell["seed"]) for cell in found} == {(cell.arm, cell.seed) for cell in cells}
    head, plain, other = list(tables.transformer(Told({}, found)))
    assert head[:3] == ("learning rate", "arm", "seeds")
    assert plain[:3] == ("0.001", "plain", "2")
    assert other[1:3] == ("kl_penalty:0.3", "2")


def test_a_unit_is_trained_once_unless_it_or_the_code_changes(tmp_path, monkeypatch):
    [unit] = units.units("end", "opposed", (7, 8), (("plain", 10.0), ("tv:0.3", 10.0)), steps=50)
    path = units.work(unit, tmp_path)
    along, rates = units.loaded([unit], tmp_path)
    assert along.shape[:3] == (2, 2, 2)
    assert rates.shape == (2, 300, 2)
    monkeypatch.setattr(units, "train", lambda *_, **__: pytest.fail("trained again"))
    assert units.work(unit, tmp_path) == path
    assert unit._replace(steps=100).path(tmp_path) != path
    other = tmp_path / "other.py"
    other.write_text("# changed")
    monkeypatch.setattr(units, "CODE", (*units.CODE, other))
    assert unit.path(tmp_path) != path


def test_the_size_is_the_one_with_the_highest_training_rate(tmp_path):
    runs = (("plain", 3.0), ("plain", 10.0), ("tv:0.3", 3.0), ("tv:0.3", 10.0))
    jobs = units.units("tuning", "opposed", range(20), runs)
    assert [len(job.seeds) for job in jobs] == [10, 10]
    for job, last in zip(jobs, ([0.2, 0.4, 0.5, 0.1], [0.7, 0.4, 0.3, 0.3]), strict=True):
        along = np.zeros((2, 10, 4, 13))
        along[-1, :, :, 0] = last
        np.savez(job.path(tmp_path), along=along, rates=np.zeros((4, 300, 4)))
    assert units.chosen(jobs, tmp_path) == {"plain": 3.0, "tv:0.3": 3.0}
    assert len(units.grid("opposed")) == 33 * len(rules.SIZES)
