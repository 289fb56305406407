"""The last window of an epoch: left out under a set where it is not full, kept where it is all there is."""

from __future__ import annotations

import logging

from robust_trainers import arguments, trainer_for

from llm.training.pair_trainer import steps_of


def test_an_epoch_under_a_set_ends_with_its_last_full_window(start, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="llm.adversary.last_window")
    visits = {}
    for spec, last, sampling in [
        ("tv:0.2", "drop", "random"), ("tv:0.2", "drop", "sequential"), ("tv:0.2", "keep", "random"),
        ("erm", "drop", "random"),
    ]:  # fmt: skip
        args = arguments(tmp_path, max_steps=-1, num_train_epochs=3, train_sampling_strategy=sampling)
        trainer = trainer_for(start, args, spec, last_window=last)
        assert steps_of(trainer)[0] == (3 if last == "drop" and spec != "erm" else 6)
        trainer.train()
        assert trainer.state.global_step == steps_of(trainer)[0]
        visits[spec, last, sampling] = trainer.ledger.visits
    assert [found.sum() for found in visits.values()] == [48, 48, 72, 72]
    assert sorted(visits["tv:0.2", "drop", "sequential"]) == [0] * 8 + [3] * 16
    assert visits["tv:0.2", "drop", "random"].min() < 3 > len({*visits["tv:0.2", "drop", "random"]}) - 1
    said = [text for text in caplog.messages if "left out of every epoch" in text]
    assert said == [
        f"8 of 24 examples fill no effective batch and are left out of every epoch{which}; last_window keep takes a "
        "step of them, as large as any other" for which in ("", ", the same ones, which are never trained on")
    ]  # fmt: skip


def test_examples_that_fill_no_window_at_all_are_kept(start, tmp_path):
    args = arguments(tmp_path, micro=8, steps=4, max_steps=-1, num_train_epochs=1)
    trainer = trainer_for(start, args, "tv:0.2")
    trainer.train()
    assert (trainer.state.global_step, trainer.ledger.visits.sum()) == (1, 24)
