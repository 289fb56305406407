"""What sequences cost: frozen features against a loop by hand, tokens that are kept, padding in micro-batches.

    python benchmarks/lengths.py features --pairs 200 --file train.jsonl   # seconds, ours and by hand, in turns
    python benchmarks/lengths.py tokens --file train.jsonl                 # seconds, tokenised and read back
    python benchmarks/lengths.py padding --file train.jsonl                # exact counts, and the table of the docs
    python benchmarks/lengths.py padding --file train.jsonl --steps 6      # and forward and backward, timed in turns

The loop by hand is what one writes with transformers alone: texts sorted by length, batches within a budget of tokens,
the mean of the last hidden states. Ours also cuts both answers to one window of their prompt, tells equal sequences
apart, and keeps what it has computed on disk. Without a file the texts are words, of lengths drawn once.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import cpu, revision

from llm.data.pairs import Pair, read_pairs
from llm.features.features import Backbone, FeatureCache, load_backbone
from llm.judging.margins import reward_margins
from llm.models.fetching import cache_folder
from llm.models.loading import load_reward_model
from llm.models.tokenizers import load_tokenizer
from llm.text.batches import PairCollator, by_length, longest_first
from llm.text.encoding import EncodedPairs, encode_pairs
from llm.text.rendering import plain_prompt
from llm.text.token_cache import TokenCache

BUDGET = 8192  # tokens of a batch of the loop by hand
SHAPES = ((4, 4), (4, 16), (8, 8), (16, 4), (16, 16))  # micro-batch, micro-batches of a step
EVALUATED = (8, 32)  # pairs of a batch of an evaluation


def pairs_of(file: str | None, count: int | None) -> list[Pair]:
    """A random subset of the file's pairs, or made ones."""
    rng = random.Random(0)
    if file is not None:
        pairs = read_pairs(file).pairs
        return pairs if count is None or count >= len(pairs) else rng.sample(pairs, count)

    def words(median: int) -> str:
        return " ".join(
            rng.choices(["red", "green", "dog", "cat", "house"], k=int(rng.lognormvariate(0, 1) * median) + 1)
        )

    return [
        Pair(str(n), ({"role": "user", "content": words(80)},), words(150), words(150)) for n in range(count or 2000)
    ]


