"""DPO: log-probabilities, gradients, references and runs, against the plainest code that could do the same."""

from __future__ import annotations

import copy

import pytest
import torch
from robust_trainers import PAIRS, Gradients, arguments, relative_error, seen_rows
from torch.nn.functional import log_softmax, logsigmoid
from transformers import set_seed

from dro_core import parse_ambiguity, robust_loss
from llm.kinds.dpo import DPOTrainer
from llm.kinds.reference import StaleReferenceError, put_reference
from llm.models.adapters import with_adapter
from llm.models.loading import tiny_policy
from llm.models.logprobs import answer_logps
from llm.text.batches import PairCollator
from llm.text.encoding import encode_pairs
from llm.training.config import DPOConfig
from llm.training.losses import GradientPenalised
from llm.training.objectives.table import parse_pair_loss

BETA = 0.7


def begin():
    """A tiny policy, a reference some way from it (losses then differ), the tokenizer, the data.

    In float64: the losses are small differences of large sums, which float32 gives to 5e-6 whoever adds them up.
    """
    set_seed(0)
    model, tokenizer = tiny_policy((pair.chosen + pair.rejected for pair in PAIRS), max_length=96)
    model.double()
    reference = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return (
        model,
        reference.requires_grad_(requires_grad=False),
        tokenizer,
        encode_pairs(PAIRS, tokenizer, max_length=96),
    )


@pytest.fixture(scope="module")
def start():
    return begin()


def plain_logps(model, sequence, span):
    """One sequence at a time, unpadded, the whole softmax."""
    logits = model(input_ids=torch.tensor([sequence])).logits[0]
    scores = log_softmax(logits, dim=-1)
    return sum(scores[i - 1, sequence[i]] for i in range(*span))


