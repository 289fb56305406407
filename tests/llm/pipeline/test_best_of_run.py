"""Best-of-n of a pipeline, from its own files: every subset of the answers enumerated, scipy's paired test."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from damaged_runs import digit
from rich.console import Console
from safetensors.torch import load_file, save_file
from scipy import stats
from test_best_of import enumerated
from test_pipeline import section, write
from transformers import AutoModelForCausalLM, AutoTokenizer

from llm.data.corpus.corpus import generate
from llm.data.pairs import DataError
from llm.data.prompts import read_prompts
from llm.models.loading import load_reward_model, tiny_reward_model
from llm.pipeline import best_of as best_of_run
from llm.pipeline.ablation import best_of_rows
from llm.pipeline.best_of import best_of_curves, draw_best_of
from llm.pipeline.plan import read_pipeline
from llm.pipeline.run import run_pipeline
from llm.policy.rollouts import Answers
from llm.rewards.model import RewardScorer
from llm.run.finished import SEAL
from llm.statistics.best_of import kl_bound
from llm.text.answers import encode_prompts
from robust_rlhf import main

N, PROMPTS = 6, 4
START = Path("run", "sft", "model")
ARMS = ["standard/standard", "robust/standard"]


def file_for(folder, **evaluation):
    """Both kinds of reward model, two seeds; gold is a model nothing is trained on. Half of the prompts fit."""
    policy = section(write(folder), "policy", max_length=40, eval_samples=3, distinct_prompts=False)
    judged = section(write(folder), "evaluation", **{"gold": str(folder / "gold"), "best_of": N, **evaluation})
    return write(folder, arms=ARMS, seeds=2, policy=policy, evaluation=judged)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A pipeline that has run to its end, and what it said."""
    folder = tmp_path_factory.mktemp("best")
    torch.manual_seed(5)
    gold, tokenizer = tiny_reward_model((pair.chosen for pair in generate(48, seed=3)), max_length=96)
    gold.save_pretrained(folder / "gold")
    tokenizer.save_pretrained(folder / "gold")
    console = Console(width=120, record=True)
    run_pipeline(read_pipeline(file_for(folder)), console)
    return folder, console.export_text()


@pytest.fixture
def again(finished):
    """The same pipeline as read anew; what a test changes in its files is put back."""
    folder = finished[0]
    kept = folder / "run" / "best_of" / "train"
    files = [*kept.iterdir(), folder / START / "model.safetensors", folder / "train.jsonl"]
    before = {path: path.read_bytes() for path in files}
    yield read_pipeline(file_for(folder)), kept
    for path, content in before.items():
        path.write_bytes(content)


def change_weights(folder):
    """Another start; after two steps of training the real one says the same whatever it is asked."""
    path, noise = folder / START / "model.safetensors", torch.Generator().manual_seed(1)
    varied = {name: part + 0.1 * torch.randn(part.shape, generator=noise) for name, part in load_file(path).items()}
    save_file(varied, path, metadata={"format": "pt"})
    (path.parents[1] / SEAL).unlink(missing_ok=True)  # changed on purpose


def stored(folder):
    """Answers, scores by judge, and the record of the comparison."""
    kept = folder / "run" / "best_of" / "train"
    answers = json.loads((kept / "answers.json").read_text())["made"]
    judges = ("standard-0", "standard-1", "robust-0", "robust-1", "gold")
    scores = {name: np.array(json.loads((kept / f"{name}.json").read_text())["made"]) for name in judges}
    return answers, scores, json.loads((folder / "run" / "ablation.json").read_text())


def arm_gold(folder, arm="standard-standard"):
    runs = [np.load(folder / "run" / f"seed-{seed}" / "policy" / arm / "scores.npz")["train/gold"] for seed in (0, 1)]
    return np.mean(runs, axis=(0, 2))


@pytest.mark.exhaustive(turns=8)
@pytest.mark.parametrize("reward", ["standard", "robust"])
def test_each_n_is_the_mean_over_all_subsets_of_the_answers(finished, reward):
    _, scores, record = stored(finished[0])
    rows = {row["n"]: row for row in record["best_of"] if row["reward"] == reward}
    assert list(rows) == [1, 2, 4, 6]
    for n, row in rows.items():
        expected = np.mean(
            [
                [enumerated(*pair, n) for pair in zip(scores[f"{reward}-{seed}"], scores["gold"], strict=True)]
                for seed in (0, 1)
            ],
            axis=0,
        )
        proxy, gold = expected.T
        for values, name in ((proxy, "proxy"), (gold, "gold")):
            low, high = stats.ttest_1samp(values, 0).confidence_interval()
            assert list(row[name].values()) == pytest.approx([values.mean(), low, high], rel=1e-9)
        low, high = stats.ttest_rel(gold, arm_gold(finished[0])).confidence_interval()
        mean = (gold - arm_gold(finished[0])).mean()
        assert list(row["difference"].values()) == pytest.approx([mean, low, high], rel=1e-9)
        assert row["kl_bound"] == pytest.approx(kl_bound([n])[0])
        assert (row["prompts"], row["seeds"]) == (PROMPTS, 2)
    assert rows[1]["gold"]["mean"] == pytest.approx(scores["gold"].mean(), rel=1e-12)


