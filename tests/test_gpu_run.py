"""`make gpu`: its stages at tiny size on this CPU, its patience with stages that fail, and what its page says."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
import weakref
from contextlib import nullcontext, suppress
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import save_file
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks" / "gpu"))

import children
import clock
import gpu_page
import gpu_results
import journal
import pack
import run
import stage_gradients
import stage_options
import stage_policy
import stage_solver
import stage_training
import stage_truth
import surroundings
import targets
from random_llamas import StepTimes

from dro_core._solvers import arrays

ROOT = Path(__file__).parents[1]
MODULES = (stage_solver, stage_gradients, stage_training, stage_policy, stage_truth, stage_options)
HERE: dict = {"date": "2026-01-01", "revision": "abc", "cpu": "a CPU", "versions": {}}
DEVICE = {"name": "a GPU", "gib": 8.0, "count": 1, "multiprocessors": 1, "capability": "9.0", "cuda": "13.0"}
HERE["device"] = DEVICE


@pytest.fixture(scope="module")
def found():
    """The JSON of a run, as if this CPU were a GPU: every stage at tiny size, in this process."""
    setting, stages, threads = surroundings.Setting(tiny=True, carried="nowhere"), {}, torch.get_num_threads()
    for stage, module in zip(run.STAGES, MODULES, strict=True):
        records: list = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the libraries, in a stage's own process
            module.measure(setting, lambda record, kept=records: kept.append(json.loads(json.dumps(record))))
        stages[stage.name] = {"status": "done", "why": "", "seconds": 1.0, "records": records}
    torch.set_num_threads(threads)
    versions = {"python": "3.12", "torch": torch.__version__, "trl": None}
    about = {"schema": run.SCHEMA, "dry": False, "date": "2026-01-01", "revision": "abc", "device": DEVICE}
    return about | {"versions": versions, "stages": stages, "seconds": 6.0}


def of(found, stage, **wanted):
    return [row for row in found["stages"][stage]["records"] if wanted.items() <= row.items()]


# the stages


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
    for row in found["stages"]["policy"]["records"]:
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


# what only a GPU does, as far as a CPU can show it


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
    monkeypatch.setattr(arrays, "as_numpy", lambda array: array if type(array) is np.ndarray else None)
    first, second = (torch.tensor(stage_solver.draw_losses(rows, 1024, "float32")[0]) for rows in (1, 2))
    for race in stage_solver.RACES:
        if race.batched:
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


# the run

PATIENT = {
    "good": "def measure(setting, say):\n    say({'a': 1})\n",
    "hangs": "import time\ndef measure(setting, say):\n    say({'a': 1})\n    time.sleep(600)\n",
    "stubborn": "import os, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "def measure(setting, say):\n    say({'a': os.getpid()})\n    os.fork()\n    time.sleep(600)\n",
    "fails": "def measure(setting, say):\n    say({'a': 1})\n    raise ValueError('the reason')\n",
    "nan": "def measure(setting, say):\n    say({'a': float('nan')})\n",
    "dies": "import os\ndef measure(setting, say):\n    say({'a': 1})\n    os.kill(os.getpid(), 9)\n",
    "parts": "import os, time\ndef measure(setting, say):\n    for part in range(3):\n"
    "        if not setting.has(part=part):\n            say({'part': part, 'pid': os.getpid()})\n"
    "        if part == 1 and os.path.exists(os.path.join(os.path.dirname(__file__), 'stuck')):\n"
    "            time.sleep(600)\n",
    "needy": "def measure(setting, say):\n    raise AssertionError('it was run')\n",
}


def mkstemp_in(folder):
    """Temporary files of a run, where the test can look."""
    make = tempfile.mkstemp
    return lambda **given: make(dir=folder, **given)


@pytest.fixture
def stages(tmp_path, monkeypatch):
    """Small stages of every temper."""
    for name, text in PATIENT.items():
        (tmp_path / f"temper_{name}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    needs = {"needy": ("no_such_package", "numpy>=99")}
    limits = {"hangs": 3.0, "stubborn": 3.0}
    made = [run.Stage(n, f"temper_{n}", limits.get(n, 60.0), needs.get(n, ())) for n in PATIENT]
    monkeypatch.setattr(run, "STAGES", tuple(made))
    monkeypatch.setattr(run, "about", lambda env, carried: dict(HERE))
    monkeypatch.setattr(run, "LEAST", 1.0)
    monkeypatch.setattr(children, "LOOK", 0.1)
    monkeypatch.setattr(journal.tempfile, "mkstemp", mkstemp_in(tmp_path))
    return tmp_path


def started(folder, *more):
    options = run.parsed(["--json", str(folder / "gpu.json"), "--carried", str(folder / "none"), *more])
    return run.run(options).found


@pytest.mark.slow("it waits for the limits of two stages that hang")
def test_a_stage_that_hangs_or_fails_costs_itself_alone(stages, capsys):
    found = started(stages)["stages"]
    assert {name: stage["status"] for name, stage in found.items()} == {
        "good": "done", "hangs": "out of time", "stubborn": "out of time", "fails": "failed", "nan": "failed",
        "dies": "failed", "parts": "done", "needy": "skipped",
    }  # fmt: skip
    assert {name: len(stage["records"]) for name, stage in found.items()} == {
        "good": 1, "hangs": 1, "stubborn": 1, "fails": 1, "nan": 0, "dies": 1, "parts": 3, "needy": 0,
    }  # fmt: skip
    assert found["fails"]["why"] == "ValueError: the reason"
    assert found["needy"]["why"] == f"needs no_such_package, numpy >= 99, found {np.__version__}"
    assert found["hangs"]["seconds"] < 30
    assert json.loads((stages / "gpu.json").read_text())["stages"] == found
    assert "fails: failed, 1 results" in capsys.readouterr().err
    assert not alive(found["stubborn"]["records"][0]["a"])


def test_a_stage_does_not_outlive_its_run(tmp_path):
    (tmp_path / "temper_hangs.py").write_text(PATIENT["hangs"])
    program = (
        "import subprocess, sys; print(subprocess.Popen([sys.executable, *sys.argv[1:]], start_new_session=True).pid,"
        " flush=True); sys.stdin.read()"
    )
    told, setting = tmp_path / "told", json.dumps(surroundings.Setting(tiny=True, carried="").within(60))
    command = [str(ROOT / "benchmarks/gpu/run.py"), "--stage", "temper_hangs", str(told), setting]
    path = {"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"}
    started = subprocess.Popen(
        [sys.executable, "-c", program, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=path
    )
    stage, end = int(started.stdout.readline()), time.monotonic() + 30
    while not told.exists() or not told.read_text():
        assert time.monotonic() < end
        time.sleep(0.05)
    assert alive(stage)
    started.kill()
    started.communicate()
    while alive(stage):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_wheel_that_is_none_is_named(tmp_path):
    (tmp_path / "x.whl").write_text("no zip")
    with pytest.raises(SystemExit, match=r"x\.whl cannot be unpacked"):
        surroundings.unpacked(tmp_path, tmp_path / "site")


def alive(group: int) -> list[str]:
    """Processes of a group that run; one that is dead and waits for its parent's look does not."""
    time.sleep(0.1)
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
            found += [stat.parent.name] if int(its_group) == group and state != "Z" else []
    return found


