"""Trainings whose set takes its radius from pairs that are never trained on: ``tv:auto=0.5``."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from forked import finished, start_ranks
from hypothesis import given
from hypothesis import strategies as st
from linear_heads import WIDTH, Features, head_trainer, noisy, norm_of, pairs_of
from transformers import TrainerCallback

from llm.adversary.radius.auto import auto_of, lower_end
from llm.adversary.radius.settings import SliceSettings
from llm.adversary.radius.slices import Slice, measured, set_apart
from llm.adversary.spec import parse_reweighting
from llm.data.corpus.corpus import generate
from llm.data.pairs import read_pairs, write_pairs
from llm.doctor.doctor import diagnose
from llm.doctor.record import read_run
from llm.policy.config import PolicyConfig
from llm.policy.setup import prompt_rule
from robust_rlhf import main

PAIRS = noisy(1280, seed=1)
TRAIN, ASIDE = PAIRS[256:], PAIRS[:256]
SOURCES = {"source": [f"s{int(abs(row[1]) > 1)}{int(abs(row[2]) > 1)}" for row in [*TRAIN, *ASIDE]]}
EXHAUSTIVE = pytest.mark.exhaustive


class Weights(TrainerCallback):
    """The weights before every step."""

    def __init__(self):
        self.seen = []

    def on_step_begin(self, args, state, control, **kwargs):
        self.seen.append(kwargs["model"].weight.detach().double().numpy().copy())


def rows_of(trainer, *names):
    return [[row.get(name) for name in names] for row in trainer.state.log_history if "mean_loss" in row]


def run(folder, spec, **kwargs):
    given = {"train": TRAIN, "aside": ASIDE if "auto" in spec else None, "max_steps": 60, **kwargs}
    trainer = head_trainer(folder, spec, **given)
    trainer.train()
    return trainer


@pytest.mark.exhaustive(turns=8)
@pytest.mark.parametrize(
    ("name", "fixed"),
    [
        ("tv", "tv:0.2"),
        ("cvar", "cvar:0.3"),
        pytest.param("chi2", "chi2:0.5", marks=EXHAUSTIVE),
        pytest.param("kl", "kl:0.5", marks=EXHAUSTIVE),
        pytest.param("burg", "burg:0.5", marks=EXHAUSTIVE),
    ],
)
def test_a_share_of_the_radius_keeps_what_a_fixed_one_loses(tmp_path, name, fixed):
    """On labels drawn from a Bradley-Terry model; the fixed radius is beyond what any direction bears."""
    schedule = {"max_steps": 150, "learning_rate": 0.3}
    plain, lost, kept = (norm_of(run(tmp_path, spec, **schedule)) for spec in ("erm", fixed, f"{name}:auto=0.5"))
    assert lost < 0.25 * plain
    assert kept > 0.4 * plain


def test_the_radius_is_measured_before_the_first_step_and_then_every_so_many(tmp_path):
    """Half of the lower end of what the margins of the slice bore at that moment, until the next one."""
    weights, share = Weights(), 0.5
    trainer = head_trainer(tmp_path, f"tv:auto={share}", train=TRAIN, aside=ASIDE, every=20, max_steps=60)
    trainer.add_callback(weights)
    trainer.train()
    for step, (used,) in enumerate(rows_of(trainer, "radius_used")):
        margins = ASIDE.astype(np.float32).astype(np.float64) @ weights.seen[step - step % 20]
        expected = lower_end(parse_reweighting("tv:0"), margins, trainer.slice.clusters).low if margins.any() else 0.0
        assert used == pytest.approx(share * expected, rel=1e-3, abs=1e-6)
    assert rows_of(trainer, "radius_used")[-1][0] > 0
    assert trainer.model.training


def test_where_nothing_is_shown_to_be_learned_the_weights_are_equal(tmp_path):
    """A slice whose labels are coins: every step is that of plain training."""
    coins = ASIDE * np.where(np.random.default_rng(3).random(256) < 0.5, 1, -1)[:, None]
    still = run(tmp_path, "tv:auto=0.5", aside=coins, max_steps=30)
    plain = run(tmp_path, "erm", max_steps=30)
    assert {tuple(row) for row in rows_of(still, "radius_used", "radius_fraction")} == {(0.0, 0.0)}
    torch.testing.assert_close(still.model.weight, plain.model.weight, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("spec", ["kl:auto=0.5,by=source", "shuffled:tv:auto=0.5", "tv:auto=0.5,max_ratio=3,trim=0.05"])
def test_it_stands_wherever_a_number_stands(tmp_path, spec):
    trainer = run(tmp_path, spec, columns=SOURCES, max_steps=50)
    found = auto_of(trainer.ambiguity)
    assert found is not None
    assert found.found.step == 40
    assert found.acts
    assert trainer.ledger.acted


def test_micro_batches_change_nothing(tmp_path):
    one, four = (
        run(tmp_path, "tv:auto=0.5", per_device_train_batch_size=size, gradient_accumulation_steps=64 // size)
        for size in (64, 16)
    )
    names = ("radius_used", "collapse_radius", "radius_ratio", "robust_loss")
    found, expected = (np.array(rows_of(trainer, *names)[2:], dtype=float) for trainer in (four, one))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_a_resumed_run_goes_on_with_the_radius_it_had(tmp_path):
    """Stopped between two measures: the same radius, the same margins in the pool, the same weights."""
    saving = {"save_strategy": "steps", "save_steps": 30, "max_steps": 60}
    whole = run(tmp_path / "whole", "tv:auto=0.5", **saving)
    again = head_trainer(tmp_path / "again", "tv:auto=0.5", train=TRAIN, aside=ASIDE, **saving)
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-30"))
    names = ("step", "radius_used", "collapse_radius", "radius_ratio", "collapse_margins")
    assert rows_of(again, *names) == rows_of(whole, *names)
    assert torch.equal(again.model.weight, whole.model.weight)


def test_evaluations_on_the_way_change_nothing(tmp_path):
    whole = run(tmp_path, "tv:auto=0.5", max_steps=50)
    looked = run(
        tmp_path, "tv:auto=0.5", max_steps=50, eval_strategy="steps", eval_steps=7, evaluated=noisy(40, seed=5)
    )
    assert sum("eval_loss" in row for row in looked.state.log_history) >= 7
    assert rows_of(looked, "radius_used") == rows_of(whole, "radius_used")
    assert torch.equal(looked.model.weight, whole.model.weight)


def test_the_slice_is_measured_without_dropout(tmp_path):
    trainer = head_trainer(tmp_path, "tv:auto=0.5", train=TRAIN, aside=ASIDE)
    model = trainer.model.train()
    model.dropout.p = 0.5
    model.weight.data += 1
    np.testing.assert_allclose(trainer.slice.margins(trainer), ASIDE.sum(axis=1), rtol=1e-4, atol=1e-5)


def ranks(folder):
    torch.set_num_threads(1)
    trainer = run(folder, "tv:auto=0.5,by=source", columns=SOURCES, per_device_train_batch_size=32, max_steps=45)
    found = auto_of(trainer.ambiguity)
    names = ("radius_used", "collapse_radius", "radius_ratio")
    rows = [[row.get(name) for name in names] for row in trainer.state.log_history if "mean_loss" in row]
    mine = {"found": vars(found.found), "rows": rows, "told": trainer.adversary.summary()}
    mine["margins"] = trainer.slice.margins(trainer).tolist()
    mine["weight"] = trainer.model.weight.tolist()
    (folder / f"rank-{trainer.args.process_index}.json").write_text(json.dumps(mine))


@pytest.mark.slow("two processes train")
def test_two_ranks_measure_the_same_radius_each_with_half_of_the_slice(tmp_path):
    finished(start_ranks(ranks, tmp_path))
    one, other = (json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(2))
    assert one == other | {"rows": one["rows"]}
    margins = ASIDE.astype(np.float32) @ np.array(one["weight"], dtype=np.float32)
    np.testing.assert_allclose(one["margins"], margins, atol=1e-5)
    assert one["found"]["bears"] > 0
    assert one["found"]["step"] == 40
    assert one["rows"][-1][0] == pytest.approx(0.5 * one["found"]["bears"])


# -- the slice ------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 40), min_size=80, max_size=200), st.sampled_from([16, 20.0, 0.3]), st.integers(0, 3))
def test_no_prompt_of_the_slice_is_trained_on(prompts, wanted, seed):
    pairs, rule = pairs_of(map(str, prompts)), parse_reweighting("tv:auto=0.5")
    try:
        train, aside = set_apart(pairs, rule, SliceSettings(auto_slice=wanted), seed=seed)
    except ValueError as refused:  # a prompt of many pairs goes as a whole
        assert "would hold out" in str(refused)  # noqa: PT017
        return
    asked = [{pair.prompt[0]["content"] for pair in part} for part in (train, aside)]
    assert not asked[0] & asked[1]
    assert sorted(pair.id for pair in [*train, *aside]) == sorted(pair.id for pair in pairs)
    assert len(aside) >= (wanted if wanted >= 1 else wanted * len(pairs))
    assert all(int(a.id) < int(b.id) for part in (train, aside) for a, b in pairwise(part))
    assert set_apart(pairs[::-1], rule, SliceSettings(auto_slice=wanted), seed=seed)[1] == aside[::-1]


def test_a_run_that_measures_nothing_keeps_all_its_pairs():
    pairs = pairs_of(["a", "b"])
    assert set_apart(pairs, parse_reweighting("tv:0.2"), SliceSettings(), seed=0) == (pairs, [])
    assert set_apart(pairs, None, SliceSettings(), seed=0) == (pairs, [])


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"auto_slice": 150}, "to half or less"), ({"auto_slice": 5}, "too few to measure"), ({}, "to half or less")],
)
def test_a_slice_that_leaves_too_little_on_either_side_is_refused(settings, said):
    pairs = pairs_of(map(str, range(200)))
    with pytest.raises(ValueError, match=said):
        set_apart(pairs, parse_reweighting("tv:auto=0.5"), SliceSettings(**settings), seed=0)


def test_a_trainer_without_a_slice_says_what_it_lacks(tmp_path):
    trainer = head_trainer(tmp_path, "tv:auto=0.5", train=TRAIN)
    with pytest.raises(ValueError, match="set the trainer's `slice`"):
        trainer.train()


def test_a_margin_that_is_not_finite_stops_the_run(tmp_path):
    broken = ASIDE.copy()
    broken[3] = np.nan
    trainer = head_trainer(tmp_path, "tv:auto=0.5", train=TRAIN, aside=broken)
    with pytest.raises(ValueError, match=r"before step 1 the margin of a pair held out .* is not finite"):
        trainer.train()


# -- whole runs -----------------------------------------------------------------------------------


def command(kind, folder, **settings):
    told = {"config": f"{kind}-tiny", "train_file": folder / "train.jsonl", "output_dir": folder / "run",
            "per_device_train_batch_size": 8, "max_length": 48, "max_steps": 6, "logging_steps": 1, "auto_slice": 24,
            "auto_every": 2, "plain_share": 0, "ramp_share": 0, "gradient_accumulation_steps": 1, "use_cpu": "true",
            "disable_tqdm": "true", "ambiguity": "tv:auto=0.5", **settings}  # fmt: skip
    return ["train", kind, *[part for name, value in told.items() for part in (f"--{name}", str(value))]]


@pytest.mark.parametrize("settings", [{"kind": "reward"}, {"kind": "dpo"}, {"kind": "dpo", "loss": "ipo"}], ids=str)
def test_a_run_trains_on_the_rest_and_says_what_it_measured_on(tmp_path, settings, capsys):
    write_pairs(generate(96, seed=3), tmp_path / "train.jsonl")
    kind = settings.pop("kind")
    argv = command(kind, tmp_path, learning_rate=1e-3, **settings)
    assert main([*argv, "--dry_run", "true"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert main(argv) == 0
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    measured, trained = record["data"]["measured_on"], record["data"]["trained_on"]
    assert f"{measured} other pairs" in shown
    assert measured >= 24
    assert measured + trained == len(read_pairs(tmp_path / "train.jsonl").pairs)
    rows = [row for row in record["history"] if "mean_loss" in row]
    assert len(rows) == 6
    assert all(0 <= row["radius_used"] < 0.5 for row in rows)
    read_run(tmp_path / "run")
    assert diagnose(read_run(tmp_path / "run")).run.robust


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"soft_labels": "crossfit"}, "whose labels nothing estimates"),
        ({"ambiguity": "tv:auto=0.5,by=drawn", "cross_prompt": 0.5}, "these hold none of drawn=cross_prompt"),
    ],
    ids=str,
)
def test_what_the_slice_does_not_show_is_refused_before_the_start(tmp_path, settings, said, capsys):
    write_pairs(generate(96, seed=3), tmp_path / "train.jsonl")
    assert main(command("reward", tmp_path, **settings)) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run" / "run.json").exists()


def test_soft_labels_and_weights_reach_the_slice(tmp_path):
    """Half of the labels are wrong: known to be by their preference, or hardly counted by their weight."""
    rows = np.tile([1.0, -1.0], 64)[:, None] * np.eye(1, WIDTH)
    found = {}
    for name, told in (("hard", {}), ("soft", {"preference": 0.02}), ("light", {"weight": 0.02})):
        pairs = pairs_of(map(str, range(128)))
        pairs = [replace(pair, **told) if k % 2 else pair for k, pair in enumerate(pairs)]
        trainer = head_trainer(tmp_path / name, "tv:auto=0.5", train=rows, max_steps=1)
        with torch.no_grad():
            trainer.model.weight[0] = 1.0
        trainer.slice = Slice(Features(rows), pairs, {}, every=20, soft=name == "soft")
        measured(trainer, trainer.slice)
        found[name] = auto_of(trainer.ambiguity).found.bears
    assert found["hard"] == 0
    assert found["soft"] > 0.4
    assert found["light"] > 0.35


def test_kinds_without_preferences_refuse_it_before_they_start(tmp_path, capsys):
    write_pairs(generate(96, seed=3), tmp_path / "train.jsonl")
    assert main(command("sft", tmp_path)) == 2
    assert "which this kind of training does not have: give the set a number" in capsys.readouterr().err
    assert not (tmp_path / "run" / "run.json").exists()
    with pytest.raises(ValueError, match="give the set a number"):
        prompt_rule(PolicyConfig(train_file="prompts.jsonl", ambiguity="tv:auto=0.5"), {}, world=1, seed=0)
