"""Models as they are found: adapters of other makers and days, nested configurations, odd tokenizers and heads."""

from __future__ import annotations

import json
import shutil

import numpy as np
import peft
import pytest
import shapes
import torch
import transformers as tf
import yaml
from safetensors.torch import load_file, save_file
from test_saved_models import SUITE, TRAIN

from llm.data.pairs import write_pairs
from llm.export.export import Tool, export_model
from llm.judging.margins import likelihood_margins, score_pairs
from llm.models.architectures import check_length, position_limit, reading_length
from llm.models.loading import ModelError, is_policy, load_policy, load_reward_model
from llm.models.usage import licence_of
from llm.training.guards import live_dropout
from robust_rlhf import main

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Model .* `tie_word_embeddings=True`:UserWarning"),
    pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers` to `True`:UserWarning"),
]


@pytest.fixture(scope="module")
def start(once):
    """``start(name)``: a pretrained model; shared with the matrix of saved models."""
    return lambda name: once(f"shape-{name}-right", lambda folder: shapes.save_start(name, folder))


def train(kind, folder, model, *flags):
    """One short run in ``folder``; its exit status."""
    folder.mkdir(exist_ok=True)
    write_pairs(TRAIN, folder / "train.jsonl")
    told = {
        "config": f"{kind}-tiny", "model": model, "train_file": folder / "train.jsonl", "output_dir": folder / "run",
        "max_length": 48, "max_steps": 2, "learning_rate": 0.02, "plain_share": 0, "save_strategy": "no",
        "disable_tqdm": True, "use_cpu": True,
    }  # fmt: skip
    more = ["--per_device_train_batch_size", "8"] if kind != "policy" else []
    argv = [text for name, value in told.items() for text in (f"--{name}", str(value))]
    return main(["train", kind, *argv, *more, *flags])


def alone(kind, folder, model):
    """The folder of an adapter, exported alone."""
    assert train(kind, folder, model, "--lora_rank", "2", "--merge_adapter", "false") == 0
    return folder / "run" / "model"


def margins(place):
    """By the loading and scoring of every command."""
    if is_policy(str(place)):
        return score_pairs(*load_policy(str(place)), SUITE, max_length=48, margin_of=likelihood_margins)
    return score_pairs(*load_reward_model(str(place), new_head=False), SUITE, max_length=48)


@pytest.fixture(scope="module")
def adapters(once, start):
    """One of a reward model, on DeBERTa; one of a policy, on Llama."""

    def build(folder):
        alone("reward", folder / "reward", start("deberta"))
        alone("sft", folder / "sft", start("llama"))

    folder = once("adapters-alone", build)
    return {name: folder / name / "run" / "model" for name in ("reward", "sft")}


def copied(adapter, folder, **settings):
    """The adapter somewhere else, with other entries in its settings."""
    shutil.copytree(adapter, folder)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return folder


# Adapters


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


# Configurations, positions, heads


def test_nested_configurations_are_told_too(start):
    """Dropout, padding token and limit stand in the part of the text model."""
    for load in (load_policy, load_reward_model):
        model, tokenizer = load(str(start("gemma3")))
        assert model.config.text_config.pad_token_id == tokenizer.pad_token_id == 0
        assert model.config.text_config.attention_dropout == 0.0
        assert not live_dropout(model)
        assert live_dropout(load(str(start("gemma3")), disable_dropout=False)[0])
        assert reading_length(model, tokenizer) == 94
        tokenizer.model_max_length = 10**9
        assert reading_length(model, tokenizer) == 96
        with pytest.raises(ModelError, match="at most 96 tokens"):
            check_length(model, 97)


@pytest.mark.parametrize(("name", "limit"), [("bert", 96), ("roberta", 94), ("distilbert", 96), ("gpt2", 96)])
def test_as_many_tokens_as_there_are_positions_are_read(start, name, limit):
    """The first two of RoBERTa's belong to padding; batches are filled up to the limit and no further."""
    model, tokenizer = load_reward_model(str(start(name)))
    assert position_limit(model) == limit
    long = [type(pair)(pair.id, pair.prompt, pair.chosen * 9, pair.rejected) for pair in SUITE]
    together, single = (score_pairs(model, tokenizer, long, max_length=limit, batch_size=n) for n in (32, 1))
    np.testing.assert_allclose(together, single, atol=1e-5)
    with torch.no_grad(), pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, limit + 1), 20), attention_mask=torch.ones(1, limit + 1, dtype=torch.long))


@pytest.mark.parametrize("kind", ["reward", "dpo"])
def test_tokens_beyond_the_embedding_are_named(start, tmp_path, capsys, kind):
    shutil.copytree(start("llama"), tmp_path / "start")
    tokenizer = tf.AutoTokenizer.from_pretrained(tmp_path / "start")
    tokenizer.add_special_tokens({"pad_token": "<|new|>"})
    tokenizer.save_pretrained(tmp_path / "start")
    assert train(kind, tmp_path / "run", tmp_path / "start") == 2
    assert "'<|new|>'" in capsys.readouterr().err
    tokenizer.add_tokens(["<|turn|>"], special_tokens=True)
    tokenizer.pad_token, tokenizer.chat_template = "</s>", "{{ '<|turn|>' + messages[0].content }}"
    tokenizer.save_pretrained(tmp_path / "start")
    with pytest.raises(ModelError, match=r"'<\|turn\|>' .*resize_token_embeddings"):
        load_policy(str(tmp_path / "start"))


def test_a_classifier_of_two_labels_gives_its_trunk(start, tmp_path, capsys):
    """It has no reward; training draws a head of one output, which is what it saves."""
    tokenizer = shapes.tokenizer_of("electra")
    config = shapes.SHAPES["electra"].config(tokenizer)
    config.num_labels = 2
    torch.manual_seed(0)
    two = tf.AutoModelForSequenceClassification.from_config(config)
    two.save_pretrained(tmp_path / "two")
    tokenizer.save_pretrained(tmp_path / "two")
    with pytest.raises(ModelError, match=r"no whole reward head, it lacks classifier\.out_proj"):
        margins(tmp_path / "two")
    model, _ = load_reward_model(str(tmp_path / "two"))
    torch.testing.assert_close(model.classifier.dense.weight, two.classifier.dense.weight)
    place = alone("reward", tmp_path / "run", tmp_path / "two")
    np.testing.assert_array_equal(margins(place), margins(place))


def test_weights_of_another_trunk_are_no_start(start, tmp_path):
    shutil.copytree(start("bert"), tmp_path / "start")
    path = tmp_path / "start" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"intermediate_size": 20}))
    with pytest.raises(ModelError, match="another shape"):
        load_reward_model(str(tmp_path / "start"))


# What others find in the folder


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


READ_PADDING = {
    "XLNet": {"d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 24},
    "ConvBert": {"conv_kernel_size": 3},
    "FNet": {},
    "MobileBert": {"embedding_size": 16},
}


@pytest.mark.parametrize("name", READ_PADDING)
def test_classifiers_that_read_padding_are_refused(tmp_path, capsys, name):
    """XLNet scores the last column, the others mix columns whatever the mask says: a row depends on its batch mates."""
    tokenizer = shapes.tokenizer_of("roberta")
    sizes = {} if name == "XLNet" else shapes.SIZES
    sizes |= READ_PADDING[name] | {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    torch.manual_seed(0)
    model = getattr(tf, f"{name}ForSequenceClassification")(getattr(tf, f"{name}Config")(**sizes, num_labels=1))
    for weight in model.parameters():  # pretrained models have something at the padding token
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.3)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    row, pad = tokenizer("a text")["input_ids"], [tokenizer.pad_token_id] * 8
    with torch.no_grad():
        alone = model.eval()(input_ids=torch.tensor([row])).logits.item()
        mask = torch.tensor([[1] * len(row) + [0] * len(pad)])
        among = model(input_ids=torch.tensor([row + pad]), attention_mask=mask).logits.item()
    assert abs(alone - among) > 0.01 * abs(alone)
    write_pairs(SUITE, tmp_path / "suite.jsonl")
    for run in (
        lambda: main(["evaluate", str(tmp_path / "model"), "--suite", str(tmp_path / "suite.jsonl")]),
        lambda: train("reward", tmp_path, tmp_path / "model"),
    ):
        assert run() == 2
        assert f"{name}ForSequenceClassification reads padding" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
