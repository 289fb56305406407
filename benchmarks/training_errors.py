"""How wrong weights per micro-batch make the gradient, step by step along exact training; and what the solver takes."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from training_contestants import MICRO, WINDOW
from transformers import BertConfig, BertForSequenceClassification, set_seed

from dro_core import TotalVariation, parse_ambiguity, worst_case
from llm.data.corpus.corpus import generate
from llm.judging.margins import dpo_margins, reward_margins
from llm.models.loading import tiny_policy, tiny_reward_model
from llm.models.logprobs import answer_logps
from llm.text.batches import PairCollator
from llm.text.encoding import encode_pairs
from llm.training.losses import Sigmoid

Record = dict[str, Any]
SETS = ("tv:0.1", "tv:0.2", "tv:0.4", "tv:0.2,max_ratio=4", "cvar:0.3", "chi2:0.5", "kl:0.3")
LENGTH, STEPS = 64, 40
SOLVED = ("tv:0.2", "cvar:0.3", "chi2:0.5", "kl:0.3")
MINILM = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
TOKENS, BATCH = 128, 1024


def _start(kind: str) -> tuple[Any, Any, Callable[[Any, dict[str, Tensor]], Tensor], list[Any]]:
    """Model, collator, losses of a batch, and the encoded pairs."""
    set_seed(0)
    pairs = generate(MICRO * WINDOW * STEPS, seed=3)
    words = [text for pair in pairs for text in (pair.prompt[-1]["content"], pair.chosen, pair.rejected)]
    make = tiny_reward_model if kind == "reward" else tiny_policy
    model, tokenizer = make(words, max_length=LENGTH)
    encoded, reference = encode_pairs(pairs, tokenizer, max_length=LENGTH), copy.deepcopy(model)

    def losses(model: Any, batch: dict[str, Tensor]) -> Tensor:
        if kind == "reward":
            margins = reward_margins(model, batch)
        else:
            with torch.no_grad():
                known = answer_logps(reference, batch)
            margins = dpo_margins(answer_logps(model, batch), known, beta=0.5)
        return Sigmoid()(margins)

    return model, PairCollator(tokenizer), losses, [encoded[row] for row in range(len(encoded))]


def gradient_errors(kind: str) -> list[Record]:
    """Relative gradient errors of weights per micro-batch for every set, at the steps of one run.

    The run takes the exact gradient of tv:0.2. With the Gram matrix of the examples' gradients, the error of any
    weights is a quadratic form.
    """
    model, collate, losses_of, items = _start(kind)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-3)
    size, errors = MICRO * WINDOW, {spec: [] for spec in SETS}
    for step in range(STEPS):
        rows = [collate([item]) for item in items[step * size : (step + 1) * size]]
        losses, jacobian = _example_gradients([losses_of(model, row)[0] for row in rows], weights)
        gram = (jacobian @ jacobian.T).double()
        for spec, found in errors.items() if step else ():
            found.append(_error(losses, gram, spec))
        exact = worst_case(losses, TotalVariation(0.2)).weights.float() @ jacobian
        for weight, part in zip(weights, exact.split([weight.numel() for weight in weights]), strict=True):
            weight.grad = part.view_as(weight)
        optimizer.step()
    shape = {"n": size, "micro": MICRO, "steps": STEPS - 1}
    quartiles = {spec: np.quantile(found, [0.25, 0.5, 0.75]).tolist() for spec, found in errors.items()}
    return [{"kind": kind, "set": spec, **shape, "per micro-batch": found} for spec, found in quartiles.items()]


def _example_gradients(losses: list[Tensor], weights: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Losses ``(n,)`` in float64 and gradients ``(n, parameters)`` of the examples, one backward pass each."""
    rows = []
    for loss in losses:
        found = torch.autograd.grad(loss, weights, allow_unused=True)
        parts = zip(found, weights, strict=True)
        rows.append(torch.cat([(torch.zeros_like(w) if part is None else part).flatten() for part, w in parts]))
    return torch.stack(losses).detach().double(), torch.stack(rows)


def _error(losses: Tensor, gram: Tensor, spec: str) -> float:
    """Of the gradient whose weights are solved micro-batch by micro-batch, relative to the exact one."""
    ambiguity, parts = parse_ambiguity(spec), losses.split(MICRO)
    assert ambiguity is not None
    exact = worst_case(losses, ambiguity).weights
    wrong = torch.cat([worst_case(part, ambiguity).weights for part in parts]) / len(parts) - exact
    return float((wrong @ gram @ wrong).clamp_min(0).sqrt() / (exact @ gram @ exact).sqrt())


def solver_share() -> list[Record]:
    """``worst_case`` of 1,024 losses against a step of MiniLM's size (random weights), measured in turns.

    The step is one micro-batch of 4 pairs at 128 tokens, forward and backward, times the 256 of an effective batch
    of 1,024; the optimizer is left out, which makes the share larger.
    """
    set_seed(0)
    model = BertForSequenceClassification(BertConfig(vocab_size=30522, num_labels=1, **MINILM))  # pyright: ignore
    ids = torch.randint(1, 30522, (8, TOKENS))

    def micro_batch() -> None:
        model.zero_grad()
        chosen, rejected = model(input_ids=ids).logits[:, 0].chunk(2)
        Sigmoid()(chosen - rejected).mean().backward()

    losses = torch.nn.functional.softplus(torch.randn(BATCH))
    micro_batch()
    solving: dict[str, list[float]] = {spec: [] for spec in SOLVED}
    steps = []
    for _ in range(3):
        steps.append(_seconds(micro_batch))
        for spec, found in solving.items():
            ambiguity = parse_ambiguity(spec)
            assert ambiguity is not None
            found += [_seconds(lambda ambiguity=ambiguity: worst_case(losses, ambiguity)) for _ in range(40)]
    whole = statistics.median(steps) * BATCH / 4
    return [
        {"set": spec, "microseconds": 1e6 * statistics.median(found), "step_seconds": whole,
         "share": statistics.median(found) / whole}
        for spec, found in solving.items()
    ]  # fmt: skip


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