@pytest.mark.slow("a whole pipeline")
def test_the_prompts_are_those_that_the_arms_answered(finished):
    folder = finished[0]
    asked = [entry["id"] for entry in stored(folder)[0]]
    assert len(asked) == PROMPTS
    for arm in ("standard-standard", "robust-standard"):
        for seed in (0, 1):
            answered = json.loads((folder / "run" / f"seed-{seed}" / "policy" / arm / "answers.json").read_text())
            assert [entry["id"] for entry in answered["train"]] == asked

    prompts = read_prompts(folder / "train.jsonl", distinct=False).prompts
    assert asked != [prompt.id for prompt in prompts[:PROMPTS]]  # a random subset of those that fit


def test_every_judge_scores_the_shared_answers_one_by_one(finished):
    """Alone, without batches, through each exported model."""
    folder = finished[0]
    answers, scores, _ = stored(folder)
    prompts = {prompt.id: prompt for prompt in read_prompts(folder / "train.jsonl", distinct=False).prompts}
    assert len({text for entry in answers for text in entry["answers"]}) > N
    robust = folder / "run" / "seed-1" / "reward" / "robust" / "model"
    for judge, place in (("robust-1", robust), ("gold", folder / "gold")):
        model, tokenizer = load_reward_model(str(place), new_head=False)
        alone = RewardScorer(model, tokenizer, max_length=tokenizer.model_max_length, batch_size=1)
        found = [[alone([prompts[entry["id"]]], [text])[0] for text in entry["answers"]] for entry in answers]
        np.testing.assert_allclose(scores[judge], found, atol=1e-5)
    assert np.abs(scores["robust-1"] - scores["standard-1"]).max() > 1e-6


def test_answers_stand_beside_their_prompts(finished, again, monkeypatch):
    """Nearly without randomness, all answers to a prompt are what its model writes by itself, prompt by prompt."""
    pipeline, kept = again
    start = finished[0] / START
    change_weights(finished[0])
    monkeypatch.setitem(pipeline.policy, "temperature", 1e-4)
    draw_best_of(pipeline)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(start), AutoTokenizer.from_pretrained(start)
    prompts = {prompt.id: prompt for prompt in read_prompts(finished[0] / "train.jsonl", distinct=False).prompts}
    found = json.loads((kept / "answers.json").read_text())["made"]
    for entry in found:
        (ids,) = encode_prompts([prompts[entry["id"]]], tokenizer)
        written = model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=8)[0, len(ids) :]
        assert entry["answers"] == [tokenizer.decode(written, skip_special_tokens=True).strip()] * N
    assert len({entry["answers"][0] for entry in found}) == PROMPTS


def test_it_stands_in_the_table_and_beside_the_curves_of_training(finished):
    folder, printed = finished
    for said in ("start", "best-of-4 (standard)", "best-of-6 (robust)", "KL of best-of-n: at most"):
        assert said in " ".join(printed.split())
    assert "best-of-2" not in printed
    assert "gold of best-of-n (robust): " in printed
    assert set(stored(folder)[2]["gold_of_best_of"]) == {"best-of-n (standard)", "best-of-n (robust)"}
    curves = best_of_curves(draw_best_of(read_pipeline(file_for(folder))))
    np.testing.assert_allclose(curves[1].kl[0], kl_bound([1, 2, 4, 6]))
    assert curves[1].gold.shape == (PROMPTS, 4)


def test_a_second_start_draws_and_scores_nothing(again, monkeypatch):
    pipeline, _ = again
    monkeypatch.setattr(best_of_run, "load_policy", None)
    monkeypatch.setattr(best_of_run, "scorer_of", None)
    assert draw_best_of(pipeline)["train"].gold.shape == (PROMPTS, N)


def test_what_a_judge_lacks_is_scored_from_the_same_answers(again, monkeypatch):
    pipeline, kept = again
    before = {path.name: path.read_bytes() for path in kept.iterdir()}
    (kept / "robust-0.json").unlink()
    (kept / "gold.json").write_text('{"made_from": {"answ')
    digit(kept / "standard-0.json")
    monkeypatch.setattr(best_of_run, "load_policy", None)
    draw_best_of(pipeline)
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == before


