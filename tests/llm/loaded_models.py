"""Pairs of odd lengths, short runs on them that leave models and adapters, and their margins as commands load them."""

from __future__ import annotations

import json
import random
import shutil

import pytest
import shapes
from command_lines import flags

from llm.data.pairs import Pair, write_pairs
from llm.judging.margins import likelihood_margins, score_pairs
from llm.models.loading import is_policy, load_policy, load_reward_model
from robust_rlhf import main

# Of libraries, about what these runs do on purpose.
quiet = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Model .* `tie_word_embeddings=True`:UserWarning"),
    pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers` to `True`:UserWarning"),
]


def draw(count, seed):
    """Pairs of one question each, with answers of very different lengths."""
    chance, words = random.Random(seed), ["red", "blue", "green", "amber", "dog", "cat", "bird"]
    pairs = []
    for i in range(count):
        good, bad = (" ".join(chance.choices(words, k=chance.choice([1, 2, 3, 6]))) for _ in range(2))
        question = ({"role": "user", "content": f"{chance.choice(words)} {i}?"},)
        pairs.append(Pair(f"p{i}", question, good, bad + "." * (good == bad), source="xy"[i % 2]))
    return pairs


TRAIN, SUITE = draw(8, 0), draw(24, 1)


def starts(once):
    """``start(name)``: a pretrained model; shared with the matrix of saved models."""
    return lambda name: once(f"shape-{name}-right", lambda folder: shapes.save_start(name, folder))


def train(kind, folder, model, *extra):
    """One short run in ``folder``; its exit status."""
    folder.mkdir(exist_ok=True)
    write_pairs(TRAIN, folder / "train.jsonl")
    told = {
        "config": f"{kind}-tiny", "model": model, "train_file": folder / "train.jsonl", "output_dir": folder / "run",
        "max_length": 48, "max_steps": 2, "learning_rate": 0.02, "plain_share": 0, "save_strategy": "no",
        "disable_tqdm": True, "use_cpu": True,
    }  # fmt: skip
    more = ["--per_device_train_batch_size", "8"] if kind != "policy" else []
    return main(["train", kind, *flags(told), *more, *extra])


def alone(kind, folder, model):
    """The folder of an adapter, exported alone."""
    assert train(kind, folder, model, "--lora_rank", "2", "--merge_adapter", "false") == 0
    return folder / "run" / "model"


def margins(place):
    """By the loading and scoring of every command."""
    if is_policy(str(place)):
        return score_pairs(*load_policy(str(place)), SUITE, max_length=48, margin_of=likelihood_margins)
    return score_pairs(*load_reward_model(str(place), new_head=False), SUITE, max_length=48)


def copied(adapter, folder, **settings):
    """The adapter somewhere else, with other entries in its settings."""
    shutil.copytree(adapter, folder)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return folder
