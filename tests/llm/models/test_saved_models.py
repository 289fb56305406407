"""What is saved is what was trained: margins of a run, of `evaluate`, of a scorer, and of plain transformers code.

One row of the matrix is a run: an architecture, what is exported, what is trained, and the side its tokenizer pads on.
Each is judged again in batches of several sizes. By default a diagonal, which has every entry of every axis and every
pair of export and training; the whole product is exhaustive.
"""

from __future__ import annotations

import itertools
import json
from typing import NamedTuple

import command_lines
import numpy as np
import peft
import pytest
import shapes
import torch
import transformers as tf
from loaded_models import SUITE, TRAIN
from shapes import DECODERS, ENCODERS, SHAPES

from llm.data.pairs import write_pairs
from llm.data.prompts import Prompt
from llm.judging.margins import likelihood_margins, score_pairs
from llm.policy.config import PolicyConfig
from llm.policy.run import train_policy
from llm.rewards.scorer import load_scorer
from llm.training.settings import parse_train
from robust_rlhf import main

LENGTH = 48  # some of the pairs are longer
FORMS, SIDES, SIZES = ("full", "merged", "alone"), ("left", "right"), (1, 7, 32)
KINDS = ("reward", "dpo", "sft", "policy")
BETA = 0.1


class Cell(NamedTuple):
    shape: str
    form: str
    kind: str
    side: str

    def __str__(self):
        return "-".join(self)


def row(name, form, kind):
    """The side follows from the place, so that both come with every kind of training."""
    place = list(SHAPES).index(name) // 2 + FORMS.index(form)
    return Cell(name, form, kind, SIDES[place % 2])


TRAININGS = [*itertools.product(ENCODERS, ["reward"]), *itertools.product(DECODERS, KINDS)]
# What a head has drawn at random shows in adapters alone. The decoders are a Latin square.
DIAGONAL = [row(name, form, "reward") for name in ENCODERS for form in (FORMS[len(name) % 2], "alone")] + [
    row(name, form, KINDS[(place + shift) % 4])
    for place, name in enumerate(DECODERS)
    for shift, form in enumerate(FORMS)
]
PRODUCT = [Cell(name, form, kind, side) for name, kind in TRAININGS for form in FORMS for side in SIDES]


def flags(cell, folder, start, judge):
    told = {
        "config": f"{cell.kind}-tiny", "model": start, "train_file": folder / "train.jsonl",
        "output_dir": folder / "run", "max_length": LENGTH, "max_steps": 2,
        "per_device_train_batch_size": 8, "learning_rate": 0.02,
        "per_device_eval_batch_size": 5, "plain_share": 0, "save_strategy": "no", "disable_tqdm": True, "use_cpu": True,
    }  # fmt: skip
    if cell.form != "full":
        told |= {"lora_rank": 2, "merge_adapter": cell.form == "merged"}
    if cell.kind == "policy":
        told |= {"reward_model": judge, "prompts_per_step": 4, "samples": 2, "max_new_tokens": 6, "kl_coefficient": 0}
    else:
        told |= {"suites": folder / "suite.jsonl"}
    return command_lines.flags(told)


@pytest.fixture(scope="session")
def judge(once):
    """A reward model for the policies."""

    def build(folder):
        tokenizer = shapes.tokenizer_of("bert")
        config = SHAPES["bert"].config(tokenizer)
        config.num_labels = 1
        torch.manual_seed(3)
        tf.AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    return once("shape-judge", build)


