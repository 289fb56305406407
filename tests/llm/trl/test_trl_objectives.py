"""Every loss of ``train dpo`` that TRL has too, against TRL's own code on the same log-probabilities and models."""

from __future__ import annotations

import copy
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import trl
from accelerate import Accelerator
from tiny_trl import PAIRS, arguments
from transformers import AutoModelForCausalLM

from dro_core import parse_ambiguity, robust_loss
from llm.judging.margins import answer_scores, dpo_margins
from llm.models.logprobs import answer_logps, answer_tokens
from llm.text.batches import PairCollator
from llm.text.encoding import encode_pairs
from llm.training.objectives.table import NOT_OF_A_PAIR, objectives, parse_pair_loss

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
from trl.experimental.cpo.cpo_trainer import CPOTrainer
from trl.experimental.orpo.orpo_trainer import ORPOTrainer

BETA, EDGE = 0.3, 12
LENGTHS = [(3, 5), (7, 2), (4, 4), (1, 6), (9, 8)]
SMOOTHED = {"label_smoothing": 0.1}
OF_DPO = {  # our text: TRL's loss_type, and what else it is told
    "sigmoid": ("sigmoid", {}),
    "hinge": ("hinge", {}),
    "ipo_norm": ("ipo", {}),
    "sigmoid_norm": ("sigmoid_norm", {}),
    "exo_pair:0.1": ("exo_pair", SMOOTHED),
    "nca_pair": ("nca_pair", {}),
    "robust:0.1": ("robust", SMOOTHED),
    "rdpo:0.1": ("robust", SMOOTHED),
    "bco_pair": ("bco_pair", {}),
    "sppo_hard": ("sppo_hard", {}),
    "apo_zero": ("apo_zero", {}),
    "apo_down": ("apo_down", {}),
    "discopop:0.05": ("discopop", {}),
}
OTHERWISE = {"simpo", "orpo"}  # trainers of their own, below
OURS = {"ipo": "as printed", "cdpo": "no label smoothing of sigmoid in this trainer", "wdpo": "no such loss"}


@pytest.fixture(scope="module")
def theirs(tiny, tmp_path_factory):
    trainer = trl.DPOTrainer(
        model=tiny.causal,
        ref_model=AutoModelForCausalLM.from_pretrained(tiny.reference),
        args=arguments(trl.DPOConfig, tmp_path_factory.mktemp("trl"), beta=BETA),
        train_dataset=tiny.data,
        processing_class=tiny.tokenizer,
    )
    trainer.precompute_ref_logps = True
    return trainer


@pytest.fixture(scope="module")
def tokens():
    """Log-probabilities of every token of both answers, ``(pairs, 2, tokens)``, which of them there are, references.

    The answers of the last pairs are much more, and much less, likely than under the reference.
    """
    rng = np.random.default_rng(3)
    mask = torch.tensor([[[place < length for place in range(EDGE)] for length in pair] for pair in LENGTHS])
    logps = torch.tensor(-rng.gamma(2.0, 0.7, size=mask.shape)) * mask
    reference = logps.sum(-1) + torch.tensor(rng.normal(0, [[0.1], [1], [3], [60], [200]], size=(len(LENGTHS), 2)))
    return logps, mask, reference


def loss_of_trl(trainer, logps, mask, reference):
    """The loss of one pair: a mean over one."""
    said = mask.long()
    before = torch.zeros(2, 1, dtype=torch.long)  # the prompt
    inputs = {
        "input_ids": torch.cat([before, said], 1), "attention_mask": torch.cat([before + 1, said], 1),
        "completion_mask": torch.cat([before, said], 1),
        "ref_chosen_logps": reference[:1], "ref_rejected_logps": reference[1:],
    }  # fmt: skip
    beside = torch.zeros_like(logps.detach())
    output = SimpleNamespace(log_probs=logps, entropy=beside, mean_logits=beside, is_top1=beside.bool())
    return trainer._compute_loss(lambda **kwargs: output, inputs, False)  # noqa: FBT003


def our_losses(text, logps, mask, reference=None):
    """Losses ``(n,)`` of log-probabilities of tokens ``(n, 2, tokens)``."""
    loss = parse_pair_loss(text, beta=BETA)
    read = answer_scores if loss.of_scores else dpo_margins
    beside = reference.T.flatten() if loss.reference else None
    counts = mask.sum(-1).T.flatten() if loss.per_token else None
    return loss(read(logps.sum(-1).T.flatten(), beside, beta=BETA, tokens=counts))


