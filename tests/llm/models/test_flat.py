"""Sequences in one row without padding: the numbers of padded batches, no sight of each other, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import shapes
import torch
from loaded_models import TRAIN, quiet, starts, train

from llm.models.flat import check_flat, flat_answer_logps, flat_rewards
from llm.models.loading import ModelError, load_policy, load_reward_model
from llm.models.logprobs import answer_logps
from llm.text.batches import PairCollator
from llm.text.encoding import encode_pairs

pytestmark = quiet
CAUSAL = sorted(shapes.DECODERS)


@pytest.fixture(scope="module")
def start(once):
    return starts(once)


def loaded(start, name, *, policy, attention="sdpa"):
    """A model, and pairs of it as one padded batch."""
    model, tokenizer = (load_policy if policy else load_reward_model)(str(start(name)), attn_implementation=attention)
    pairs = encode_pairs(TRAIN, tokenizer, max_length=48)
    return model, tokenizer, PairCollator(tokenizer)([pairs[row] for row in range(len(pairs))])


@pytest.mark.parametrize("attention", ["sdpa", pytest.param("eager", marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize(
    "name",
    [name if name in ("llama", "gemma3") else pytest.param(name, marks=pytest.mark.exhaustive) for name in CAUSAL],
)
def test_numbers_and_gradients_are_those_of_the_padded_batch(start, name, attention):
    for policy, flat in ((True, flat_answer_logps), (False, flat_rewards)):
        model, tokenizer, batch = loaded(start, name, policy=policy, attention=attention)
        assert not batch["attention_mask"].all()  # there is padding
        check_flat(model, tokenizer, flat)
        found = []
        for read in (flat, answer_logps if policy else rewards):
            model.zero_grad()
            numbers = read(model, batch)
            (numbers * torch.linspace(-1, 1, len(numbers))).sum().backward()
            gradient = torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])
            found.append((numbers.detach(), gradient))
        (numbers, gradient), (right, right_gradient) = found
        torch.testing.assert_close(numbers, right, rtol=1e-4, atol=1e-4)
        assert (gradient - right_gradient).norm() < 1e-4 * right_gradient.norm()


def rewards(model, batch):
    """Of transformers itself."""
    return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, 0]


@pytest.mark.parametrize("policy", [True, False])
def test_no_sequence_sees_another(start, policy):
    """The number of a sequence has no gradient at all in the embeddings of another, before it or behind."""
    model, _, batch = loaded(start, "llama", policy=policy)
    flat, seen = flat_answer_logps if policy else flat_rewards, []

    def keep(module, given, output):
        output.retain_grad()
        seen.append(output)

    hook = model.get_input_embeddings().register_forward_hook(keep)
    row = 5
    flat(model, batch)[row].backward()
    hook.remove()
    moved = seen[0].grad[0].abs().sum(dim=1)
    owner = batch["attention_mask"].bool().nonzero()[:, 0]
    assert moved[owner == row].max() > 0
    assert moved[owner != row].max() == 0


def test_a_model_whose_attention_lets_sequences_see_each_other_is_refused(start):
    """Told that no sequence ends, transformers makes no mask: what the check must see by itself."""
    model, tokenizer, _ = loaded(start, "llama", policy=True)
    forward = type(model.model).forward

    def as_one(self, *args, position_ids=None, **kwargs):
        if position_ids is not None:
            kwargs["attention_mask"] = torch.ones_like(position_ids)
        return forward(self, *args, position_ids=position_ids, **kwargs)

    model.model.forward = as_one.__get__(model.model)
    with pytest.raises(ModelError, match=r"LlamaForCausalLM with sdpa attention lets texts .* see each other"):
        check_flat(model, tokenizer, flat_answer_logps)


@pytest.mark.parametrize("name", sorted(shapes.ENCODERS))
def test_encoders_are_refused(start, name):
    """Their attention looks both ways over the row, and their head sees one state of it."""
    model, tokenizer, _ = loaded(start, name, policy=False, attention=None)
    with pytest.raises(ModelError, match="padding_free"):
        check_flat(model, tokenizer, flat_rewards)


def history(folder):
    rows = json.loads((folder / "run" / "run.json").read_text())["history"]
    return [row[name] for row in rows for name in ("mean_loss", "robust_loss", "eval_loss") if name in row]


@pytest.mark.parametrize(
    ("kind", "passes"),
    [
        ("dpo", 2),
        *(pytest.param(*row, marks=pytest.mark.exhaustive) for row in (("dpo", 1), ("reward", 1), ("sft", 1))),
    ],
)
def test_a_run_is_the_same_without_padding(start, tmp_path, kind, passes):
    """Under a set, in one pass and in two; DPO with its adapter switched off as the reference."""
    more = ["--ambiguity", "tv:0.2", "--per_device_train_batch_size", str(8 // passes), "--logging_steps", "1"]
    more += ["--gradient_accumulation_steps", str(passes)]
    more += ["--lora_rank", "2", "--lora_targets", "q_proj", "v_proj"] if kind == "dpo" else []
    for name, flag in (("padded", []), ("flat", ["--padding-free"])):
        assert train(kind, tmp_path / name, start("llama"), *more, *flag) == 0
    assert len(history(tmp_path / "flat")) >= 4
    np.testing.assert_allclose(history(tmp_path / "flat"), history(tmp_path / "padded"), rtol=2e-4)


def test_what_padding_free_does_not_go_with(start, tmp_path, capsys):
    for kind, model, more, said in (
        ("dpo", start("llama"), ["--loss", "wdpo:1"], "wdpo reads the embeddings"),
        ("dpo", start("llama"), ["--torch_compile", "true"], "not compiled"),
        ("reward", start("modernbert"), [], "padding_free"),
    ):
        assert train(kind, tmp_path / kind, model, "--padding-free", *more) == 2
        assert said in capsys.readouterr().err.splitlines()[-1]
