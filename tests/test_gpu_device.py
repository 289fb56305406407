"""What only a GPU does, as far as a CPU can show it: copies, captured calls, flags, memory and time."""

from __future__ import annotations

import sys
import time
import weakref
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks" / "gpu"))

import clock
import stage_options
import stage_policy
import stage_solver
import stage_truth
import surroundings

from dro_core._solvers import arrays as _arrays


class Host(TorchDispatchMode):
    """Sees what passes between main memory and the device; what looks at values fails on this device by itself."""

    def __init__(self):
        super().__init__()
        self.copies = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        given = [one for one in (*args, found) if isinstance(one, torch.Tensor) and one.dim()]
        self.copies += len({one.device.type for one in given}) > 1
        return found


@pytest.mark.exhaustive(turns=8)
def test_only_labels_in_main_memory_are_copied_to_the_device():
    copies = {}
    for race in stage_solver.RACES:
        losses, ambiguity = torch.ones(64, device="meta", requires_grad=True), race.ambiguity(64)
        with Host() as seen:
            stage_solver.step(losses, ambiguity)
        copies |= {race.name: seen.copies} if race.batched and seen.copies else {}
    assert list(copies) == ["grouped"]
    grouped = next(race for race in stage_solver.RACES if race.name == "grouped")
    assert isinstance(stage_solver.placed(grouped, 64, "cpu").groups, torch.Tensor)


class Graph(TorchDispatchMode):
    """A CUDA graph on the host: the operations of a call, done again on the same tensors."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls.append((func, args, kwargs or {}, func(*args, **(kwargs or {}))))
        return self.calls[-1][-1]

    def replay(self):
        for func, args, kwargs, kept in self.calls:
            for old, new in zip(tree_leaves(kept), tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(old, torch.Tensor):
                    old.copy_(new)


def test_a_captured_call_solves_other_losses(monkeypatch):
    class Stream:
        def wait_stream(self, other):
            assert other is not self

    current = Stream()
    for name, stands_in in {
        "Stream": Stream, "current_stream": lambda: current, "stream": lambda side: nullcontext(), "CUDAGraph": Graph,
        "graph": lambda made: made, "synchronize": lambda: None,
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, stands_in)
    monkeypatch.setattr(_arrays, "as_numpy", lambda array: array if type(array) is np.ndarray else None)
    first, second = (torch.tensor(stage_solver.draw_losses(rows, 1024, "float32")[0]) for rows in (1, 2))
    batched = [race for race in stage_solver.RACES if race.batched]
    assert batched
    for race in batched:
        off, _ = stage_solver.captured(stage_solver.placed(race, 1024, "cpu"), first, second)
        assert off == 0, race.name


def test_a_call_that_waits_is_not_captured(monkeypatch):
    told: list = []
    monkeypatch.setattr(stage_solver, "captured", None)
    setting = surroundings.Setting(tiny=False, carried="")
    stage_solver.graph(stage_solver.RACES[0], setting, told.append, waits=True)
    assert "waits" in told[0]["failed"]


def test_the_compiler_can_read_whether_tf32_is_on(monkeypatch, tmp_path):
    """Where TF32 exists, transformers sets half of the flags when it compiles, and torch raises when all are read."""
    monkeypatch.setattr(transformers.training_args, "is_torch_tf32_available", lambda: True)
    before = torch.backends.fp32_precision
    try:
        changed = stage_options.OPTIONS["torch.compile"]
        stage_options.arguments("cpu", str(tmp_path), single=True, steps=1, **changed)
        assert not torch.backends.cuda.matmul.allow_tf32
        assert torch.get_float32_matmul_precision() == "highest"
    finally:
        torch.backends.fp32_precision = before


def test_what_failed_gives_its_memory_back_before_the_next(monkeypatch):
    """A traceback holds the variables of the calls it went through, and a trainer holds itself."""

    class Trainer:
        def __init__(self):
            self.itself = self

    alive, seen = [], []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: seen.append([one() is None for one in alive]))

    def fails():
        tensor = torch.ones(1)
        alive.append(weakref.ref(tensor))
        try:
            raise ValueError("first")
        except ValueError:
            raise RuntimeError("CUDA error: out of memory") from None

    def trains():
        trainer = Trainer()
        alive.append(weakref.ref(trainer))

    told: list = []
    room = clock.Room(surroundings.Setting(tiny=True, carried=""))
    with room.taken(), clock.kept_going(told.append):
        trains()
        fails()
    assert told == [{"failed": "out of memory"}]
    assert seen == [[False, True], [True, True]]


def test_a_stage_stops_before_what_would_not_fit(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    room, parts = clock.Room(surroundings.Setting(tiny=True, carried="", until=10.0)), 0
    while room.is_left():
        with room.taken():
            now[0] += 3.0
        parts += 1
    assert parts == 3


@pytest.mark.parametrize(("seconds", "tokens"), [(1000.0, 128), (40.0, 64), (20.0, 32), (1.0, stage_policy.PROBE)])
def test_answers_are_as_long_as_the_time_allows(seconds, tokens):
    assert stage_policy.length_for(seconds, probe=0.5, ways=2, tiny=False) == tokens


@pytest.mark.parametrize(
    ("pace", "until", "steps"),
    [(0.01, 1000.0, 217), (0.2, 92.4, (0.9 * 90 / 3 - 0.2 * 10) / 0.2), (100.0, 110.0, stage_truth.PROBE)],
)
def test_an_epoch_is_shortened_until_every_set_is_trained_once(monkeypatch, pace, until, steps):
    """The probe takes twelve steps; a run ends with a forward pass over ten batches of pairs."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def trained(material, *given):
        now[0] += pace * material.steps

    monkeypatch.setattr(stage_truth, "trained", trained)
    material = stage_truth.Material(None, {"suite": range(640)}, None, 217)
    setting = surroundings.Setting(tiny=False, carried="", until=until)
    assert stage_truth.fitting_steps(material, setting, "") == pytest.approx(steps, abs=1)