@pytest.mark.slow("a whole pipeline again")
@pytest.mark.parametrize("change", ["answers", "model", "prompts", "tokens"])
def test_changed_inputs_make_new_answers_and_new_scores(change, finished, again, monkeypatch):
    pipeline, kept = again
    train, before = finished[0] / "train.jsonl", (kept / "answers.json").read_bytes()
    if change == "answers":
        pipeline = read_pipeline(file_for(finished[0], best_of=3))
    elif change == "model":
        change_weights(finished[0])
    elif change == "prompts":
        train.write_text("".join(reversed(train.read_text().splitlines(keepends=True))))
    else:
        monkeypatch.setitem(pipeline.policy, "max_new_tokens", 5)
    found = draw_best_of(pipeline)["train"]
    assert (kept / "answers.json").read_bytes() != before
    assert found.gold.shape == (PROMPTS, 3 if change == "answers" else N)
    answers = json.loads((kept / "answers.json").read_text())["made"]
    assert [entry["id"] for entry in answers] == found.ids
    assert {len(entry["answers"]) for entry in answers} == {found.gold.shape[1]}
    alone = RewardScorer(*load_reward_model(str(finished[0] / "gold"), new_head=False), max_length=96, batch_size=1)
    prompts = {prompt.id: prompt for prompt in read_prompts(train, distinct=False).prompts}
    expected = [[alone([prompts[entry["id"]]], [text])[0] for text in entry["answers"]] for entry in answers]
    np.testing.assert_allclose(found.gold, expected, atol=1e-5)


@pytest.mark.parametrize("place", ["drawing", "scoring"])
def test_killed_half_way_it_ends_as_if_it_had_not_been(place, again, monkeypatch):
    pipeline, kept = again
    before = {path.name: path.read_bytes() for path in kept.iterdir()}
    for path in kept.iterdir():
        path.unlink()
    with monkeypatch.context() as killed:
        stop = iter([None] * 3)  # the fourth call is the last
        subject, name = (Answers, "text") if place == "drawing" else (RewardScorer, "__call__")
        plain = getattr(subject, name)
        killed.setattr(subject, name, lambda *given: _or_stop(stop, plain, *given))
        with pytest.raises(KeyboardInterrupt):
            draw_best_of(pipeline)
    scored = {"answers.json", "standard-0.json", "robust-0.json", "standard-1.json"}
    assert {path.name for path in kept.iterdir()} == (scored if place == "scoring" else set())
    draw_best_of(pipeline)
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == before


def _or_stop(stop, plain, *given):
    try:
        next(stop)
    except StopIteration:
        raise KeyboardInterrupt from None
    return plain(*given)


def test_other_prompts_than_the_arms_answered_are_refused(again):
    pipeline, _ = again
    found = draw_best_of(pipeline)["train"]
    swapped = best_of_run.Drawn(found.ids[::-1], found.asked, found.proxies, found.gold)
    with pytest.raises(ValueError, match="train: best-of-n and the arms answered different prompts"):
        best_of_rows(pipeline, {"train": swapped})


@pytest.mark.parametrize("judge", ["gold", "robust-1"])
def test_prompts_that_a_judge_refuses_are_left_out_before_they_are_answered(judge, finished, again, caplog):
    """Its template, which another version of its author might have brought, raises for one of the prompts."""
    pipeline, kept = again
    folder = finished[0]
    place = folder / "gold" if judge == "gold" else folder / "run" / "seed-1" / "reward" / "robust" / "model"
    before = [entry["id"] for entry in json.loads((kept / "answers.json").read_text())["made"]]
    asked = {p.id: p.messages[-1]["content"] for p in read_prompts(folder / "train.jsonl", distinct=False).prompts}
    template = (
        "{% for m in messages %}{% if m['content'] == WORDS %}{{ raise_exception('no such thing') }}{% endif %}"
        "{{ m['content'] }}{% endfor %}"
    )
    changed = (place / "chat_template.jinja", place.parent / SEAL)
    contents = [file.read_bytes() if file.exists() else None for file in changed]
    changed[0].write_text(template.replace("WORDS", json.dumps(asked[before[1]])))
    changed[1].unlink(missing_ok=True)  # changed on purpose
    try:
        found = draw_best_of(pipeline)["train"]
    finally:
        for file, content in zip(changed, contents, strict=True):
            file.unlink(missing_ok=True)
            if content is not None:
                file.write_bytes(content)
    assert found.ids == [name for name in before if asked[name] != asked[before[1]]]
    assert found.gold.shape == (len(found.ids), N)
    assert f"{before[1]!r} first: of its judge, its chat template refuses the chat: no such thing" in caplog.text


def test_prompts_of_the_same_id_are_refused(again, tmp_path):
    rows = [{"prompt": text, "id": "same"} for text in ("1 + 1?", "2 + 2?")]
    (tmp_path / "twice.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pipeline, _ = again
    pipeline.evaluation["prompts"] = [str(tmp_path / "twice.jsonl")]
    with pytest.raises(DataError, match="two prompts have the same id"):
        draw_best_of(pipeline)


def test_a_dry_run_says_that_answers_will_be_drawn(finished, capsys):
    assert main(["pipeline", "--config", str(file_for(finished[0])), "--dry-run"]) == 0
    assert "then best-of-6 of the policy that all arms" in capsys.readouterr().out
