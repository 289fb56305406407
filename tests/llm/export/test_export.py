"""Exports, read the way the other tools read them: lm_eval itself, RewardBench's steps written down after its source.

RewardBench 0.1.4 cannot be installed beside transformers 5. What it does to a model, with the flags that the export
names: AutoTokenizer, apply_chat_template(tokenize=False), padding and truncation on the left, one forward pass.
"""

from __future__ import annotations

import copy
import json
import logging

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
)

from llm.data.corpus.corpus import generate
from llm.data.pairs import Pair, write_pairs
from llm.export.export import Tool, export_model
from llm.export.transformers_4 import OldConfigError, write_for_version_4
from llm.judging.margins import policy_margins, score_pairs
from llm.models.loading import load_policy, load_reward_model, tiny_policy, tiny_reward_model
from llm.models.logprobs import answer_logps
from llm.text.chat_templates import PLAIN, framed_template
from llm.text.encoding import encode_pairs
from robust_rlhf import main

LENGTH = 64
CHAT = "{{ bos_token }}{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{{ eos_token }}\n{% endfor %}"
CHATS = {
    "plain": None,
    "frame in the template": "\n" + CHAT + "{% if add_generation_prompt %}<assistant>{% endif %}\n",
    "no frame": "{% for m in messages %}\n<{{ m['role'] }}>{{ m['content'] }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}",
}


def message(role, content):
    return {"role": role, "content": content}


ODD = Pair(
    "odd",
    (message("user", " a\nb "), message("assistant", "{{ok}}\n"), message("user", "é? <b>")),
    chosen="\n\nhello  ",
    rejected="no\n",
)
SYSTEM = Pair("system", (message("system", "Be kind."), message("user", "Hi")), chosen="yes", rejected="no")
PAIRS = [*generate(40, seed=5), ODD]
TEXTS = [text for pair in PAIRS for text in (pair.prompt[-1]["content"], pair.chosen, pair.rejected)]


def spread(model, seed=0):
    """Random matrices, large enough that answers differ."""
    torch.manual_seed(seed)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(0, 0.2)
    return model


def saved(model, tokenizer, folder):
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_policy(TEXTS, max_length=LENGTH)[1]


