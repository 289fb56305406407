"""The stages of `make gpu` at tiny size on this CPU: what each measures, and what it says when it cannot."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks" / "gpu"))

import clock
import stage_gradients
import stage_solver
import stage_training
import stage_truth
import surroundings
import targets
from gpu_samples import found_in, of
from random_llamas import StepTimes


@pytest.fixture(scope="module")
def found(once):
    return found_in(once)


@pytest.mark.slow("its fixture runs every stage")
def test_the_solver_is_timed_in_every_cell_and_agrees_with_the_host(found):
    cells = of(found, "solver", kind="ours", mode="forward")
    sets = {race.name for race in stage_solver.RACES if race.batched}
    assert {row["set"] for row in cells} == sets
    assert {(row["batch"], row["n"]) for row in cells} == {(1, 64), (1, 256), (8, 64)}
    assert all(row["error"] <= targets.EXACT[row["dtype"]] for row in cells)
    assert max(row["error"] for row in cells if row["dtype"] == "float32") > 1e-9  # the host solves in float64
    assert all(row["quartiles"][0] <= row["seconds"] <= row["quartiles"][1] for row in cells)
    assert {row["set"] for row in of(found, "solver", mode="backward", synchronisations=None)} == sets


def test_a_wrong_answer_is_told_as_disagreement():
    drawn, rule = stage_solver.draw_losses(2, 64, "float64"), stage_solver.RACES[0].ambiguity(64)
    right = stage_solver.worst_case(torch.tensor(drawn), rule)
    assert stage_solver.disagreement(right, drawn, rule) == 0
    assert stage_solver.disagreement(right, 1.5 * drawn, rule) == pytest.approx(1 / 3, abs=1e-3)


@pytest.mark.filterwarnings("default:called a sync")
def test_only_waits_are_counted(monkeypatch):
    said = ["Synchronization debug mode is a prototype feature and does not yet detect all synchronizing operations"]
    monkeypatch.setattr(stage_solver, "settle", lambda device: None)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda mode: [warnings.warn(one) for one in said])  # noqa: B028
    assert stage_solver.synchronisations(lambda: None, "cuda") == 0
    waits = lambda: warnings.warn("called a synchronizing CUDA operation (Triggered internally)")  # noqa: B028, E731
    assert stage_solver.synchronisations(waits, "cuda") == 1


def test_sparsemax_by_sorting_is_the_projection_on_the_simplex():
    losses = torch.tensor([[0.5, 2.0, 1.5, -1.0]], dtype=torch.float64)
    (projected,) = [call() for name, call in stage_solver.contestants(losses) if name.startswith("sparsemax")]
    assert projected.tolist() == [[0.0, 0.75, 0.25, 0.0]]


def test_gradients_are_those_of_the_full_batch(found):
    rows = found["stages"]["gradients"]["records"]
    assert {(row["precision"], row["micro_batches"]) for row in rows} >= {
        ("fp32", 4), ("fp32", 1), ("tf32", 4), ("bf16 autocast", 4),
    }  # fmt: skip
    assert all(row["error"] < 1e-6 for row in rows if row["precision"] != "bf16 autocast")
    assert all(1e-4 < row["error_to_fp32"] < 2e-2 for row in rows if row["precision"] == "bf16 autocast")


def test_the_comparison_in_float32_leaves_tf32_as_it_was(tmp_path):
    matmul = torch.backends.cuda.matmul
    before, matmul.allow_tf32 = matmul.allow_tf32, True
    try:
        cell = stage_gradients.Cell(stage_gradients.Launcher.SINGLE, micro_batches=1)
        stage_gradients.compared(cell, stage_gradients.start(cell.adapter), str(tmp_path))
        assert matmul.allow_tf32
    finally:
        matmul.allow_tf32 = before


def test_every_trainer_takes_the_same_steps(found):
    rows = of(found, "training", task="reward")
    names = [way.name for way in stage_training.REWARD]
    assert [row["name"] for row in rows] == names
    tokens = 2 * 16 * stage_training.TINY.tokens
    assert all(row["tokens_per_second"] == pytest.approx(tokens / row["seconds"], rel=0.01) for row in rows)
    assert all(row["samples"] == stage_training.STEPS - 1 for row in rows)
    assert {row["reference"] for row in of(found, "training", task="dpo")} == {"model", "precomputed"}


@pytest.mark.filterwarnings("ignore")  # of TRL, in a stage's own process
def test_trl_recomputes_no_activations_where_the_others_do_not(tmp_path):
    pytest.importorskip("trl")
    shape = stage_training.TINY
    given = stage_training.arguments("cpu", str(tmp_path), single=False, steps=1)
    trainer = stage_training._trl(
        shape.model("reward", "cpu"), stage_training.pairs(shape, 16), given, StepTimes("cpu")
    )
    assert not trainer.args.gradient_checkpointing
    assert not trainer.model.is_gradient_checkpointing


def test_the_parts_of_a_policy_step_are_in_it(found):
    rows = found["stages"]["policy"]["records"]
    assert rows
    for row in rows:
        assert 0 < row["rollout_seconds"] + row["update_seconds"] < 1.5 * row["seconds"]


def test_what_is_not_there_is_told(found, tmp_path):
    assert of(found, "options", option="flash attention 2")[0]["skipped"]
    told: list = []
    stage_truth.measure(surroundings.Setting(tiny=False, carried=str(tmp_path)), told.append)
    assert "docs/gpu.md" in told[0]["skipped"]


def test_truth_trains_every_set_and_keeps_curves(found):
    rows = found["stages"]["truth"]["records"]
    assert [row["arm"] for row in rows] == list(stage_truth.ARMS)
    assert all(len(row["curve"]) == row["steps"] for row in rows)
    judged = rows[0]["suites"]["train"]
    parts = [accuracy * pairs for accuracy, pairs in judged["categories"].values()]
    assert sum(parts) / judged["pairs"] == pytest.approx(judged["accuracy"], abs=1e-3)


def test_after_training_in_bf16_the_margins_are_of_float32(monkeypatch, tmp_path):
    seen, made, judge = set(), stage_truth.TrainingArguments, stage_truth.accuracies

    def watched(model, tokenizer, suite):
        layer = next(part for part in model.modules() if isinstance(part, torch.nn.Linear))
        layer.register_forward_hook(lambda part, given, found: seen.add(found.dtype))
        return judge(model, tokenizer, suite)

    monkeypatch.setattr(stage_truth, "TrainingArguments", lambda **given: made(**{**given, "bf16": True}))
    monkeypatch.setattr(stage_truth, "accuracies", watched)
    stage_truth.trained(stage_truth.invented(), "erm", 0, surroundings.Setting(tiny=True, carried=""), str(tmp_path))
    assert seen == {torch.float32}


def test_a_model_too_large_for_the_device_is_not_begun(monkeypatch):
    told: list = []
    monkeypatch.setattr(stage_training, "device_gib", lambda setting: 8.0)
    setting = surroundings.Setting(tiny=True, carried="")
    stage_training.task_on(stage_training.LARGE, "reward", stage_training.REWARD, setting, 1e12, told.append)
    assert [row["failed"] for row in told] == ["needs about 49 GiB, the device has 8"]


def test_out_of_memory_is_a_result():
    told: list = []
    for error, says in ((torch.cuda.OutOfMemoryError("x"), "out of memory"), (ValueError("no\nwhy"), "ValueError: no")):
        with clock.kept_going(told.append, shape="7 B"):
            raise error
        assert told.pop() == {"shape": "7 B", "failed": says}
    with clock.kept_going(told.append, shape="7 B"):
        raise ModuleNotFoundError("trl is not there")
    assert told == [{"shape": "7 B", "skipped": "trl is not there"}]