@pytest.mark.parametrize("text", OF_DPO)
def test_losses_and_their_slopes_are_those_of_trl(text, theirs, tokens):
    logps, mask, reference = tokens
    kind, told = OF_DPO[text]
    theirs.loss_types, theirs.loss_weights = [kind], [1.0]
    theirs.label_smoothing = told.get("label_smoothing", 0.0)
    mine, other = logps.clone().requires_grad_(), logps.clone().requires_grad_()
    found = our_losses(text, mine, mask, reference)
    expected = torch.stack([loss_of_trl(theirs, *pair) for pair in zip(other, mask, reference, strict=True)])
    kept = expected.detach().isfinite()  # TRL's discopop is nan far from 0
    assert kept.sum() >= 4
    assert found.isfinite().all()
    torch.testing.assert_close(found[kept], expected[kept], rtol=1e-6, atol=1e-7)
    (slopes,) = torch.autograd.grad(found.sum(), mine)
    (others,) = torch.autograd.grad(expected[kept].sum(), other)
    torch.testing.assert_close(slopes[kept], others[kept], rtol=1e-6, atol=1e-7)
    assert slopes.isfinite().all()


def bare(kind, **settings):
    """A trainer of TRL with what its loss reads, and without the rest."""
    trainer = kind.__new__(kind)
    common = {
        "beta": BETA,
        "accelerator": Accelerator(cpu=True),
        "is_encoder_decoder": False,
        "aux_loss_enabled": False,
    }
    for name, value in (common | settings).items():
        setattr(trainer, name, value)
    return trainer


def as_trl_reads(item):
    """One encoded pair, unpadded, in the names of these trainers; labels are those of the answer."""
    batch = {}
    for side in ("chosen", "rejected"):
        ids, (first, end) = torch.tensor([item[side]]), item[f"{side}_span"]
        labels = torch.full_like(ids, -100)
        labels[:, first:end] = ids[:, first:end]
        batch |= {f"{side}_input_ids": ids, f"{side}_attention_mask": torch.ones_like(ids), f"{side}_labels": labels}
    return batch


def without_prompt(item):
    """The pair with the last token of its prompt alone, which ``orpo`` of TRL imitates with the answer otherwise."""
    cut = {}
    for side in ("chosen", "rejected"):
        first, end = item[f"{side}_span"]
        cut |= {side: item[side][first - 1 :], f"{side}_span": (1, end - first + 1)}
    return {**item, **cut}


@pytest.mark.parametrize("text", ["simpo:0.4", "orpo"])
@pytest.mark.parametrize("spec", ["tv:0", "tv:0.3"])
def test_losses_without_a_reference_are_those_of_trls_trainers(text, spec, tiny):
    """Of a model, through its tokens, one pair a batch; then the gradient of the worst case over the pairs."""
    model = AutoModelForCausalLM.from_pretrained(tiny.causal).double()
    other = copy.deepcopy(model)
    encoded = encode_pairs(PAIRS[:8], tiny.tokenizer, max_length=64)
    items = [without_prompt(encoded[row]) for row in range(8)]
    if text == "orpo":
        trainer = bare(ORPOTrainer, padding_value=tiny.tokenizer.pad_token_id)
    else:
        told = {"loss_type": "simpo", "simpo_gamma": 0.4, "cpo_alpha": 0, "alpha": 0.0, "label_smoothing": 0.0}
        trainer = bare(CPOTrainer, pad_token_id=tiny.tokenizer.pad_token_id, **told)
    expected = torch.stack([trainer.get_batch_loss_metrics(other, as_trl_reads(item))[0] for item in items])
    batch, loss = PairCollator(tiny.tokenizer)(items), parse_pair_loss(text, beta=BETA)
    read = answer_scores if loss.of_scores else dpo_margins
    found = loss(read(answer_logps(model, batch), beta=BETA, tokens=answer_tokens(batch)))
    assert np.ptp(found.tolist()) > 1e-2
    torch.testing.assert_close(found, expected.to(found), rtol=1e-6, atol=1e-6)
    for losses in (found, expected):
        robust_loss(losses, parse_ambiguity(spec)).backward()
    mine, others = (torch.cat([p.grad.flatten() for p in one.parameters()]) for one in (model, other))
    assert (mine - others).norm() <= 1e-5 * others.norm()  # TRL's orpo rounds to float32


def test_no_loss_of_trl_is_forgotten(theirs):
    """Each is offered and compared above, or refused with a reason."""
    theirs.loss_types = ["unheard"]
    with pytest.raises(ValueError, match="Unknown loss type") as refused:
        loss_of_trl(theirs, torch.zeros(2, EDGE), torch.ones(2, EDGE), torch.zeros(2))
    known = set(str(refused.value).partition("one of ")[2].strip(".[]").replace("'", "").split(", "))
    assert known == {kind for kind, _ in OF_DPO.values()} | (known & NOT_OF_A_PAIR.keys())
    assert {text.partition(":")[0] for text in OF_DPO} | OTHERWISE | OURS.keys() == objectives(BETA).keys()