@pytest.fixture(scope="module")
def rewards(tmp_path_factory):
    """The tiny reward model, a causal one without its own last token, one that counts positions from the left."""
    root = tmp_path_factory.mktemp("rewards")
    tiny, encoder = tiny_reward_model(TEXTS, max_length=LENGTH)
    encoder.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]  # more than the model takes
    encoder.init_kwargs["model_input_names"] = encoder.model_input_names
    saved(spread(tiny), encoder, root / "tiny")
    words, small = copy.deepcopy(tiny_policy(TEXTS, max_length=LENGTH)[1]), {"hidden_size": 32, "num_labels": 1}
    small |= {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": len(words)}
    bert = BertConfig(**small, max_position_embeddings=128, pad_token_id=words.pad_token_id)
    saved(spread(BertForSequenceClassification(bert)), encoder, root / "bert")
    words.backend_tokenizer.post_processor = None
    words.chat_template = CHATS["no frame"]
    llama = LlamaConfig(
        **small, pad_token_id=words.pad_token_id, rope_parameters={"rope_theta": 5e3, "rope_type": "default"}
    )
    saved(spread(LlamaForSequenceClassification(llama)), words, root / "llama")
    return root


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
    assert (done.agreement.answers, done.agreement.same, done.agreement.longer) == (4, 3, 3)


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
    encoded, template = encode_pairs([*PAIRS, SYSTEM], tokenizer, max_length=4096), framed_template(tokenizer)
    for row, pair in enumerate([*PAIRS, SYSTEM]):
        for side in ("chosen", "rejected"):
            whole = [*pair.prompt, message("assistant", getattr(pair, side))]
            text = tokenizer.apply_chat_template(whole, chat_template=template, tokenize=False)
            assert tokenizer(text)["input_ids"] == encoded[row][side]


def test_plain_template_waits_for_an_answer(tokenizer):
    text = tokenizer.apply_chat_template(
        [message("user", "Hi")], chat_template=PLAIN, add_generation_prompt=True, tokenize=False
    )
    assert text == "User: Hi\n\nAssistant:"


# lm-eval


@pytest.fixture(scope="module")
def policies(tmp_path_factory, tokenizer):
    root = tmp_path_factory.mktemp("policies")
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = LlamaConfig(**small, vocab_size=len(tokenizer), pad_token_id=0, bos_token_id=1, eos_token_id=2)
    for seed, name in enumerate(("policy", "reference")):
        saved(spread(LlamaForCausalLM(config), seed), tokenizer, root / name)
    return root


def likelihood(model, batch):
    chosen, rejected = answer_logps(model, batch).chunk(2)
    return chosen - rejected


def by_lm_eval(folder, monkeypatch):
    """Accuracy and margins by pair, as lm_eval finds them with the flags that the export names."""
    lm_eval = pytest.importorskip("lm_eval", reason="lm_eval is not installed (extra `judges`)")
    from lm_eval.tasks import TaskManager

    monkeypatch.chdir(folder)
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    found = lm_eval.simple_evaluate(
        model="hf",
        model_args="pretrained=model,device=cpu",
        tasks=["robust_rlhf"],
        task_manager=TaskManager(include_path="tasks", include_defaults=False),
        batch_size=16,
        bootstrap_iters=0,
        log_samples=True,
    )
    margins = {}
    for sample in found["samples"]["robust_rlhf_suite"]:
        scores = [float(reply[0]) for reply in sample["filtered_resps"]]
        label = sample["doc"]["label"]
        margins[sample["doc"]["id"]] = scores[label] - scores[1 - label]
    return found["results"]["robust_rlhf_suite"]["acc,none"], np.array([margins[pair.id] for pair in PAIRS])


@pytest.mark.filterwarnings("ignore")  # of the many packages that lm_eval imports
def test_lm_eval_gives_our_accuracy_and_margins(policies, tmp_path, monkeypatch):
    """By log-likelihood; the difference of two policies' answers are the margins of DPO."""
    accuracies, theirs, ours, loaded = {}, {}, {}, {}
    for name in ("policy", "reference"):
        export_model(str(policies / name), Tool.LM_EVAL, tmp_path / "export", {"suite": PAIRS})
        moved = (tmp_path / "export").rename(tmp_path / name)
        accuracies[name], theirs[name] = by_lm_eval(moved, monkeypatch)
        loaded[name], tokenizer = load_policy(str(policies / name))
        ours[name] = score_pairs(loaded[name], tokenizer, PAIRS, max_length=512, margin_of=likelihood)
        np.testing.assert_allclose(theirs[name], ours[name], atol=1e-5 * np.abs(ours[name]).max())
        assert accuracies[name] == pytest.approx(np.mean(ours[name] > 0))
    judge = policy_margins(loaded["reference"], beta=0.1)
    implicit = score_pairs(loaded["policy"], tokenizer, PAIRS, max_length=512, margin_of=judge)
    np.testing.assert_allclose(0.1 * (theirs["policy"] - theirs["reference"]), implicit, atol=1e-5)


def test_label_is_no_matter_of_place(policies, tmp_path):
    """A tool that always takes the first answer is right half of the time."""
    pairs = generate(200, seed=9)
    export_model(str(policies / "policy"), Tool.LM_EVAL, tmp_path / "out", {"suite": pairs})
    rows = [json.loads(line) for line in (tmp_path / "out" / "tasks" / "suite.jsonl").read_text().splitlines()]
    assert 70 < sum(row["label"] for row in rows) < 130
    for row, pair in zip(rows, pairs, strict=True):
        assert pair.chosen in row["answers"][row["label"]]


def test_policy_for_rewardbench_has_its_reference_beside_it(policies, tmp_path):
    """Its DPO code puts first and last token around what the template gives, and takes the prompt off by its text."""
    args = (str(policies / "policy"), Tool.REWARDBENCH, tmp_path / "out", {"suite": PAIRS})
    export_model(*args, reference=str(policies / "reference"))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out" / "model")
    encoded = encode_pairs(PAIRS, load_policy(str(policies / "policy"))[1], max_length=4096)
    for row, pair in enumerate(PAIRS):
        prompt = tokenizer.apply_chat_template(list(pair.prompt), tokenize=False)
        whole = tokenizer.apply_chat_template([*pair.prompt, message("assistant", pair.chosen)], tokenize=False)
        parts = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, whole.replace(prompt, ""))]
        assert [tokenizer.bos_token_id, *parts[0], *parts[1], tokenizer.eos_token_id] == encoded[row]["chosen"]
    kept, original = (
        AutoModelForCausalLM.from_pretrained(folder).state_dict()
        for folder in (tmp_path / "out" / "reference", policies / "reference")
    )
    assert all(torch.equal(kept[name], original[name]) for name in original)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft asks for it
