"""What others find in the folder of a model: a card whose code runs, and what a judge needs."""

from __future__ import annotations

import shutil

import pytest
import shapes
import transformers as tf
import yaml
from loaded_models import SUITE, alone, quiet, starts, train

from llm.export.export import Tool, export_model
from llm.models.card_parts import licence_of
from llm.models.loading import load_reward_model

pytestmark = quiet


@pytest.fixture(scope="module")
def start(once):
    return starts(once)


def card_of(place):
    text = (place / "README.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    return yaml.safe_load(text.split("---")[1]), code


@pytest.mark.parametrize("form", ["full", "alone"])
@pytest.mark.parametrize(("kind", "name"), [("reward", "bert"), ("reward", "qwen"), ("sft", "llama")])
def test_the_code_in_the_card_runs(start, tmp_path, kind, name, form):
    if form == "alone":
        place = alone(kind, tmp_path, start(name))
    else:
        assert train(kind, tmp_path, start(name)) == 0
        place = tmp_path / "run" / "model"
    code = (
        card_of(place)[1]
        .split("# TRL")[0]
        .replace("path/to/model", str(place))
        .replace(start(name).name, str(start(name)))
    )
    assert len(code.strip().splitlines()) <= 14
    found = {}
    exec(compile(code, "card", "exec"), found)
    if kind == "sft":
        assert isinstance(found["answer"], str)
        return
    ids = shapes.own_tokens(found["tokenizer"], shapes.whole_text(name, "Hi", "Hello."))
    assert found["inputs"]["input_ids"].tolist() == [ids]
    model, _ = load_reward_model(str(place), new_head=False)
    assert found["reward"] == pytest.approx(shapes.reward(model, ids), abs=1e-5)


def test_the_header_of_the_card_says_where_the_model_comes_from(start, tmp_path):
    shutil.copytree(start("bert"), tmp_path / "known")
    (tmp_path / "known" / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Known\n")
    place = alone("reward", tmp_path / "first", tmp_path / "known")
    said, _ = card_of(place)
    assert said["license"] == "apache-2.0" == licence_of(str(place))
    assert (said["base_model"], said["base_model_relation"], said["library_name"]) == ("known", "adapter", "peft")
    assert train("reward", tmp_path / "second", start("gpt2")) == 0
    said, _ = card_of(tmp_path / "second" / "run" / "model")
    assert (said["license"], said["base_model_relation"], said["library_name"]) == (
        "unknown",
        "finetune",
        "transformers",
    )


def test_an_exported_encoder_is_exported_for_a_judge_with_its_special_tokens_once(start, tmp_path):
    """Its folder has a chat template that writes them, and so has its tokenizer."""
    assert train("reward", tmp_path, start("bert")) == 0
    done = export_model(str(tmp_path / "run" / "model"), Tool.REWARDBENCH, tmp_path / "out", {"suite": SUITE})
    assert done.agreement.same + done.agreement.longer >= done.agreement.answers
    chat = [*SUITE[0].prompt, {"role": "assistant", "content": "red"}]
    tokenizer = tf.AutoTokenizer.from_pretrained(tmp_path / "out" / "model")
    ids = tokenizer(tokenizer.apply_chat_template(chat, tokenize=False))["input_ids"]
    assert (ids.count(tokenizer.cls_token_id), ids.count(tokenizer.sep_token_id)) == (1, 1)
