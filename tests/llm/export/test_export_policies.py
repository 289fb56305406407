"""Exports of policies, read by lm_eval itself and by RewardBench's steps, and what cannot be exported."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import torch
from exported_models import LENGTH, PAIRS, TEXTS, message, save_rewards, saved, spread
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from llm.data.corpus.corpus import generate
from llm.data.pairs import write_pairs
from llm.export.export import Tool, export_model
from llm.judging.margins import policy_margins, score_pairs
from llm.models.loading import load_policy, tiny_policy
from llm.models.logprobs import answer_logps
from llm.text.encoding import encode_pairs
from robust_rlhf import main


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_policy(TEXTS, max_length=LENGTH)[1]


@pytest.fixture(scope="module")
def rewards(once):
    return once("rewards-to-export", save_rewards)


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