def test_adapter_alone_becomes_a_whole_model(policies, tmp_path):
    peft = pytest.importorskip("peft")
    base = AutoModelForCausalLM.from_pretrained(policies / "policy")
    base.name_or_path = base.config._name_or_path = str(policies / "policy")
    adapted = peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    spread(adapted.base_model.model.model.layers[0].self_attn.q_proj.lora_B)
    saved(adapted, AutoTokenizer.from_pretrained(policies / "policy"), tmp_path / "adapter")
    assert not (tmp_path / "adapter" / "config.json").exists()
    export_model(str(tmp_path / "adapter"), Tool.LM_EVAL, tmp_path / "out", {"suite": PAIRS})
    whole, ids = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "model"), torch.arange(20)[None]
    start = AutoModelForCausalLM.from_pretrained(policies / "policy")(ids).logits
    expected = adapted.eval()(ids).logits
    torch.testing.assert_close(whole(ids).logits, expected, atol=1e-5, rtol=1e-5)
    assert (start - expected).abs().max() > 1e-3


def test_command_takes_a_run_folder_and_its_reference(policies, tmp_path, capsys):
    """What training leaves: model/, reference/, settings.json."""
    (tmp_path / "run").mkdir()
    (policies / "policy").rename(tmp_path / "run" / "model")
    try:
        (tmp_path / "run" / "reference").symlink_to(policies / "reference")
        write_pairs(PAIRS, tmp_path / "suite.jsonl")
        out = ["-o", str(tmp_path / "out"), "--suite", str(tmp_path / "suite.jsonl"), "--eval-pairs", "5"]
        assert main(["export", str(tmp_path / "run"), "--to", "rewardbench", *out]) == 0
        assert "--ref_model reference" in capsys.readouterr().out
        assert len((tmp_path / "out" / "suites" / "suite.jsonl").read_text().splitlines()) == 5
    finally:
        (tmp_path / "run" / "model").rename(policies / "policy")


@pytest.mark.parametrize(
    ("model", "flags", "said"),
    [
        ("rewards/tiny", ["--to", "lm-eval"], "likelihood"),
        ("policies/policy", ["--to", "lm-eval"], "at least one suite"),
        ("policies/policy", ["--to", "rewardbench"], "--reference"),
        ("unfinished", ["--to", "rewardbench"], "no finished model"),
        ("nowhere", ["--to", "rewardbench"], "nowhere"),
        ("rewards/tiny", ["--to", "rewardbench", "--eval-pairs", "0"], "at least 1"),
        ("rewards/tiny", ["--to", "rewardbench", "-o", "full"], "already has content"),
    ],
)
def test_what_cannot_be_exported_gets_one_sentence(rewards, policies, tmp_path, capsys, model, flags, said):
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "settings.json").write_text("{}")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("kept")
    known = {"rewards": rewards, "policies": policies}
    root, _, name = model.rpartition("/")
    place = str(known[root] / name) if root else str(tmp_path / name)
    flags = [str(tmp_path / "full") if flag == "full" else flag for flag in flags]
    output = [] if "-o" in flags else ["-o", str(tmp_path / "out")]
    assert main(["export", place, *flags, *output]) == 2
    words = capsys.readouterr().err.strip().splitlines()[-1]
    assert words.startswith("robust-rlhf: ")
    assert said in words
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "full" / "mine.txt").read_text() == "kept"
