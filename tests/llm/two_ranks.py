"""Called by test_ranks.py on two processes: cells of the exactness matrix, then what processes owe each other."""

from __future__ import annotations

import copy
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed
from torch.distributed.fsdp import fully_shard

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import exact_cells
import ranks
import test_dpo
import test_sft

from llm.models.memory import held, sizes_of
from llm.models.sharding import distribution, whole_model
from llm.training.guards import NonFiniteLoss, check_weights
from llm.training.processes import RankLost, bounded_waiting, on_main_process


def measured(cells: list[exact_cells.Cell]) -> list[dict]:
    starts = {adapter: exact_cells.start(adapter) for adapter in exact_cells.Adapter}
    with tempfile.TemporaryDirectory() as folder:
        return [ranks.measure(cell, starts[cell.adapter], folder, 2) for cell in cells]


def whole_from_shards() -> bool | None:
    """Whether the model put together from both processes' shards holds the trained adapter and the untouched rest."""
    begin = exact_cells.start(exact_cells.Adapter.LORA)
    cell = exact_cells.Cell(exact_cells.Launcher.FSDP2, adapter=exact_cells.Adapter.LORA, steps=2)
    with tempfile.TemporaryDirectory() as folder:
        recorder = ranks.trained(cell, begin, folder, 2)
    whole = whole_model(recorder.trainer, lambda: copy.deepcopy(begin.model).requires_grad_(requires_grad=False))
    if whole is None:
        return None
    origin = dict(begin.model.named_parameters())
    moved = {name: part for name, part in whole.named_parameters() if not torch.equal(part, origin[name])}
    same = all(torch.equal(moved[name], part) for name, part in recorder.parameters.items() if name in moved)
    return same and moved.keys() <= recorder.parameters.keys() and len(moved) > 8


def held_here() -> dict:
    """What this process holds of a model that FSDP2 spreads, against the formula; gradients are freed by a step."""
    cell = exact_cells.Cell(exact_cells.Launcher.FSDP2, steps=2)
    with tempfile.TemporaryDirectory() as folder:
        trainer = ranks.trained(cell, exact_cells.start(cell.adapter), folder, 2).trainer
    parts = list(trainer.model.parameters())
    moments = [state[name] for state in trainer.optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    expected = held(sizes_of(trainer.model), 2, mixed=False)["fsdp2"]
    return {
        "ran": distribution(),
        "weights": [_bytes_here(parts), expected.weights],
        "optimizer": [_bytes_here(moments), expected.optimizer],
    }


def _bytes_here(parts: list[torch.Tensor]) -> int:
    return sum(part.to_local().numel() * part.element_size() for part in parts)


def dpo_error(reference: str, folder: Path) -> float:
    """Relative error of the gradient of a DPO step over both processes, which also share the reference's work."""
    begin, gradients = test_dpo.begin(), test_dpo.Gradients()
    args = test_dpo.arguments_with_cache(folder, micro=2, steps=4, dataloader_drop_last=True)
    trainer = test_dpo.trainer_for(begin, args, "tv:0.3", reference=reference, callbacks=[gradients])
    trainer.train()
    rows = test_dpo.seen_rows(trainer)
    assert len(rows) == 16
    return test_dpo.relative_error(gradients.first, test_dpo.full_gradient(begin, rows, "tv:0.3"))


def sft_error(folder: Path) -> float:
    """Relative error of the gradient of a supervised step over both processes."""
    begin, gradients = test_sft.begin(), test_sft.Gradients()
    args = test_sft.arguments(folder, micro=2, steps=4, dataloader_drop_last=True)
    trainer = test_sft.trainer_for(begin, args, "tv:0.3", callbacks=[gradients])
    trainer.train()
    rows = test_sft.seen_rows(trainer)
    assert len(rows) == 16
    return test_sft.relative_error(gradients.first, test_sft.full_gradient(begin, rows, "tv:0.3"))


def message_of(action, kind: type[Exception]) -> str:
    try:
        action()
    except kind as error:
        return str(error)
    return ""


looked: list[int] = []


def refuse() -> None:
    looked.append(torch.distributed.get_rank())
    raise FileExistsError(f"only process {torch.distributed.get_rank()} looked")


def a_shard_that_diverged() -> str:
    """The nan stands in the second half of the weight, which the second process holds."""
    model = fully_shard(
        torch.nn.Linear(4, 4, device="cpu"), mesh=torch.distributed.device_mesh.init_device_mesh("cpu", (2,))
    )
    if torch.distributed.get_rank() == 1:
        with torch.no_grad():
            model.weight.to_local()[-1, -1] = float("nan")
    return message_of(lambda: check_weights(model, 7), NonFiniteLoss)


def a_silent_process(heard: Path) -> str:
    """The second process is deaf until the first has given up; comes last, for the group is broken afterwards."""
    if torch.distributed.get_rank() == 1:
        end = time.monotonic() + 60
        while not heard.exists() and time.monotonic() < end:
            time.sleep(0.05)
        return ""

    def wait() -> None:
        with bounded_waiting(2):
            torch.distributed.all_reduce(torch.ones(1))

    return message_of(wait, RankLost)


def main(folder: Path) -> None:
    cells = [exact_cells.Cell.from_record(record) for record in json.loads((folder / "cells.json").read_text())]
    found = {
        "cells": measured(cells),
        "whole": whole_from_shards(),
        "held": held_here(),
        "dpo": {name: dpo_error(name, folder) for name in ("model", "precomputed")},
        "sft": sft_error(folder),
        "refused": message_of(lambda: on_main_process(refuse), FileExistsError),
        "looked": looked,
        "diverged": a_shard_that_diverged(),
        "silent": a_silent_process(folder / "found-0.json"),
    }
    (folder / f"found-{torch.distributed.get_rank()}.json").write_text(json.dumps(found))
    os._exit(0)  # the group is broken, and its destructor may abort
