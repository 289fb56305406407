"""Exports of reward models, read by RewardBench's steps, which are written down after its source.

RewardBench 0.1.4 cannot be installed beside transformers 5. What it does to a model, with the flags that the export
names: AutoTokenizer, apply_chat_template(tokenize=False), padding and truncation on the left, one forward pass.
"""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from exported_models import CHAT, CHATS, LENGTH, ODD, PAIRS, SYSTEM, TEXTS, message, save_rewards
from tokenizer_shapes import shaped
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from llm.data.pairs import Pair
from llm.export.agreement import agreement, lm_eval_reading
from llm.export.export import Tool, export_model
from llm.export.transformers_4 import OldConfigError, write_for_version_4
from llm.judging.margins import score_pairs
from llm.models.loading import load_reward_model, tiny_policy
from llm.text.encoding import encode_pairs
from llm.text.exported_templates import PLAIN, exported_template, without_edges


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_policy(TEXTS, max_length=LENGTH)[1]


@pytest.fixture(scope="module")
def rewards(once):
    return once("rewards-to-export", save_rewards)


def by_rewardbench(folder, pairs, *, batch_size, max_length):
    """Margins as RewardBench computes them from an exported model and a suite of whole conversations."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer.padding_side = tokenizer.truncation_side = "left"
    margins = []
    for start in range(0, len(pairs), batch_size):
        scores = []
        for side in ("chosen", "rejected"):
            chats = [pair[side] for pair in pairs[start : start + batch_size]]
            texts = [tokenizer.apply_chat_template(chat, tokenize=False) for chat in chats]
            inputs = tokenizer(texts, truncation=True, max_length=max_length, padding=True, return_tensors="pt")
            with torch.no_grad():
                scores.append(model(**inputs).logits[:, 0])
        margins += (scores[0] - scores[1]).tolist()
    return np.array(margins)


@pytest.mark.parametrize(("name", "batch_size"), [("tiny", 8), ("llama", 8), ("bert", 1)])
def test_rewardbench_gives_our_margins(rewards, tmp_path, name, batch_size):
    pairs = [*PAIRS, SYSTEM]
    done = export_model(str(rewards / name), Tool.REWARDBENCH, tmp_path / "out", {"suite": pairs})
    rows = [json.loads(line) for line in (tmp_path / "out" / "suites" / "suite.jsonl").read_text().splitlines()]
    assert done.command.endswith(f"--batch_size {batch_size}")
    assert f"--max_length {LENGTH} " in done.command
    assert (done.left_out, len(rows)) == (1, len(PAIRS))  # two roles in turn are all it knows
    theirs = by_rewardbench(tmp_path / "out" / "model", rows, batch_size=batch_size, max_length=LENGTH)
    model, tokenizer = load_reward_model(str(rewards / name))
    ours = score_pairs(model, tokenizer, PAIRS, max_length=LENGTH)
    np.testing.assert_allclose(theirs, ours, atol=2e-5 * ours.std())
    assert done.agreement.same == done.agreement.answers == 2 * len(pairs)


def test_export_changes_what_the_folder_alone_would_give(rewards, tmp_path):
    """The other way round: batches that are padded change a model with absolute positions, and it is said."""
    done = export_model(str(rewards / "bert"), Tool.REWARDBENCH, tmp_path / "out", {"suite": PAIRS})
    rows = [json.loads(line) for line in (tmp_path / "out" / "suites" / "suite.jsonl").read_text().splitlines()]
    one, eight = (by_rewardbench(tmp_path / "out" / "model", rows, batch_size=n, max_length=LENGTH) for n in (1, 8))
    assert np.abs(one - eight).max() > 0.01 * one.std()
    assert done.agreement.padding > 0.01
    assert "keep the batch size at 1" in (tmp_path / "out" / "README.md").read_text()


def test_overlong_answers_are_counted_as_read_otherwise(rewards, tmp_path):
    long = Pair("long", (message("user", "Say much."),), chosen="word " * 200, rejected="no")
    prompt = Pair("prompt", (message("user", "say " * 200),), chosen="yes", rejected="no")
    done = export_model(str(rewards / "tiny"), Tool.REWARDBENCH, tmp_path / "out", {"suite": [long, prompt]})
    assert (done.agreement.answers, done.agreement.same, done.agreement.longer) == (4, 1, 3)  # it cuts on the left


def test_older_names_say_the_same(rewards, tmp_path):
    """What transformers 4.51 would take defaults for: rotary bases, layers that see everything."""
    for name in ("tiny", "llama"):
        export_model(str(rewards / name), Tool.REWARDBENCH, tmp_path / name, {})
    tiny, llama = (json.loads((tmp_path / name / "model" / "config.json").read_text()) for name in ("tiny", "llama"))
    assert tiny["global_attn_every_n_layers"] == 1
    assert (tiny["global_rope_theta"], tiny["local_rope_theta"]) == (160000.0, 10000.0)
    assert (llama["rope_theta"], llama["rope_scaling"], llama["torch_dtype"]) == (5000.0, None, "float32")
    settings = json.loads((tmp_path / "tiny" / "model" / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert settings["model_input_names"] == ["input_ids", "attention_mask"]


def test_layers_without_a_rhythm_cannot_be_described(tmp_path):
    kinds = ["full_attention", "sliding_attention", "sliding_attention", "full_attention", "full_attention"]
    config = {"model_type": "modernbert", "layer_types": kinds}
    config["rope_parameters"] = {kind: {"rope_theta": 1.0} for kind in kinds}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(OldConfigError, match="fixed rhythm"):
        write_for_version_4(tmp_path)


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("framed", [True, False])
def test_template_gives_the_tokens_of_the_training(tokenizer, chat, framed):
    """Whatever the tokenizer has: a template or none, special tokens of its own or none."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = CHATS[chat]
    if not framed:
        tokenizer.backend_tokenizer.post_processor = None
    encoded = encode_pairs([*PAIRS, SYSTEM], tokenizer, max_length=4096)
    template, read = exported_template(tokenizer, generates=False), without_edges(tokenizer)
    for row, pair in enumerate([*PAIRS, SYSTEM]):
        for side in ("chosen", "rejected"):
            whole = [*pair.prompt, message("assistant", getattr(pair, side))]
            text = tokenizer.apply_chat_template(whole, chat_template=template, tokenize=False)
            assert read(text)["input_ids"] == encoded[row][side]
            tokenizer.chat_template = template
            assert encode_pairs([pair], tokenizer, max_length=4096)[0][side] == encoded[row][side]
            tokenizer.chat_template = CHATS[chat]


