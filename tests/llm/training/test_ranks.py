"""Two processes: gradients are those of all examples of both, and neither is left waiting for the other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from forked import finished, start_ranks

from llm.data.corpus.corpus import generate
from llm.data.pairs import write_pairs
from llm.run.folder import is_complete
from robust_rlhf import main

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

pytest.importorskip("peft")

import ranks
import two_ranks
from exact_cells import Adapter, Cell, Launcher, Precision, Rows
from whole_runs import train_command

LAUNCHER = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", ranks.__file__]
DDP, FSDP2 = Launcher.DDP, Launcher.FSDP2
CELLS = [
    *(Cell(DDP, ambiguity=spec) for spec in ("tv:0.2", "tv:0.3,by=category", "erm")),
    Cell(DDP, Precision.AUTOCAST),
    Cell(DDP, rows=Rows.UNEQUAL),
    Cell(DDP, rows=Rows.RAGGED),
    Cell(DDP, steps=3),
    Cell(FSDP2),
    Cell(FSDP2, adapter=Adapter.LORA, checkpointing=True),
    Cell(FSDP2, rows=Rows.UNEQUAL),
]
MORE_CELLS = [
    *(Cell(DDP, ambiguity=spec) for spec in ("cvar:0.3", "chi2:0.5", "kl:0.3,trim=0.2")),
    Cell(DDP, adapter=Adapter.LORA, checkpointing=True),
    Cell(FSDP2, Precision.WEIGHTS),
    Cell(FSDP2, rows=Rows.RAGGED),
]
TOGETHER = pytest.mark.slow("whichever test comes first has two processes train fifteen times for all of them")


def expected_bytes(cell: Cell, examples: list[int]) -> int:
    """Per gather: a 64-bit count per rank, then loss, index and presence in float64, padded to the longer rank."""
    if cell.ambiguity == "erm":  # booked micro-batch by micro-batch
        return 4 * (2 * 8 + 3 * 8 * 4)
    longest = [2 * n // 3 if cell.rows is Rows.UNEQUAL else n // 2 for n in examples]
    return sum(2 * 8 + 3 * 8 * 2 * n for n in longest)


def name_of(cell: Cell) -> str:
    return " ".join(map(str, asdict(cell).values()))


@pytest.fixture(scope="module")
def found(once):
    """What both processes found, one launch for everything."""

    def build(folder):
        (folder / "cells.json").write_text(json.dumps([asdict(cell) for cell in CELLS]))
        finished(start_ranks(two_ranks.main, folder))

    folder = once("two-ranks", build)
    return [json.loads((folder / f"found-{rank}.json").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def launched(once):
    """What two processes found that torch itself started, as it starts those of users."""

    def build(folder):
        (folder / "cells.json").write_text(json.dumps([asdict(cell) for cell in MORE_CELLS]))
        command = [*LAUNCHER, str(folder / "cells.json"), str(folder / "found.json")]
        surroundings = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=surroundings, capture_output=True, text=True, check=False, timeout=500)
        assert done.returncode == 0, done.stderr[-3000:]

    return json.loads((once("launched-ranks", build) / "found.json").read_text())


@TOGETHER
@pytest.mark.parametrize("cell", CELLS, ids=name_of)
def test_gradient_on_two_processes_is_that_of_the_full_batch(found, cell):
    assert_exact(cell, found[0]["cells"][CELLS.index(cell)])


@pytest.mark.exhaustive
@pytest.mark.slow("torch's launcher and the imports of three processes")
@pytest.mark.parametrize("cell", MORE_CELLS, ids=name_of)
def test_gradient_on_two_launched_processes_is_that_of_the_full_batch(launched, cell):
    assert_exact(cell, launched[MORE_CELLS.index(cell)])


def assert_exact(cell, found):
    assert Cell.from_record(found["cell"]) == cell
    assert found["ranks"] == 2
    total = 12 if cell.rows is Rows.UNEQUAL else 16  # both ranks' examples stand in the ledger
    assert found["examples"] == ([16, 8] if cell.rows is Rows.RAGGED else [total, 8, 16][: cell.steps])
    limit = {Precision.FP32: 4e-6 if cell.steps == 1 else 2e-4, Precision.AUTOCAST: 5e-3, Precision.WEIGHTS: 3e-2}
    assert found["error"] <= limit[cell.precision]
    assert found["gathered"] == expected_bytes(cell, found["examples"])


@TOGETHER
@pytest.mark.parametrize(("reference", "limit"), [("model", 1e-6), ("precomputed", 4e-6)])
def test_dpo_on_two_processes_has_the_gradient_of_the_full_batch(found, reference, limit):
    """Computed before, the reference is kept in float32, which sums of a hundred nats feel."""
    assert found[0]["dpo"][reference] <= limit


@TOGETHER
def test_fine_tuning_on_two_processes_has_the_gradient_of_the_full_batch(found):
    assert found[0]["sft"] <= 1e-6


@TOGETHER
def test_the_main_process_exports_a_whole_model(found):
    assert [rank["whole"] for rank in found] == [True, None]


@TOGETHER
def test_each_process_holds_what_the_formula_says(found):
    """A weight of one row is on one process alone, so that shares are equal up to that."""
    for rank in found:
        assert rank["held"]["ran"] == {"kind": "fsdp2", "processes": 2, "device": "cpu", "asked": None}
    for what in ("weights", "optimizer"):
        assert [rank["held"][what][0] for rank in found] == pytest.approx([found[0]["held"][what][1]] * 2, rel=0.02)
        assert sum(rank["held"][what][0] for rank in found) == 2 * found[0]["held"][what][1]


@TOGETHER
def test_processes_refuse_together_and_nobody_waits_forever(found):
    main_process, other = found
    assert main_process["refused"] == other["refused"] == "only process 0 looked"
    assert (main_process["looked"], other["looked"]) == ([0], [])
    assert (main_process["diverged"], "weight is not finite after step 7" in other["diverged"]) == ("", True)
    assert "did not answer within ddp_timeout (2 s)" in main_process["silent"]


def command(pairs, output, *extra):
    settings = {"ambiguity": "tv:0.4", "max_steps": 400, "save_steps": 4, "per_device_train_batch_size": 2}
    settings |= {"max_length": 32, "ddp_timeout": 60, "dataloader_drop_last": "true"}
    return train_command("reward", pairs, output, *extra, **settings)


def test_a_killed_process_ends_the_other_and_the_run_resumes(tmp_path, capsys):
    pairs, output = tmp_path / "train.jsonl", tmp_path / "run"
    write_pairs(generate(64, seed=3), pairs)
    survivor, victim = start_ranks(main, command(pairs, output))
    deadline = time.monotonic() + 240
    while not is_complete(output / "checkpoint-4"):
        assert survivor.poll() is None, survivor.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    victim.send_signal(signal.SIGKILL)
    said = survivor.communicate(timeout=60)[0]
    assert survivor.returncode == 2, said
    assert said.count("another process ended") == 1
    assert "Traceback" not in said
    victim.communicate()

    assert main(command(pairs, output, "--resume")) == 2  # one process now
    said = capsys.readouterr().err
    assert "was started with another world_size" in said
    assert "2 process(es) shared 8 examples a step, 1 would share 4: --gradient_accumulation_steps 4 or" in said

    latest = max(int(path.name.split("-")[1]) for path in output.glob("checkpoint-*") if is_complete(path))
    finished(start_ranks(main, command(pairs, output, "--resume", "--force", "--max_steps", str(latest + 2))))
    run = json.loads((output / "run.json").read_text())
    assert (run["steps"], run["effective_batch"]) == (latest + 2, 8)


def test_a_sharding_that_does_not_run_is_said_once_and_kept(tmp_path, capsys, monkeypatch):
    """As accelerate's launcher starts fsdp2.yaml on a machine without GPUs; a plan says it, too."""
    pairs, output = tmp_path / "train.jsonl", tmp_path / "run"
    write_pairs(generate(64, seed=3), pairs)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    told = "2 processes on cpu, ddp: fsdp2 was asked for and did not run"
    planned = finished(start_ranks(main, command(pairs, output, "--dry_run")))
    assert told in " ".join(planned[0].split())
    assert ("of 2: weights" in planned[0], "Plan:" in planned[1]) == (True, False)
    said = finished(start_ranks(main, command(pairs, output, "--max_steps", "2")))
    assert [text.count(told) for text in said] == [1, 0]
    assert f"| {told} |" in (output / "model" / "README.md").read_text()
    monkeypatch.delenv("ACCELERATE_USE_FSDP")
    main(["doctor", str(output)])
    shown = capsys.readouterr().out
    assert told in shown.splitlines()[0]
    assert "the run was not sharded" in shown


def own_command(commands):
    """Run the command of this rank."""
    return main(commands[int(os.environ["RANK"])])


@pytest.mark.parametrize("other", ["learning_rate", "sha256 of the train file"])
def test_processes_that_were_told_different_things_train_nothing(other, tmp_path):
    """On two machines, say: with settings of their own, or a file of the same name. Places may differ, content not."""
    files = [tmp_path / f"{rank}.jsonl" for rank in range(2)]
    for rank, file in enumerate(files):
        write_pairs(generate(64, seed=3 + rank if "file" in other else 3), file)
    commands = [command(file, tmp_path / "run") for file in files]
    if other == "learning_rate":
        commands[1] += ["--learning_rate", "0.5"]
    ranks = start_ranks(own_command, commands)
    said = [rank.communicate(timeout=240)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [2, 2], said
    assert f"process 1 of this run has another {other} than the first: give all of them the same" in said[0]
    assert "another" not in said[1]
    assert not (tmp_path / "run").exists()