def by_hand(backbone: Backbone, pairs: Sequence[Pair]) -> np.ndarray:
    """Mean last hidden states of both answers, ``(2, pairs, width)``, cut at the end where they are too long."""
    texts = [f"{plain_prompt(p.prompt)} {answer}" for side in ("chosen", "rejected") for p, answer in
             ((p, getattr(p, side)) for p in pairs)]  # fmt: skip
    rows = backbone.tokenizer(texts, truncation=True, max_length=backbone.max_length)["input_ids"]
    order = sorted(range(len(rows)), key=lambda row: -len(rows[row]))
    found: dict[int, np.ndarray] = {}
    with torch.inference_mode():
        while order:
            size = max(BUDGET // len(rows[order[0]]), 1)
            batch, order = order[:size], order[size:]
            told = backbone.tokenizer.pad({"input_ids": [rows[row] for row in batch]}, return_tensors="pt")
            hidden = backbone.model(**told).last_hidden_state
            mask = told["attention_mask"][..., None]
            found |= dict(zip(batch, ((hidden * mask).sum(1) / mask.sum(1)).numpy(), strict=True))
    return np.stack([found[row] for row in range(len(rows))]).reshape(2, len(pairs), -1)


def features(options: argparse.Namespace) -> None:
    """Print seconds and their ratio; stop where the features differ."""
    backbone = load_backbone(options.model, max_length=options.max_length)
    pairs = pairs_of(options.file, options.pairs)
    encoded = encode_pairs(pairs, backbone.tokenizer, max_length=options.max_length)
    pairs = list(encoded.pairs)
    whole = [
        n for n, item in enumerate(encoded) if max(len(item[s]) for s in ("chosen", "rejected")) < options.max_length
    ]
    ratios: list[float] = []
    for turn in range(options.rounds):
        seconds, results = {}, {}
        with tempfile.TemporaryDirectory() as folder:
            ways: dict[str, Any] = {
                "ours": lambda folder=folder: np.load(FeatureCache(Path(folder)).pairs(backbone, pairs, name="")),
                "by hand": lambda: by_hand(backbone, pairs),
            }
            for name in sorted(ways, reverse=turn % 2 == 1):
                start = time.perf_counter()
                results[name] = ways[name]()
                seconds[name] = time.perf_counter() - start
        if not np.allclose(results["ours"][:, whole], results["by hand"][:, whole], atol=1e-4):
            sys.exit("the features of texts that were not cut differ, so their times say nothing")
        ratios.append(seconds["ours"] / seconds["by hand"])
        ours, theirs = seconds["ours"], seconds["by hand"]
        _say(f"round {turn + 1}: ours {ours:.1f} s, by hand {theirs:.1f} s, ratio {ratios[-1]:.2f}")
    said = f"{len(pairs)} pairs, {options.model} at {options.max_length} tokens: ours / by hand"
    _say(f"{said} {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}), {_where()}")


def tokens(options: argparse.Namespace) -> None:
    """Print the seconds of tokenising pairs, and of reading back what was kept of them, in turns."""
    pairs, tokenizer = pairs_of(options.file, options.pairs), load_tokenizer(options.model)
    seconds: dict[str, list[float]] = {"tokenised": [], "read back": []}
    with tempfile.TemporaryDirectory() as folder:
        kept = TokenCache(Path(folder), least_pairs=0)
        encode_pairs(pairs, tokenizer, max_length=options.max_length, cache=kept)
        for _ in range(options.rounds):
            for name, cache in (("tokenised", None), ("read back", kept)):
                start = time.perf_counter()
                encode_pairs(pairs, tokenizer, max_length=options.max_length, cache=cache)
                seconds[name].append(time.perf_counter() - start)
    spread = (f"{n} {statistics.median(s):.2f} s ({min(s):.2f} to {max(s):.2f})" for n, s in seconds.items())
    _say(f"{len(pairs)} pairs, {options.model} at {options.max_length} tokens: {', '.join(spread)}, {_where()}")


def windows(encoded: EncodedPairs, collator: PairCollator, micro: int, together: int) -> list[list[dict[str, Any]]]:
    """The full steps of an epoch, in a random order, as the trainer collates them."""
    order = random.Random(1).sample(range(len(encoded)), len(encoded))
    batches = [
        collator([encoded[row] for row in order[at : at + micro]]) for at in range(0, len(order) - micro + 1, micro)
    ]
    return [batches[at : at + together] for at in range(0, len(batches) - together + 1, together)]


def held_out(encoded: EncodedPairs, collator: PairCollator) -> None:
    """Print the same for an evaluation: pairs in the order of the file, and by length over the whole of it."""
    _say("\n| pairs a batch | as they come | by length | spared |\n|---|---|---|---|")
    read = sum(len(item["chosen"]) + len(item["rejected"]) for item in encoded)
    for size in EVALUATED:
        plain, sparing = (
            sum(
                collator([encoded[row] for row in order[at : at + size]])["input_ids"].numel()
                for at in range(0, len(order), size)
            )
            for order in (range(len(encoded)), longest_first(encoded))
        )
        _say(f"| {size} | {plain / read:.3f} | {sparing / read:.3f} | {1 - sparing / plain:.1%} |")


def padding(options: argparse.Namespace) -> None:
    """Print the table: tokens that are computed per token that is read, without and with micro-batches by length."""
    model, tokenizer = load_reward_model(options.model)
    kept = TokenCache(cache_folder() / "tokens")
    encoded = encode_pairs(pairs_of(options.file, options.pairs), tokenizer, max_length=options.max_length, cache=kept)
    collator = PairCollator(tokenizer, max_length=options.max_length)
    _say("| pairs a step | as they come | by length | spared | time, by length / as they come |\n|---|---|---|---|---|")
    for micro, together in SHAPES:
        if not (steps := windows(encoded, collator, micro, together)):
            continue  # too few pairs for a step
        ways = [steps, [by_length(step, collator) for step in steps]]
        plain, sparing = (sum(batch["input_ids"].numel() for step in way for batch in step) for way in ways)
        read = sum(int(batch["attention_mask"].sum()) for step in steps for batch in step)
        timed = _timed(model, ways, options.steps) if options.steps else "-"
        counted = f"{plain / read:.3f} | {sparing / read:.3f} | {1 - sparing / plain:.1%}"
        _say(f"| {micro} x {together} | {counted} | {timed} |")
    held_out(encoded, collator)
    _say(f"{len(encoded)} pairs, {options.model} at {options.max_length} tokens, {_where()}")


def _timed(model: Any, ways: Sequence[Any], steps: int) -> str:
    """Forward and backward passes of whole steps, both ways in turns."""
    ratios: list[float] = []
    for turn, (plain, by_lengths) in enumerate(list(zip(*ways, strict=True))[:steps]):
        seconds: dict[int, float] = {}
        for way, step in sorted(enumerate((plain, by_lengths)), reverse=turn % 2 == 1):
            start = time.perf_counter()
            for batch in step:
                torch.nn.functional.softplus(-reward_margins(model, batch)).mean().backward()
            seconds[way] = time.perf_counter() - start
            model.zero_grad()
        ratios.append(seconds[1] / seconds[0])
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def _where() -> str:
    return f"{cpu()}, {torch.get_num_threads()} thread(s) of {os.cpu_count()} cores, revision {revision()}"


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(argv: Sequence[str] | None = None) -> None:
    """The parts as commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(required=True)
    for name, part in (("features", features), ("tokens", tokens), ("padding", padding)):
        command = parts.add_parser(name)
        command.set_defaults(part=part)
        command.add_argument("--file", help="pairs; without it, words")
        command.add_argument("--pairs", type=int, default=200 if name == "features" else None)
        command.add_argument("--model", default="minilm")
        command.add_argument("--max-length", type=int, default=512)
        command.add_argument(
            "--steps" if name == "padding" else "--rounds", type=int, default=0 if name == "padding" else 3
        )
    options = parser.parse_args(argv)
    options.part(options)


if __name__ == "__main__":
    main()
