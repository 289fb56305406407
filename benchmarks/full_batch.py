"""The reference of exactness.py: autograd on the whole effective batch.

Nothing of it goes through a trainer: one process, one forward of the whole effective batch, one ``robust_loss``, one
backward (and ``torch.optim`` for more than one step).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from exact_cells import CATEGORIES, CLIP, RATE, Cell, Precision, Start
from torch import Tensor, nn

from dro_core import parse_ambiguity, robust_loss
from llm.text.batches import PairCollator
from llm.training.losses import Sigmoid


def losses_of(model: nn.Module, begin: Start, rows: np.ndarray, precision: Precision) -> Tensor:
    """Losses of the pairs ``rows`` in one forward pass, shape ``(n,)``, where the model is."""
    device = next(model.parameters()).device
    batch = PairCollator(begin.tokenizer)([begin.data[int(i)] for i in rows])
    batch = {name: part.to(device) for name, part in batch.items()}
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision is Precision.AUTOCAST):
        output = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    chosen, rejected = output.logits[:, 0].float().chunk(2)
    return Sigmoid()(chosen - rejected)


def reference_gradient(
    model: nn.Module, begin: Start, rows: np.ndarray, cell: Cell, weights: Tensor | None = None
) -> dict[str, Tensor]:
    """Gradient of the robust loss of the whole effective batch, or of given ``weights``, by name of the parameter."""
    if cell.precision is Precision.WEIGHTS:
        model = model.bfloat16()
    losses = losses_of(model, begin, rows, cell.precision)
    if weights is not None:
        (weights * losses).sum().backward()
    elif (ambiguity := parse_ambiguity(cell.ambiguity)) is None:
        losses.mean().backward()
    else:
        robust_loss(losses, ambiguity.bind({"category": CATEGORIES}).take(rows)).backward()
    return {name: part.grad for name, part in model.named_parameters() if part.grad is not None}


def reference_parameters(begin: Start, steps: Sequence[np.ndarray], cell: Cell) -> dict[str, Tensor]:
    """Parameters after AdamW with clipping on the effective batches ``steps``."""
    model = copy.deepcopy(begin.model)
    trained = {name: part for name, part in model.named_parameters() if part.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=RATE, weight_decay=0.0)
    for rows in steps:
        optimizer.zero_grad()
        reference_gradient(model, begin, rows, cell)
        torch.nn.utils.clip_grad_norm_(trained.values(), CLIP)
        optimizer.step()
    return {name: part.detach() for name, part in trained.items()}


def relative_error(
    found: dict[str, Tensor], expected: dict[str, Tensor], origin: dict[str, Tensor] | None = None
) -> float:
    """Euclidean norm of the difference over that of ``expected`` (minus ``origin``), over all parameters together."""
    if found.keys() != expected.keys():
        raise RuntimeError(f"other parameters are trained: {sorted(found.keys() ^ expected.keys())[:4]}")
    off = sum(float((found[name].double() - expected[name].double()).square().sum()) for name in expected)
    of = sum(
        float((expected[name].double() - (0 if origin is None else origin[name].double())).square().sum())
        for name in expected
    )
    return (off / of) ** 0.5
