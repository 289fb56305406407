"""Run by test_ranks.py on two processes: trains one step per ambiguity set and compares the gradient."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from test_robust_trainer import (
    PAIRS,
    SETS,
    Gradients,
    arguments,
    full_batch_gradient,
    relative_error,
    seen_rows,
    trainer_for,
)
from transformers import set_seed

from llm.encoding import encode_pairs
from llm.models import tiny_reward_model


def main(folder: Path) -> None:
    set_seed(0)
    model, tokenizer = tiny_reward_model((pair.chosen + pair.rejected for pair in PAIRS), max_length=96)
    with torch.no_grad():
        model.classifier.weight *= 20
    start = model, tokenizer, encode_pairs(PAIRS, tokenizer, max_length=96)
    errors, ranks = [], 0
    for spec in [*SETS, "erm"]:
        gradients = Gradients()
        args = arguments(folder, micro=2, steps=4, dataloader_drop_last=True)
        trainer = trainer_for(start, args, spec, callbacks=[gradients])
        trainer.train()
        rows, ranks = seen_rows(trainer), args.world_size
        errors.append((spec, len(rows), relative_error(gradients.first, full_batch_gradient(start, rows, spec))))
    if args.process_index == 0:
        (folder / "errors.json").write_text(json.dumps({"ranks": ranks, "errors": errors}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