def batch_logps(model, batch):
    """The whole effective batch at once, every position through the whole softmax."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    scores = log_softmax(logits, dim=-1).gather(-1, batch["input_ids"][:, 1:, None])[..., 0]
    return (scores * batch["answer_mask"][:, 1:]).sum(dim=1)


def full_gradient(start, rows, spec, loss="sigmoid"):
    model, reference, tokenizer, data = start
    model = copy.deepcopy(model)
    batch = PairCollator(tokenizer)([data[int(i)] for i in rows])
    chosen, rejected = (batch_logps(model, batch) - batch_logps(reference, batch)).chunk(2)
    losses = parse_pair_loss(loss, beta=BETA)(BETA * (chosen - rejected))
    ambiguity = parse_ambiguity(spec)
    (losses.mean() if ambiguity is None else robust_loss(losses, ambiguity)).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def trainer_for(
    start, args, spec, *, reference="model", loss="sigmoid", callbacks=None, model=None, passes="auto", **more
):
    policy, second, tokenizer, data = start
    data = copy.deepcopy(data)
    collator = PairCollator(tokenizer)
    if reference == "precomputed":
        put_reference(second, {"train": data}, collator, args, cache=args.reference_file)
    return DPOTrainer(
        model=copy.deepcopy(model or policy),
        args=args,
        train_dataset=data,
        data_collator=collator,
        ambiguity=parse_ambiguity(spec),
        beta=BETA,
        pair_loss=parse_pair_loss(loss, beta=BETA),
        reference=copy.deepcopy(second) if reference == "model" else None,
        callbacks=callbacks,
        passes=passes,
        **more,
    )


def arguments_with_cache(folder, **kwargs):
    args = arguments(folder, **kwargs)
    args.reference_file = folder / "reference.npz"
    return args


def test_answer_logps_are_those_of_the_whole_softmax(start):
    model, _, tokenizer, data = start
    items = [data[i] for i in range(6)]
    batch = PairCollator(tokenizer)(items)
    expected = [plain_logps(model, item[s], item[f"{s}_span"]) for s in ("chosen", "rejected") for item in items]
    torch.testing.assert_close(answer_logps(model, batch), torch.stack(expected), rtol=1e-5, atol=1e-4)


def test_only_positions_that_predict_answers_reach_the_output_layer(start):
    model, _, tokenizer, data = start
    widths = []
    handle = model.lm_head.register_forward_hook(lambda module, args, output: widths.append(output.shape[1]))
    batch = PairCollator(tokenizer)([data[0]])
    answer_logps(model, batch)
    handle.remove()
    first = min(data[0]["chosen_span"][0], data[0]["rejected_span"][0])
    assert widths == [batch["input_ids"].shape[1] - first + 1]


def test_spans_hold_the_answer_and_its_end_token_unless_it_was_cut(start):
    tokenizer = start[2]
    for length, ends in ((96, True), (32, False)):
        cut = 0
        data = encode_pairs(PAIRS[:4], tokenizer, max_length=length)
        for pair, item in zip(data.pairs, data, strict=True):
            first, end = item["chosen_span"]
            answer = item["chosen"][first:end]
            whole = tokenizer(" " + pair.chosen, add_special_tokens=False)["input_ids"]
            if ends:
                assert answer == [*whole, tokenizer.eos_token_id]
            else:
                assert answer in ([*whole, tokenizer.eos_token_id], whole[: len(answer)])
                cut += answer[-1] != tokenizer.eos_token_id
        assert ends or cut


@pytest.mark.parametrize(
    ("reference", "spec", "micro", "steps"),
    [
        ("model", "tv:0.2", 4, 4),
        pytest.param("model", "kl:0.3", 16, 1, marks=pytest.mark.exhaustive),
        ("model", "erm", 4, 4),
        ("precomputed", "tv:0.2", 16, 1),
        ("precomputed", "kl:0.3", 4, 4),
        pytest.param("precomputed", "tv:0.4", 4, 4, marks=pytest.mark.exhaustive),
    ],
)
def test_gradient_is_that_of_the_full_batch(start, tmp_path, spec, micro, steps, reference):
    gradients = Gradients()
    args = arguments_with_cache(tmp_path, micro=micro, steps=steps)
    trainer = trainer_for(start, args, spec, reference=reference, callbacks=[gradients], passes="two")
    trainer.train()
    rows = seen_rows(trainer)
    assert len(rows) == 16
    kept_in_float32 = 4e-6  # log-probabilities of some -100 nats
    tolerance = kept_in_float32 if reference == "precomputed" else 1e-6
    assert relative_error(gradients.first, full_gradient(start, rows, spec)) <= tolerance


@pytest.mark.parametrize("loss", ["ipo", *[pytest.param(f"{x}dpo:0.1", marks=pytest.mark.exhaustive) for x in "cr"]])
def test_other_losses_have_the_gradient_of_the_full_batch(start, tmp_path, loss):
    gradients = Gradients()
    trainer = trainer_for(start, arguments(tmp_path), "tv:0.3", loss=loss, callbacks=[gradients])
    trainer.train()
    assert relative_error(gradients.first, full_gradient(start, seen_rows(trainer), "tv:0.3", loss)) <= 1e-6


def test_gradient_penalty_is_the_norm_in_the_embeddings_of_each_pair_alone(start, tmp_path):
    model, reference, tokenizer, data = start
    trainer = trainer_for(start, arguments(tmp_path), "tv:0.2", loss="wdpo:0.3")
    batch = PairCollator(tokenizer)([data[i] for i in range(3)])
    found = trainer.example_losses(trainer.model, batch)
    embed = model.get_input_embeddings()
    for row in range(3):
        item, ratios, inputs = data[row], [], []
        for side in ("chosen", "rejected"):
            inputs.append(embed(torch.tensor([item[side]])).detach().requires_grad_())
            scores = log_softmax(model(inputs_embeds=inputs[-1]).logits[0], dim=-1)
            first, end = item[f"{side}_span"]
            logp = sum(scores[i - 1, item[side][i]] for i in range(first, end))
            ratios.append(logp - plain_logps(reference, item[side], (first, end)).detach())
        loss = -logsigmoid(BETA * (ratios[0] - ratios[1]))
        squares = sum(slope.square().sum() for slope in torch.autograd.grad(loss, inputs))
        torch.testing.assert_close(found[row], loss + 0.3 * squares.sqrt())
    found.sum().backward()  # twice differentiable
    assert all(p.grad.isfinite().all() for p in trainer.model.parameters() if p.grad is not None)
    assert isinstance(trainer.pair_loss, GradientPenalised)
    trainer.train()


@pytest.mark.parametrize(("micro", "steps"), [(4, 4), (16, 1)])
def test_a_step_asks_the_reference_once(start, tmp_path, micro, steps):
    trainer = trainer_for(start, arguments(tmp_path, micro=micro, steps=steps), "tv:0.2", passes="two")
    seen = []
    trainer.reference.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(len(kwargs["input_ids"]) // 2), with_kwargs=True
    )
    trainer.train()
    assert seen == [micro] * steps


def test_adapter_switched_off_is_the_reference(start, tmp_path):
    """A new adapter changes nothing, so every margin starts at exactly 0; after training it does not."""
    model = with_adapter(copy.deepcopy(start[0]), DPOConfig(lora_rank=4).adapter(), task="CAUSAL_LM")
    trainer = trainer_for(start, arguments(tmp_path, max_steps=2), "tv:0.2", reference="adapter", model=model)
    batch = PairCollator(start[2])([start[3][i] for i in range(4)])
    assert not trainer.margins(trainer.model, batch).any()
    trainer.train()
    assert trainer.margins(trainer.model, batch).abs().max() > 1e-4
    base, item = start[0], start[3][0]
    expected = plain_logps(base, item["chosen"], item["chosen_span"])
    torch.testing.assert_close(trainer.with_constants(trainer.model, batch)["reference"][0], expected.detach())


def test_dpo_without_a_reference_is_refused(start, tmp_path):
    trainer = trainer_for(start, arguments(tmp_path), "tv:0.2", reference=None)
    with pytest.raises(ValueError, match="needs a reference"):
        trainer.train()


def test_every_pair_gets_its_own_reference(start, tmp_path):
    _, second, tokenizer, _ = start
    data, collator = copy.deepcopy(start[3]), PairCollator(tokenizer)
    put_reference(second, {"train": data}, collator, arguments(tmp_path), cache=tmp_path / "reference.npz")
    for item in (data[row] for row in range(len(data))):
        expected = [float(plain_logps(second, item[s], item[f"{s}_span"])) for s in ("chosen", "rejected")]
        assert item["reference"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("content", [b"", b"no archive"])
def test_a_damaged_reference_is_refused(start, tmp_path, content):
    cache = tmp_path / "reference.npz"
    cache.write_bytes(content)
    with pytest.raises(StaleReferenceError, match="cannot be read"):
        put_reference(start[0], {"train": start[3]}, PairCollator(start[2]), arguments(tmp_path), cache=cache)


def test_a_new_adapter_does_not_change_the_reference(start, tmp_path):
    """Its matrices are random, seed by seed, but it is switched off: a sweep shares one file."""
    data = copy.deepcopy(start[3])
    cache, collator, written = tmp_path / "reference.npz", PairCollator(start[2]), []
    for seed in range(2):
        set_seed(seed)
        model = with_adapter(copy.deepcopy(start[0]), DPOConfig(lora_rank=2).adapter(), task="CAUSAL_LM")
        put_reference(
            model, {"train": data}, collator, arguments(tmp_path), cache=cache
        )  # another reference is refused
        written.append(cache.stat().st_mtime_ns)
    assert written[0] == written[1]


def test_the_reference_is_asked_in_evaluation_mode(start, tmp_path):
    trainer = trainer_for(start, arguments(tmp_path), "tv:0.2")
    modes = []
    trainer.reference.register_forward_pre_hook(lambda module, args: modes.append(module.training))
    trainer.reference.train()
    trainer.with_constants(trainer.model, PairCollator(start[2])([start[3][0]]))
    assert modes == [False]
    assert trainer.reference.training


def test_gradient_penalty_with_checkpointed_activations_is_refused(start, tmp_path):
    with pytest.raises(ValueError, match="differentiates twice"):
        trainer_for(start, arguments(tmp_path, activation_checkpointing=True), "tv:0.2", loss="wdpo:0.1")


@pytest.mark.parametrize("change", ["weights", "pairs", "precision"])
def test_a_stored_reference_of_something_else_is_refused(start, tmp_path, change):
    model, _, tokenizer, data = copy.deepcopy(start)
    cache, collator = tmp_path / "reference.npz", PairCollator(tokenizer)
    args = arguments(tmp_path)
    put_reference(model, {"train": data}, collator, args, cache=cache)
    before = cache.read_bytes()
    put_reference(model, {"train": data}, collator, args, cache=cache)  # the same: read, not written again
    assert cache.read_bytes() == before
    model = copy.deepcopy(model)
    if change == "weights":
        with torch.no_grad():
            next(model.parameters())[0, 0] += 1e-3
    pairs = encode_pairs(PAIRS, tokenizer, max_length=24) if change == "pairs" else data
    args = arguments(tmp_path, bf16=True) if change == "precision" else args
    with pytest.raises(StaleReferenceError, match="delete it, or name another reference_cache"):
        put_reference(model, {"train": pairs}, collator, args, cache=cache)