def test_resuming_runs_what_is_missing(stages):
    first = started(stages, "--stages", "good", "fails", "needy")
    assert first["stages"]["fails"]["status"] == "failed"
    (stages / "temper_fails.py").write_text("def measure(setting, say):\n    say({'b': setting.has(a=1)})\n")
    (stages / "temper_good.py").write_text(PATIENT["fails"])
    again = started(stages, "--resume", "--stages", "good", "fails", "needy")["stages"]
    assert again["good"] == first["stages"]["good"]
    assert again["fails"]["status"] == "done"
    assert again["fails"]["records"] == [{"a": 1}, {"b": True}]
    assert again["fails"]["seconds"] >= first["stages"]["fails"]["seconds"]


def test_parts_that_failed_are_named_and_tried_again_when_asked_for(stages, capsys):
    (stages / "temper_good.py").write_text("def measure(setting, say):\n    say({'a': 1})\n    say({'failed': 'x'})\n")
    options = ["--json", str(stages / "gpu.json"), "--carried", str(stages / "none")]
    assert run.main([*options, "--stages", "good"]) == 0
    assert "good: 1 of its results failed: --resume --stages good tries them again" in capsys.readouterr().err
    (stages / "temper_good.py").write_text("def measure(setting, say):\n    say({'b': setting.has(a=1)})\n")
    assert run.main([*options, "--resume", "--stages", "good", "parts"]) == 0
    assert json.loads((stages / "gpu.json").read_text())["stages"]["good"]["records"] == [{"a": 1}, {"b": True}]


