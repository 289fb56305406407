"""A robust reward model in one readable loop: torch, transformers and dro_core, nothing else.

    robust-rlhf data builtin corpus
    python examples/robust_reward.py corpus/train.jsonl corpus/id_test.jsonl corpus/ood_shifted_mixture.jsonl

Every step finds the worst reweighting of the losses of its whole batch, within a ball around equal weights, and follows
the gradient of the reweighted loss. What ``llm`` adds to it: several processes, accumulation, adapters, checkpoints.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, pad
from transformers import BertConfig
from transformers import BertForSequenceClassification as Bert

from dro_core import AmbiguitySet, parse_ambiguity, worst_case

LENGTH, MICRO_BATCH = 192, 16  # bytes of a text; pairs per forward pass


def read(path: str) -> list[tuple[str, str]]:
    """Chosen and rejected texts, prompts in front."""
    records = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    prompts = ["\n".join(message["content"] for message in record["prompt"]) for record in records]
    return [
        (f"{prompt}\n{r['chosen']}", f"{prompt}\n{r['rejected']}") for prompt, r in zip(prompts, records, strict=True)
    ]


def margins(model: Bert, pairs: list[tuple[str, str]]) -> Tensor:
    """r(chosen) - r(rejected) of every pair, shape ``(n,)``; the last bytes of a text are kept, 0 is padding."""
    texts = [text.encode()[-LENGTH:] for side in zip(*pairs, strict=True) for text in side]
    longest = max(map(len, texts))
    ids = torch.stack([pad(torch.tensor(list(text)), (0, longest - len(text))) for text in texts])
    chosen, rejected = model(input_ids=ids, attention_mask=(ids > 0).long()).logits[:, 0].chunk(2)
    return chosen - rejected


def losses(model: Bert, pairs: list[tuple[str, str]]) -> Tensor:
    """Negative log-likelihood of every label under Bradley and Terry's model, in nats; not reduced."""
    return -logsigmoid(margins(model, pairs))


def cut(pairs: list[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    """Micro-batches that fit into memory."""
    return (pairs[start : start + MICRO_BATCH] for start in range(0, len(pairs), MICRO_BATCH))


def robust_step(model: Bert, batch: list[tuple[str, str]], ball: AmbiguitySet | None) -> Tensor:
    """Leave the gradient of max_q sum_i q_i l_i on the model; returns the weights q, shape ``(n,)``."""
    with torch.no_grad():  # pass 1: the losses of the whole batch, for the adversary to look at
        seen = torch.cat([losses(model, part) for part in cut(batch)])
    weights = torch.full_like(seen, 1 / len(seen)) if ball is None else worst_case(seen, ball).weights
    for part, share in zip(cut(batch), weights.split(MICRO_BATCH), strict=True):
        if share.any():  # pass 2: the gradient of the worst case is that of the reweighted loss (Danskin)
            (share * losses(model, part)).sum().backward()
    return weights


def main() -> None:
    """Train, then print the accuracy on every suite."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("train")
    parser.add_argument("suites", nargs="+")
    parser.add_argument("--ambiguity", default="tv:0.2", help="erm, tv:0.2, cvar:0.3, chi2:0.5, ... (%(default)s)")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=64)
    options = parser.parse_args()
    torch.manual_seed(0)
    shape = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 512}
    quiet = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}  # both passes must see one function
    model = Bert(BertConfig(vocab_size=256, num_labels=1, pad_token_id=0, **shape, **quiet))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    pairs, ball = read(options.train), parse_ambiguity(options.ambiguity)
    for step in range(options.steps):
        batch = [pairs[i] for i in torch.randint(len(pairs), (options.batch,)).tolist()]
        plain_first = step < 0.4 * options.steps  # on a model that knows nothing, worst-case weights chase noise
        weights = robust_step(model, batch, None if plain_first else ball)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % 20 == 0:
            print(f"step {step + 1}: {1 / (weights**2).sum():.0f} of {options.batch} pairs count")
    with torch.no_grad():
        for suite in options.suites:
            right = torch.cat([margins(model, part).sign() for part in cut(read(suite))])
            print(f"{suite}: {(right.mean() + 1) / 2:.1%} of {len(right)} pairs")


if __name__ == "__main__":
    main()
