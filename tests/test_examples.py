"""The example runs as printed, and its step is the gradient of the worst case of its whole batch."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from dro_core import parse_ambiguity, robust_loss
from llm.data.corpus.corpus import write_corpus

EXAMPLE = Path(__file__).parents[1] / "examples" / "robust_reward.py"


@pytest.fixture(scope="module")
def example():
    return runpy.run_path(str(EXAMPLE))


@pytest.mark.slow("it trains")
def test_it_trains_and_judges_on_the_corpus(example, tmp_path, capsys, monkeypatch):
    write_corpus(tmp_path / "corpus", train=64, test=20)
    files = [str(tmp_path / "corpus" / f"{name}.jsonl") for name in ("train", "id_test", "ood_shifted_mixture")]
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), *files, "--steps", "20", "--batch", "16"])
    example["main"]()
    said = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in said] == ["step 20", *files[1:]]
    assert all(line.endswith("% of 20 pairs") for line in said[1:])


def test_its_step_is_the_gradient_of_the_worst_case_of_the_whole_batch(example):
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    quiet = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = BertForSequenceClassification(BertConfig(vocab_size=256, num_labels=1, pad_token_id=0, **shape, **quiet))
    batch = [(f"question {i}\nright", f"question {i}\nwrong {'!' * (i % 5)}") for i in range(40)]  # three micro-batches
    ball = parse_ambiguity("tv:0.3")
    weights = example["robust_step"](model, batch, ball)
    found = [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]
    model.zero_grad()
    robust_loss(example["losses"](model, batch), ball).backward()
    whole = [weight.grad for weight in model.parameters() if weight.grad is not None]
    assert weights.sum().item() == pytest.approx(1.0, abs=1e-6)
    for one, other in zip(found, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_it_needs_torch_transformers_and_dro_core_alone():
    text = EXAMPLE.read_text()
    assert len(text.splitlines()) <= 100
    assert "llm" not in [
        line.split()[1].split(".")[0] for line in text.splitlines() if line.startswith(("import", "from"))
    ]