PROGRAM = """
import sys; sys.path[:0] = {paths}
import children, run
children.LOOK, run.STAGES = 0.1, (run.Stage("parts", "temper_parts", 60.0),)
run.about = lambda env, carried: {here}
sys.exit(run.main(["--json", "{folder}/gpu.json", "--carried", "{folder}/none"]))
"""


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL, pytest.param(signal.SIGHUP, marks=pytest.mark.exhaustive)]
)
def test_what_ends_a_run_costs_only_what_was_being_measured(stages, number):
    (stages / "stuck").touch()
    path, paths = stages / "gpu.json", [str(ROOT / "benchmarks/gpu"), str(ROOT / "benchmarks")]
    child = subprocess.Popen([sys.executable, "-c", PROGRAM.format(paths=paths, here=HERE, folder=stages)])
    end, records = time.monotonic() + 30, []
    while len(records) < 2:
        assert time.monotonic() < end
        time.sleep(0.05)
        records = json.loads(path.read_text())["stages"]["parts"]["records"] if path.exists() else []
    child.send_signal(number)
    assert child.wait(20) == (-9 if number == signal.SIGKILL else 128 + number)
    left = json.loads(path.read_text())["stages"]["parts"]
    assert (left["status"], [row["part"] for row in left["records"]]) == ("interrupted", [0, 1])
    (stages / "stuck").unlink()
    rows = started(stages, "--resume", "--stages", "parts")["stages"]["parts"]["records"]
    assert [row["part"] for row in rows] == [0, 1, 2]
    assert rows[0]["pid"] == rows[1]["pid"] != rows[2]["pid"]
    while alive(rows[0]["pid"]):
        assert time.monotonic() < end


def test_one_stage_anew_keeps_the_others(stages, monkeypatch):
    first = started(stages, "--stages", "good", "parts")["stages"]
    (stages / "temper_parts.py").write_text(PATIENT["good"])
    again = started(stages, "--stages", "parts")["stages"]
    assert again["good"] == first["good"]
    assert again["parts"]["records"] == [{"a": 1}]
    monkeypatch.setattr(run, "missing", lambda needs, env: ["all"])
    assert started(stages, "--stages", "parts")["stages"] == again


@pytest.mark.parametrize("how", [["--resume"], ["--stages", "parts"]])
@pytest.mark.parametrize("what", ["device", "versions", "cpu"])
def test_results_of_two_machines_do_not_mix(stages, monkeypatch, how, what):
    started(stages, "--stages", "good")
    before = (stages / "gpu.json").read_text()
    monkeypatch.setattr(run, "about", lambda env, carried: {**HERE, what: {"name": "another"}})
    with pytest.raises(run.NoRun, match=f"measured elsewhere.*{what}.*another.*--json"):
        started(stages, *how)
    assert (stages / "gpu.json").read_text() == before


def test_after_a_change_of_the_source_a_half_done_stage_starts_again(stages, monkeypatch):
    started(stages, "--stages", "good", "fails")
    (stages / "temper_fails.py").write_text("def measure(setting, say):\n    say({'b': setting.has(a=1)})\n")
    monkeypatch.setattr(run, "about", lambda env, carried: {**HERE, "revision": "new"})
    found = started(stages, "--resume", "--stages", "good", "fails")
    assert {name: stage["revision"] for name, stage in found["stages"].items()} == {"good": "abc", "fails": "new"}
    assert found["stages"]["fails"]["records"] == [{"b": False}]
    table = gpu_page.rendered(found | {"date": ""})
    assert "| good | done | 1 | 0 | abc |" in table