@pytest.fixture(scope="session")
def finished(once, judge):
    """``finished(cell)``: the folder of a run, with its start and the margins it was left with."""

    def run(cell):
        start = once(f"shape-{cell.shape}-{cell.side}", lambda f: shapes.save_start(cell.shape, f, side=cell.side))
        return once(f"saved-{cell}", lambda folder: train(cell, folder, start)), start

    def train(cell, folder, start):
        write_pairs(TRAIN, folder / "train.jsonl")
        write_pairs(SUITE, folder / "suite.jsonl")
        argv = flags(cell, folder, start, judge)
        if cell.kind != "policy":
            assert main(["train", cell.kind, *argv]) == 0
            return
        trained = train_policy(*parse_train(PolicyConfig, argv))
        margins = score_pairs(
            trained.model, trained.tokenizer, SUITE, max_length=LENGTH, batch_size=5, margin_of=likelihood_margins
        )
        rows = [{"id": pair.id, "margin": float(m)} for pair, m in zip(SUITE, margins, strict=True)]
        (folder / "run" / "margins.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in rows))

    return run


def margins_in(folder):
    rows = map(json.loads, (folder / "margins.jsonl").read_text().splitlines())
    found = {entry["id"]: entry["margin"] for entry in rows}
    return np.array([found[pair.id] for pair in SUITE])


def evaluated(cell, folder, start, output, size):
    judged = [
        "evaluate",
        str(folder / "run" / "model"),
        "--suite",
        str(folder / "suite.jsonl"),
        "--output",
        str(output),
    ]
    against = {"reward": [], "dpo": ["--reference", str(start), "--beta", str(BETA)]}.get(
        cell.kind, ["--reference", "none"]
    )
    assert main([*judged, "--batch-size", str(size), *against]) == 0
    return margins_in(output)


def plainly(cell, folder, start):
    """Margins of each answer alone by the libraries themselves; nan where a pair is longer than the training read."""
    place, judging = folder / "run" / "model", cell.kind == "reward"
    kind = tf.AutoModelForSequenceClassification if judging else tf.AutoModelForCausalLM
    more = {"num_labels": 1} if judging else {}
    tokenizer, begun = tf.AutoTokenizer.from_pretrained(place), kind.from_pretrained(start, **more).eval()
    if cell.form == "alone":
        model = peft.PeftModel.from_pretrained(kind.from_pretrained(start, **more), place).eval()
    else:
        model = kind.from_pretrained(place).eval()
        assert not (place / "adapter_config.json").exists()
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id  # a base alone may know of none
    margins = values(cell, model, tokenizer, "chosen") - values(cell, model, tokenizer, "rejected")
    if judging:
        return margins
    before = values(cell, begun, tokenizer, "chosen") - values(cell, begun, tokenizer, "rejected")
    assert np.nanmax(np.abs(margins - before)) > 0.1  # there was something to save
    return BETA * (margins - before) if cell.kind == "dpo" else margins


def values(cell, model, tokenizer, side):
    """Rewards or log-probabilities of one answer to every question."""
    found = []
    for pair in SUITE:
        question = pair.prompt[-1]["content"]
        ids = shapes.own_tokens(tokenizer, shapes.whole_text(cell.shape, question, getattr(pair, side)))
        first = len(shapes.own_tokens(tokenizer, shapes.prompt_text(cell.shape, question)))
        end = len(ids) - len(shapes.SHAPES[cell.shape].behind)
        value = shapes.reward(model, ids) if cell.kind == "reward" else shapes.answer_logp(model, ids[:end], first)
        found.append(value if len(ids) <= LENGTH else np.nan)
    return np.array(found)


def check(cell, size, finished, tmp_path):
    folder, start = finished(cell)
    run = margins_in(folder / "run")
    scale = 1e-5 * max(1.0, np.abs(run).max() / (1.0 if cell.kind == "reward" else 10.0))
    again = evaluated(cell, folder, start, tmp_path / "judged", size)
    plain = plainly(cell, folder, start)
    short = ~np.isnan(plain)
    assert 6 < short.sum() < len(SUITE)
    assert np.ptp(run) > 0.05
    np.testing.assert_allclose(again, run, rtol=0, atol=scale)
    np.testing.assert_allclose(plain[short], run[short], rtol=0, atol=scale)
    if cell.kind == "reward":
        scorer = load_scorer(str(folder / "run" / "model"), batch_size=size, device="cpu")
        prompts = [Prompt(pair.id, pair.prompt) for pair in SUITE]
        # together: answers to one prompt are read after the same part of it
        sides = np.split(scorer(prompts * 2, [pair.chosen for pair in SUITE] + [pair.rejected for pair in SUITE]), 2)
        np.testing.assert_allclose(sides[0] - sides[1], run, rtol=0, atol=scale)
    written_for_others(cell, folder / "run" / "model", size)


def written_for_others(cell, place, size):
    """The exported tokenizer alone gives the tokens of the training, and pads as its kind of model needs it."""
    tokenizer = tf.AutoTokenizer.from_pretrained(place)
    assert tokenizer.padding_side == ("right" if cell.kind == "reward" else "left")
    assert tokenizer.model_max_length == LENGTH
    pair = SUITE[size % len(SUITE)]
    question = pair.prompt[-1]["content"]
    asked = tokenizer.apply_chat_template(list(pair.prompt), add_generation_prompt=True, return_dict=False)
    assert asked == shapes.own_tokens(tokenizer, shapes.prompt_text(cell.shape, question))
    if cell.kind == "reward":
        chat = [*pair.prompt, {"role": "assistant", "content": pair.chosen}]
        whole = shapes.own_tokens(tokenizer, shapes.whole_text(cell.shape, question, pair.chosen))
        assert tokenizer.apply_chat_template(chat, return_dict=False) == whole


def test_the_diagonal_has_every_entry():
    assert {cell.shape for cell in DIAGONAL} == set(SHAPES)
    assert {(cell.form, cell.kind) for cell in DIAGONAL if cell.shape in DECODERS} == set(
        itertools.product(FORMS, KINDS)
    )
    assert {(cell.kind, cell.side) for cell in DIAGONAL} == set(itertools.product(KINDS, SIDES))


@pytest.mark.parametrize(
    ("cell", "size"), [(cell, SIZES[(i + i // 3) % 3]) for i, cell in enumerate(DIAGONAL)], ids=str
)
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft asks for it
def test_saved_is_what_was_trained(cell, size, finished, tmp_path):
    check(cell, size, finished, tmp_path)


@pytest.mark.exhaustive
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("cell", PRODUCT, ids=str)
def test_saved_is_what_was_trained_everywhere(cell, size, finished, tmp_path):
    check(cell, size, finished, tmp_path)
