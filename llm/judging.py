"""The command `evaluate`: one or two finished models on preference files."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .architectures import check_length, reading_length
from .evaluate import compare, evaluate_model, render_comparison, render_table, write_metrics
from .finished import check_run
from .likeness import record_of, remarks
from .models import ModelError, check_vocabulary, is_policy, load_policy, load_reward_model
from .scoring import MarginOf, likelihood_margins, policy_margins, reward_margins
from .selection import load_suites
from .terminal import Terminal

NO_REFERENCE = "none"


def judge(options: Namespace, files: Mapping[str, Path]) -> None:
    """Judge ``options.model``, and ``options.against`` beside it; print tables, write metrics where asked."""
    console, names = Terminal(), [name for name in (options.model, options.against) if name]
    if options.output:
        check_run(Path(options.output))  # whose seal will list the new metrics
    records = [record_of(name) for name in names]  # before hours of judging
    suites, _ = load_suites(dict(files), eval_pairs=options.eval_pairs)
    judged: list[dict[str, Any]] = []
    for name in names:
        model, tokenizer, margin_of = _loaded(name, options)
        max_length = options.max_length or reading_length(model, tokenizer)
        check_length(model, max_length)
        judged.append(
            evaluate_model(
                model,
                tokenizer,
                suites,
                max_length=max_length,
                batch_size=options.batch_size,
                margin_of=margin_of,
                progress=True,
            )
        )
        console.print(render_table(judged[-1]["suites"], title=f"Accuracy of {name}, %"))
    comparisons = None
    if options.against:
        both = judged[0]["margins"], judged[1]["margins"]
        comparisons = {name: compare(pairs, both[0][name], both[1][name]) for name, pairs in suites.items()}
        console.print(render_comparison(comparisons, names=(options.model, options.against)))
    for line in remarks(names, records):
        console.print(line, soft_wrap=True)
    if options.output:
        write_metrics(judged[0], suites, options.output, comparisons=comparisons)


def _loaded(name: str, options: Namespace) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, MarginOf]:
    loading: Any = {"trust_remote_code": options.trust_remote_code, "dtype": options.dtype}
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    if not is_policy(name, trust_remote_code=options.trust_remote_code):
        model, tokenizer = load_reward_model(name, new_head=False, **loading)
        return cast(Any, model).to(device), tokenizer, reward_margins
    if not options.reference:
        raise ModelError(
            f"{name} is a policy, whose margins are relative to the one it started from: give --reference, or "
            f"--reference {NO_REFERENCE} to rank by log pi(chosen) - log pi(rejected) alone"
        )
    model, tokenizer = load_policy(name, **loading)
    if options.reference == NO_REFERENCE:
        return cast(Any, model).to(device), tokenizer, likelihood_margins
    reference, its_tokenizer = load_policy(options.reference, **loading)
    check_vocabulary(tokenizer, its_tokenizer)
    return cast(Any, model).to(device), tokenizer, policy_margins(reference, beta=options.beta)