def test_resuming_a_run_that_is_whole_keeps_its_time(stages):
    first = started(stages, "--stages", "good", "needy")
    again = started(stages, "--resume", "--stages", "good", "needy")
    assert again["seconds"] == first["seconds"] == first["stages"]["good"]["seconds"] > 0
    assert again["stages"] == first["stages"]
    assert "s in all" in gpu_page.rendered(again | {"date": "", "revision": ""})


@pytest.mark.parametrize(
    ("text", "says"),
    [(None, "cannot be read"), ("/dev/zero", "it is no file"), ("{", "cannot be read"), ("[1]", "no record"),
     ('{"stages": []}', "no record"), ('{"schema": 1}', "another version"),
     ('{"schema": 2, "dry": true, "stages": {}}', "a dry run")],
)  # fmt: skip
def test_resuming_another_kind_of_file_is_refused(stages, text, says):
    if text == "/dev/zero":
        (stages / "gpu.json").symlink_to(text)
    elif text is not None:
        (stages / "gpu.json").write_text(text)
    with pytest.raises(run.NoRun, match=says):
        started(stages, "--resume")


def test_time_for_all_stages_is_kept(stages):
    found = started(stages, "--limit", "0.5", "--stages", "good")["stages"]
    assert (found["good"]["status"], found["good"]["records"]) == ("out of time", [])


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "x"])
def test_a_limit_is_a_time(seconds, capsys):
    with pytest.raises(SystemExit):
        run.parsed([f"--limit={seconds}"])
    assert seconds in capsys.readouterr().err


def test_on_a_full_disk_the_results_are_printed(stages, monkeypatch, capsys):
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("No space left on device")))
    assert run.main(["--json", str(stages / "gpu.json"), "--carried", str(stages / "none"), "--stages", "good"]) == 1
    told = capsys.readouterr()
    assert json.loads(told.out)["stages"]["good"]["records"] == [{"a": 1}]
    assert told.err.count("No space left on device") == 1
    assert not list(stages.glob("*.partial"))


def test_where_the_tree_cannot_be_written_the_results_go_elsewhere(stages, monkeypatch, capsys):
    """As on a source tree mounted read-only: neither its results nor its page can be written."""
    (stages / "file").touch()
    monkeypatch.setattr(run, "RESULTS", stages / "file" / "gpu.json")
    monkeypatch.setattr(gpu_page, "put", lambda *_: (_ for _ in ()).throw(OSError("Read-only file system")))
    assert run.main(["--carried", str(stages / "none"), "--stages", "good"]) == 1
    told = capsys.readouterr()
    (path,) = stages.glob("gpu-*.json")
    assert json.loads(path.read_text())["stages"]["good"]["records"] == [{"a": 1}]
    assert f"the results go to {path}" in told.err
    assert "gpu.md could not be written (Read-only file system): --page" in told.err
    assert not told.out


def test_a_device_is_written_to_and_not_replaced(tmp_path):
    (tmp_path / "full").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        gpu_results.put(tmp_path / "full", "x")
    assert (tmp_path / "full").is_symlink()


def test_without_a_gpu_a_real_run_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "about", lambda env, carried: {"device": None, "versions": {}})
    with pytest.raises(run.NoRun, match="no CUDA device here: --dry-run"):
        started(tmp_path)
    assert not (tmp_path / "gpu.json").exists()


@pytest.mark.exhaustive
@pytest.mark.slow("six processes, each of which loads torch")
def test_the_dry_run_runs_every_stage(tmp_path):
    command = [sys.executable, str(ROOT / "benchmarks/gpu/run.py"), "--dry-run", "--json", str(tmp_path / "dry.json")]
    subprocess.run(command, check=True)
    found = json.loads((tmp_path / "dry.json").read_text())
    assert {name: stage["status"] for name, stage in found["stages"].items()} == dict.fromkeys(
        [stage.name for stage in run.STAGES], "done"
    )


def test_the_limits_of_the_stages_fit_into_eight_minutes():
    assert sum(stage.limit for stage in run.STAGES) <= run.LIMIT == 480


# what travels


