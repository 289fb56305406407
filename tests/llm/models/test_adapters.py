"""Adapters as they are found: of other makers and days, without their base, their head or their tokenizer."""

from __future__ import annotations

import json
import shutil

import numpy as np
import peft
import pytest
import shapes
import torch
import transformers as tf
from loaded_models import alone, copied, margins, quiet, starts, train
from safetensors.torch import load_file, save_file

from llm.models.loading import ModelError, is_policy, load_policy, load_reward_model

pytestmark = quiet


@pytest.fixture(scope="module")
def start(once):
    return starts(once)


@pytest.fixture(scope="module")
def adapters(once, start):
    """One of a reward model, on DeBERTa; one of a policy, on Llama."""

    def build(folder):
        alone("reward", folder / "reward", start("deberta"))
        alone("sft", folder / "sft", start("llama"))

    folder = once("adapters-alone", build)
    return {name: folder / name / "run" / "model" for name in ("reward", "sft")}


def test_all_trainers_go_on_from_an_adapter(adapters, tmp_path):
    """With all weights, frozen only where an architecture freezes some itself."""
    for kind, adapter in (("reward", "reward"), ("sft", "sft"), ("dpo", "sft"), ("policy", "sft")):
        start, more = adapters[adapter], []
        if kind == "policy":
            more = ["--reward_model", str(tmp_path / "reward" / "run" / "model"), "--max_new_tokens", "4"]
            more += ["--samples", "2", "--prompts_per_step", "4"]
        assert train(kind, tmp_path / kind, start, *more) == 0
        begun, ended = (
            (load_reward_model if kind == "reward" else load_policy)(str(place))[0]
            for place in (start, tmp_path / kind / "run" / "model")
        )
        moved = [not torch.equal(a, b) for a, b in zip(begun.parameters(), ended.parameters(), strict=True)]
        assert sum(moved) > len(moved) / 2


def test_an_adapter_on_an_adapter_is_merged_and_cannot_stand_alone(adapters, tmp_path, capsys):
    assert train("sft", tmp_path / "alone", adapters["sft"], "--lora_rank", "2", "--merge_adapter", "false") == 2
    assert "keep merge_adapter" in capsys.readouterr().err
    assert not (tmp_path / "alone" / "run").exists()
    assert train("sft", tmp_path / "merged", adapters["sft"], "--lora_rank", "2", "--learning_rate", "0") == 0
    np.testing.assert_allclose(margins(tmp_path / "merged" / "run" / "model"), margins(adapters["sft"]), atol=1e-4)