@pytest.mark.parametrize("framed", [True, False])
def test_a_reward_model_is_told_the_date_of_its_training(tokenizer, framed):
    """Its template asks for the day; a policy's own template goes on doing so."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = dated = "{{ strftime_now('%d %b %Y') }}\n" + CHAT
    if not framed:
        tokenizer.backend_tokenizer.post_processor = None
    expected = encode_pairs([ODD], tokenizer, max_length=4096)[0]["chosen"]
    assert exported_template(tokenizer, generates=True) == dated
    tokenizer.chat_template = exported_template(tokenizer, generates=False)
    whole = [*ODD.prompt, message("assistant", ODD.chosen)]
    assert tokenizer.apply_chat_template(whole, return_dict=False) == expected


@pytest.mark.parametrize("name", ["none", "chatml", "llama2"])
@pytest.mark.parametrize("kind", ["bytewise", "marked, prepended"])
def test_questions_are_compared_as_the_harness_reads_them(kind, name):
    """The tokenizer that is exported adds no special tokens; the questions have them."""
    tokenizer = shaped(kind, name)
    agreed = agreement(PAIRS[:3], tokenizer, 400, lm_eval_reading(tokenizer, without_edges(tokenizer)), policy=True)
    assert (agreed.same, agreed.answers) == (6, 6)


def test_plain_template_waits_for_an_answer(tokenizer):
    text = tokenizer.apply_chat_template(
        [message("user", "Hi")], chat_template=PLAIN, add_generation_prompt=True, tokenize=False
    )
    assert text == "User: Hi\n\nAssistant:"
