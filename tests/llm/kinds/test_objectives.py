"""Losses of DPO beside the sigmoid: gradients of effective batches, held-out pairs, whole runs, what is refused."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from robust_trainers import PAIRS, Gradients, arguments, relative_error, seen_rows
from test_dpo import BETA, batch_logps, begin, trainer_for
from torch.nn.functional import logsigmoid
from whole_runs import files_of, margins, train_command, wrong

from dro_core import parse_ambiguity, robust_loss
from llm import Run, evaluate
from llm.adversary.equal_losses import Accuracy
from llm.kinds.dpo import DPOTrainer
from llm.run.kinds import has_reference, is_logistic
from llm.text.batches import PairCollator
from llm.training.losses import dpo_accuracy, margins_in
from llm.training.objectives.table import NOT_OF_A_PAIR, objectives, parse_pair_loss
from robust_rlhf import main

FORMULAS = {  # of log-ratios, or log-probabilities, of the chosen and the rejected answer, sums or means
    "hinge": lambda c, r: (1 - BETA * (c - r)).clamp(min=0),
    "exo_pair:0.1": lambda c, r: sum(
        q * (q / p).log() for q, p in ((torch.sigmoid(s * BETA * (c - r)), p) for s, p in ((1, 0.9), (-1, 0.1)))
    ),
    "discopop:0.05": lambda c, r: torch.lerp(
        -logsigmoid(BETA * (c - r)), (BETA * (r - c)).exp(), torch.sigmoid(BETA * (c - r) / 0.05)
    ),
    "sigmoid_norm": lambda c, r: -logsigmoid(BETA * (c - r)),
    "ipo_norm": lambda c, r: (c - r - 0.5 / BETA) ** 2,
    "nca_pair": lambda c, r: -logsigmoid(BETA * c) - (logsigmoid(-BETA * c) + logsigmoid(-BETA * r)) / 2,
    "bco_pair": lambda c, r: -logsigmoid(BETA * c) - logsigmoid(-BETA * r),
    "sppo_hard": lambda c, r: (c - 0.5 / BETA) ** 2 + (r + 0.5 / BETA) ** 2,
    "apo_zero": lambda c, r: 1 - torch.sigmoid(BETA * c) + torch.sigmoid(BETA * r),
    "apo_down": lambda c, r: torch.sigmoid(BETA * c) + 1 - torch.sigmoid(BETA * (c - r)),
    "simpo:0.4": lambda c, r: -logsigmoid(BETA * (c - r) - 0.4),
    "orpo": lambda c, r: -c - BETA * logsigmoid(torch.logit(c.exp()) - torch.logit(r.exp())),
}
PER_TOKEN, FREE = ("sigmoid_norm", "ipo_norm", "simpo:0.4", "orpo"), ("simpo:0.4", "orpo")
OF_SCORES = ("nca_pair", "bco_pair", "sppo_hard", "apo_zero", "apo_down", "orpo")
ALWAYS = ("ipo_norm", "nca_pair", "simpo:0.4", "orpo")  # one of each form
CASES = [
    (text, spec) if text in ALWAYS and spec != "tv:0" else pytest.param(text, spec, marks=pytest.mark.exhaustive)
    for text in FORMULAS
    for spec in ("tv:0", "tv:0.3")
]


@pytest.fixture(scope="module")
def start():
    return begin()


def formula_losses(start, model, rows, text):
    _, reference, tokenizer, data = start
    batch = PairCollator(tokenizer)([data[int(i)] for i in rows])
    read = batch_logps(model, batch)
    if text not in FREE:
        read = read - batch_logps(reference, batch).detach()
    if text in PER_TOKEN:
        read = read / batch["answer_mask"].sum(1)
    return FORMULAS[text](*read.chunk(2))


def our_trainer(start, folder, spec, text, **more):
    reference = None if text in FREE else "model"
    return trainer_for(start, arguments(folder), spec, loss=text, reference=reference, **more)


@pytest.mark.parametrize(("text", "spec"), CASES)
def test_gradient_is_that_of_the_full_batch(start, tmp_path, text, spec):
    gradients = Gradients()
    trainer = our_trainer(start, tmp_path, spec, text, callbacks=[gradients], passes="two")
    trainer.train()
    rows, model = seen_rows(trainer), copy.deepcopy(start[0])
    assert len(rows) == 16
    losses = formula_losses(start, model, rows, text)
    assert np.ptp(losses.tolist()) > 1e-3
    robust_loss(losses, parse_ambiguity(spec)).backward()
    expected = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert relative_error(gradients.first, expected) <= 1e-6
    np.testing.assert_allclose(trainer.ledger.last_loss[rows], losses.tolist(), rtol=1e-6, atol=1e-6)


@pytest.mark.exhaustive(turns=8)
def test_held_out_pairs_are_measured_by_the_loss_that_is_trained(start, tmp_path):
    trainer, everything = our_trainer(start, tmp_path, "tv:0.3", "hinge"), range(len(PAIRS))
    trainer.eval_dataset = start[3]
    for text in ("apo_down", "orpo", "sigmoid_norm", "simpo:0.4"):
        trainer.pair_loss = parse_pair_loss(text, beta=BETA)
        trainer.compute_metrics = trainer.held_out_metrics(PAIRS)
        found = trainer.evaluate()
        with torch.no_grad():
            losses = formula_losses(start, start[0], everything, text)
            told = trainer.margins(trainer.model, PairCollator(start[2])([start[3][i] for i in everything]))
        assert found["eval_loss"] == pytest.approx(float(losses.mean()), rel=1e-6), text
        assert found["eval_accuracy"] == pytest.approx(float((told > 0).float().mean())), text


def test_a_wrong_label_exchanges_the_answers(start, tmp_path):
    """Of a label that is right with probability p, the loss is the mean over both orders of the answers."""
    trainer, p = our_trainer(start, tmp_path, "erm", "hinge"), torch.linspace(0, 1, len(PAIRS))
    items, collate = [start[3][i] for i in range(6)], PairCollator(start[2])
    turned = [{**item, "chosen": item["rejected"], "chosen_span": item["rejected_span"], "rejected": item["chosen"],
               "rejected_span": item["chosen_span"]} for item in items]  # fmt: skip
    for text in (*ALWAYS, "hinge", "apo_down"):
        trainer.pair_loss, trainer.preferences = parse_pair_loss(text, beta=BETA), None
        with torch.no_grad():
            right, wrong = (trainer.example_losses(trainer.model, collate(some)) for some in (items, turned))
            trainer.soften(p.tolist())
            found = trainer.example_losses(trainer.model, collate(items))
        mean = p[:6] * right + (1 - p[:6]) * wrong
        torch.testing.assert_close(found, mean, rtol=1e-5, atol=1e-6, msg=text)


def test_losses_without_a_reference_read_one_model(start, tmp_path):
    trainer = our_trainer(start, tmp_path, "tv:0.3", "orpo", passes="two")
    seen = []
    trainer.model.register_forward_pre_hook(lambda module, args: seen.append(1))
    trainer.train()
    assert trainer.reference is None
    assert len(seen) == 2 * 4  # two looks at four micro-batches
    assert trainer.constant_forwards({}) == 0
    with pytest.raises(ValueError, match="needs no reference"):
        trainer_for(start, arguments(tmp_path), "tv:0.3", loss="simpo:0.4", reference="model")


@pytest.mark.parametrize("text", [form.example for form in objectives(BETA).values()])
def test_answers_that_are_certain_or_far_away_have_finite_losses_and_slopes(text):
    scores, loss = (
        torch.tensor([[0.0, -1.0], [-1.0, 0.0], [0.0, 0.0], [-300.0, -1e-9], [300.0, -300.0]]),
        parse_pair_loss(text, beta=BETA),
    )
    scores = scores if loss.reference else scores.clamp(max=0)
    told = (scores if loss.of_scores else margins_in(scores)).requires_grad_()
    losses = loss(told)
    (slopes,) = torch.autograd.grad(losses.sum(), told)
    assert losses.isfinite().all()
    assert slopes.isfinite().all()


def test_what_records_say_of_a_loss_is_what_it_is():
    for name, form in objectives(BETA).items():
        loss = parse_pair_loss(form.example, beta=BETA)
        assert is_logistic("dpo", {"loss": form.example}) == loss.logistic, name
        assert has_reference(form.example) == loss.reference, name
        assert loss.per_token == (form.example.partition(":")[0] in ("sigmoid_norm", "ipo_norm", "simpo", "orpo"))
    assert {name for name, form in objectives(1.0).items() if parse_pair_loss(form.example, beta=1.0).of_scores} == set(
        OF_SCORES
    )


def test_the_page_lists_the_losses_and_what_they_need():
    page = (Path(__file__).parents[3] / "docs" / "training.md").read_text()
    lines = re.findall(
        r"^\| `([a-z_]+)(?::\w+)?`(?:, `([a-z_]+):\w+`)? \|.*\| (yes|no) \| (sum|mean) \|", page, re.MULTILINE
    )
    listed = {name: kind for one, other, *kind in lines for name in (one, other) if name}
    assert list(listed) == list(objectives(1.0))
    for name, form in objectives(1.0).items():
        loss = parse_pair_loss(form.example, beta=1.0)
        assert listed[name] == ["yes" if loss.reference else "no", "mean" if loss.per_token else "sum"], name
    assert all(f"`{name}`" in page for name in NOT_OF_A_PAIR)


def test_equal_losses_are_told_by_the_slope_of_the_loss_where_training_begins():
    single, told = Accuracy(1e-9), {"beta": 0.1, "precision": torch.float32}
    means = [dpo_accuracy(single, parse_pair_loss("ipo_norm", beta=0.1), tokens=n, **told).absolute for n in (10, 1000)]
    assert means[0] == means[1]  # of a mean, however long
    sums = dpo_accuracy(single, parse_pair_loss("ipo", beta=0.1), tokens=1000, **told).absolute
    assert sums > 500 * means[0]
    of_margin = dpo_accuracy(single, parse_pair_loss("sigmoid", beta=0.1), tokens=50, **told).absolute
    assert dpo_accuracy(single, parse_pair_loss("bco_pair", beta=0.1), tokens=50, **told).absolute == of_margin
    assert 0 < dpo_accuracy(single, parse_pair_loss("orpo", beta=0.1), tokens=50, **told).absolute < 1e-5


def test_a_radius_from_margins_needs_a_loss_of_margins(start, tmp_path):
    with pytest.raises(ValueError, match="takes its radius from margins"):
        DPOTrainer(
            beta=BETA, pair_loss=parse_pair_loss("nca_pair", beta=BETA), model=copy.deepcopy(start[0]),
            args=arguments(tmp_path), train_dataset=start[3], data_collator=PairCollator(start[2]),
            ambiguity="tv:auto=0.5",
        )  # fmt: skip


@pytest.fixture(scope="module")
def files(once):
    return files_of(once)


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--loss", "simpo:0.5", "--reference", "precomputed"], "needs no reference policy: leave reference out"),
        (["--loss", "orpo", "--reference_model", "smollm2"], "leave reference_model out"),
        (["--loss", "orpo", "--reference_cache", "x.npz"], "leave reference_cache out"),
        (["--loss", "simpo:-1"], "at least 0"),
        (["--loss", "exo_pair:0"], "above 0"),
        (["--loss", "discopop:0"], "must be positive"),
        (["--loss", "aot"], "sorts the log-ratios"),
        (["--loss", "kto"], "estimated over the batch"),
        (["--loss", "orpo", "--ambiguity", "focal:2"], "losses here are not -log"),
        (["--loss", "simpo:0.5", "--ambiguity", "regret:tv:0.2"], "known of the losses"),
    ],
)
def test_wrong_settings_get_one_sentence(files, tmp_path, capsys, extra, said):
    told = {"ambiguity": "tv:0.2", "model": "tiny"}
    assert said in wrong(capsys, *train_command("dpo", files / "train.jsonl", tmp_path / "run", *extra, **told))
    assert not (tmp_path / "run" / "settings.json").exists()


def test_a_run_without_a_reference_keeps_none_and_is_judged_without(files, tmp_path):
    output = tmp_path / "run"
    told = {"ambiguity": "tv:0.3", "model": "tiny", "loss": "simpo:0.5", "beta": 2, "max_steps": 2}
    suite = ["--suites", str(files / "suite.jsonl")]
    assert main(train_command("dpo", files / "train.jsonl", output, *suite, **told)) == 0
    assert not [path for path in output.iterdir() if path.name.startswith("reference")]
    assert "simpo:0.5, beta 2, no reference" in (output / "model" / "README.md").read_text()
    assert json.loads((output / "run.json").read_text())["adversary"]["top"][0]["margin"] is None
    again = evaluate(Run(output), {"suite": files / "suite.jsonl"})
    assert again.result["margins"]["suite"].tolist() == pytest.approx(margins(output), abs=1e-5)