def test_the_base_is_found_from_anywhere(adapters, start, tmp_path, monkeypatch):
    """Its whole path stands in the settings; in older ones, the path from where the run was started."""
    settings = json.loads((adapters["sft"] / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(start("llama").resolve())
    expected = margins(adapters["sft"])
    shutil.copytree(start("llama"), tmp_path / "place" / "models" / "base")
    (tmp_path / "place" / "runs").mkdir()
    older = copied(adapters["sft"], tmp_path / "place" / "runs" / "model", base_model_name_or_path="models/base")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    np.testing.assert_allclose(margins(older), expected, atol=1e-6)
    monkeypatch.chdir(tmp_path / "place")
    relative = alone("sft", tmp_path / "run", "models/base")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert np.isfinite(margins(relative)).all()


def test_an_adapter_is_not_put_on_what_its_base_has_become(start, tmp_path):
    """Other weights of the same shape, at the same place: nothing but their content tells."""
    base = tmp_path / "base"
    shutil.copytree(start("llama"), base)
    adapter = alone("sft", tmp_path, base)
    before = margins(adapter)
    model, _ = load_policy(str(base))
    with torch.no_grad():
        next(iter(model.parameters())).add_(0.5)
    model.save_pretrained(base)
    with pytest.raises(ModelError, match=r"trained on another model than .*base is now"):
        load_policy(str(adapter))
    for file in start("llama").iterdir():
        shutil.copy(file, base)
    np.testing.assert_array_equal(margins(adapter), before)
    (adapter.parent / "settings.json").unlink()  # of an adapter made elsewhere nobody knows
    model.save_pretrained(base)
    assert not np.array_equal(margins(adapter), before)


def test_an_adapter_brings_its_tokenizer_or_takes_that_of_its_base(adapters, start, tmp_path):
    own = copied(adapters["sft"], tmp_path / "own")
    tokenizer = tf.AutoTokenizer.from_pretrained(own)
    tokenizer.chat_template, tokenizer.model_max_length = shapes.CHATML, 33
    tokenizer.pad_token = "<s>"
    tokenizer.save_pretrained(own)
    model, found = load_policy(str(own))
    assert (found.chat_template, found.model_max_length, found.pad_token) == (shapes.CHATML, 33, "<s>")
    assert model.config.pad_token_id == found.pad_token_id == 0
    bare = copied(adapters["sft"], tmp_path / "bare")
    for file in [*bare.glob("tokenizer*"), *bare.glob("*.jinja")]:
        file.unlink()
    assert (
        load_policy(str(bare))[1].model_max_length == tf.AutoTokenizer.from_pretrained(start("llama")).model_max_length
    )


def test_an_adapter_without_a_task_is_of_the_kind_of_its_base(adapters, tmp_path):
    assert is_policy(str(copied(adapters["sft"], tmp_path / "unsaid", task_type=None)))


def test_an_adapter_with_added_tokens_brings_its_embedding(start, tmp_path):
    """As chat formats are added elsewhere: two tokens more, embeddings stored beside the matrices."""
    base, tokenizer = (
        tf.AutoModelForCausalLM.from_pretrained(start("qwen")),
        tf.AutoTokenizer.from_pretrained(start("qwen")),
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|a|>", "<|b|>"]})
    base.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    settings = peft.LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", r=2, init_lora_weights=False)
    adapted = peft.get_peft_model(base, settings)
    adapted.save_pretrained(tmp_path / "adapter", save_embedding_layers=True)
    tokenizer.save_pretrained(tmp_path / "adapter")
    model, found = load_policy(str(tmp_path / "adapter"))
    ids = found("x<|a|>y<|b|>z", return_tensors="pt")["input_ids"]
    assert int(ids.max()) == len(found) - 1
    torch.testing.assert_close(model(ids).logits, adapted.eval()(ids).logits, atol=1e-5, rtol=1e-5)


def test_older_adapters_without_the_whole_head_are_judged_as_what_they_are(adapters, start, tmp_path):
    """The layers that the adapter lacks would be drawn anew at every load: noise is no score, but it is a start."""
    weights = load_file(adapters["reward"] / "adapter_model.safetensors")
    assert {"base_model.model.pooler.dense.weight", "base_model.model.classifier.weight"} <= weights.keys()
    base = tf.AutoModelForSequenceClassification.from_pretrained(start("deberta"), num_labels=1)
    settings = peft.LoraConfig(task_type="SEQ_CLS", target_modules="all-linear", r=2)
    older = tmp_path / "older"
    peft.get_peft_model(base, settings).save_pretrained(older)
    weights = load_file(older / "adapter_model.safetensors")
    assert {"base_model.model.pooler.dense.lora_A.weight", "base_model.model.classifier.weight"} <= weights.keys()
    with pytest.raises(ModelError, match=r"neither the adapter nor its base model holds pooler\.dense\.bias.*train it"):
        margins(older)
    assert load_reward_model(str(older))[0].num_labels == 1
    bert = alone("reward", tmp_path / "bert", start("bert"))
    before = margins(bert)
    margins(copied(bert, tmp_path / "same", modules_to_save=["classifier", "score"]))
    np.testing.assert_array_equal(margins(tmp_path / "same"), before)


def test_weights_that_the_base_lacks_are_in_the_adapter(start, tmp_path):
    """A pooler inside the trunk, which models for masked words come without."""
    tokenizer = shapes.tokenizer_of("bert")
    torch.manual_seed(0)
    tf.BertForMaskedLM(shapes.SHAPES["bert"].config(tokenizer)).save_pretrained(tmp_path / "masked")
    tokenizer.save_pretrained(tmp_path / "masked")
    place = alone("reward", tmp_path / "run", tmp_path / "masked")
    torch.manual_seed(1)
    first = margins(place)
    torch.manual_seed(2)
    np.testing.assert_array_equal(margins(place), first)


def test_an_adapter_that_lost_weights_is_refused(adapters, tmp_path):
    broken = copied(adapters["sft"], tmp_path / "broken")
    weights = load_file(broken / "adapter_model.safetensors")
    del weights[next(iter(weights))]
    save_file(weights, broken / "adapter_model.safetensors")
    with pytest.raises(ModelError, match=r"does not fit.*missing adapter keys"):
        load_policy(str(broken))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"r": 3}, "does not fit"),
        ({"base_model_name_or_path": ""}, "without the name of its base"),
        ({"base_model_name_or_path": "gone"}, "gone"),
        (
            {"base_model_name_or_path": "/gone/base"},
            "for /gone/base, which is not there: write where",
        ),
        ({"base_model_name_or_path": None}, "without the name of its base"),
    ],
)
def test_a_broken_adapter_gets_one_sentence(adapters, tmp_path, change, said):
    with pytest.raises(ModelError, match=said):
        load_policy(str(copied(adapters["sft"], tmp_path / "broken", **change)))


def test_an_adapter_for_itself_is_no_endless_search(adapters, tmp_path):
    itself = tmp_path / "itself"
    with pytest.raises(ModelError, match="for itself"):
        load_policy(str(copied(adapters["sft"], itself, base_model_name_or_path=str(itself))))


@pytest.mark.parametrize(("name", "target"), [("llama", "embed_tokens"), ("llama", "lm_head"), ("gpt2", "wte")])
def test_half_of_a_tied_weight_gets_no_adapter(start, tmp_path, capsys, name, target):
    assert train("sft", tmp_path / "run", start(name), "--lora_rank", "2", "--lora_targets", target) == 2
    assert f"lora_targets {target} does not fit this model" in capsys.readouterr().err
    model = tf.AutoModelForCausalLM.from_pretrained(start(name))
    peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", target_modules=[target])).save_pretrained(
        tmp_path / "adapter"
    )
    with pytest.raises(ModelError, match="share one weight"):
        load_policy(str(tmp_path / "adapter"))