def test_packed_weights_come_back_to_half_a_step(tmp_path):
    rng, model = np.random.default_rng(0), tmp_path / "model"
    model.mkdir()
    weights = {"a.weight": rng.normal(size=(7, 5)).astype(np.float32), "a.bias": rng.normal(size=7).astype(np.float32)}
    weights["zero.weight"] = np.zeros((2, 3), dtype=np.float32)
    save_file(weights, model / "model.safetensors")
    (model / "config.json").write_text("{}")
    pack.rounded(model, tmp_path / "packed")
    from safetensors.numpy import load_file

    back = load_file(pack.restored(tmp_path / "packed", tmp_path / "back") / "model.safetensors")
    step = np.abs(weights["a.weight"]).max(axis=1, keepdims=True) / 127
    assert back.keys() == weights.keys()
    assert np.all(np.abs(back["a.weight"] - weights["a.weight"]) <= 0.501 * step)
    assert np.array_equal(back["a.bias"], weights["a.bias"])
    assert (tmp_path / "back" / "config.json").exists()


def test_carried_wheels_come_first_and_are_seen(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "numpy-99.5.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("numpy-99.5.0.dist-info/METADATA", "Name: numpy\nVersion: 99.5.0\n")
    env = run.environment(surroundings.unpacked(tmp_path, tmp_path / "site"))
    assert surroundings.missing(("numpy>=99.5", "scipy"), env) == []
    assert surroundings.missing(("numpy>=99.6",), env) == ["numpy >= 99.6, found 99.5.0"]


# the pages


def test_the_page_in_the_repository_is_that_of_the_results():
    text = gpu_page.PAGE.read_text()
    assert gpu_page.rendered(gpu_results.measured()) in text


def test_the_page_shows_every_stage(found, tmp_path):
    page = tmp_path / "gpu.md"
    page.write_text(f"before\n{gpu_page.BEGIN}\nold\n{gpu_page.END}\nafter\n")
    gpu_page.write(found, page)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    for stage in run.STAGES:
        assert f"### {stage.name.capitalize()}" in text
    widths = [line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("|")]
    assert min(widths) > 2
    assert "the package flash_attn is not there" in text


def test_a_stage_without_results_says_so(found):
    bare = found | {"stages": {"solver": {"status": "failed", "why": "x|y", "seconds": 1.0, "records": []}}}
    text = gpu_page.rendered(bare)
    assert "failed: x\\|y" in text
    assert text.count("Not measured.") == len(run.STAGES)


def test_the_pages_take_over_the_file_that_is_named(found, tmp_path, monkeypatch):
    file, kept = tmp_path / "found.json", tmp_path / "kept.json"
    written: list = []
    monkeypatch.setattr(run, "RESULTS", kept)
    monkeypatch.setattr(gpu_page, "write_every", lambda: written.append(json.loads(kept.read_text())))
    file.write_text(json.dumps(found))
    assert run.main(["--page", "--json", str(file)]) == 0
    assert written == [found]
    file.write_text(json.dumps(found | {"dry": True}))
    with pytest.raises(run.NoRun, match="is a dry run"):
        run.main(["--page", "--json", str(file)])
    assert json.loads(kept.read_text()) == found
    monkeypatch.setattr(gpu_page, "write_every", lambda: import_module("no_such_package"))
    with pytest.raises(run.NoRun, match="need an environment of this project"):
        run.main(["--page", "--json", str(kept)])


def test_the_other_pages_read_the_same_results(found, tmp_path):
    path = tmp_path / "gpu.json"
    path.write_text(json.dumps(found))
    import exactness
    import training_page

    assert gpu_results.measured(path) == found
    assert "a GPU" in "\n".join(exactness._on_gpu(found))
    for row in found["stages"]["training"]["records"]:
        row["peak_gib"] = 2.0
    rows = training_page._on_gpu(gpu_results.records("training", found))
    plain, robust = (of(found, "training", task="reward", name=n)[0] for n in ("transformers.Trainer", "two passes"))
    assert rows[0][2] == f"{robust['seconds'] / plain['seconds']:.2f}"
    path.write_text(json.dumps(found | {"dry": True}))
    assert gpu_results.measured(path) is None
    path.write_text(json.dumps(found | {"schema": 0}))
    with pytest.raises(ValueError, match="another version"):
        gpu_results.measured(path)
    shutil.rmtree(tmp_path)
    assert gpu_results.measured(path) is None
