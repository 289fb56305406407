"""The commands a newcomer types: demo, evaluate, data; on small files, with the tiny model."""

from __future__ import annotations

import json

import numpy as np
import pytest

from llm.data.corpus.corpus import generate
from llm.data.pairs import read_pairs, write_pairs
from llm.judging.accuracy import score_pairs
from llm.models.loading import load_reward_model
from llm.results.store import read_results
from robust_rlhf import main

SMALL = ["--set", "max_length=48", "per_device_train_batch_size=8", "logging_steps=2", "use_cpu=true"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data folder: training file and two suites."""
    path = tmp_path_factory.mktemp("data")
    for name, size, seed in (("train", 64, 1), ("id_test", 40, 2), ("shifted", 30, 3)):
        write_pairs(generate(size, seed=seed), path / f"{name}.jsonl")
    return path


def demo(folder, output, *extra):
    return main(["demo", "--data", str(folder), "--output", str(output), *SMALL, *extra])


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("demo") / "run"
    assert demo(folder, output, "--ambiguity", "erm", "tv:0.5", "--seeds", "2") == 0
    return output


def sentence(capsys, status):
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert status == 2
    assert message.startswith("robust-rlhf: ")
    return message


def report_in(output):
    return json.loads((output / "report_files" / "report.json").read_text())


@pytest.mark.slow("it judges every model again")
def test_report_agrees_with_the_saved_models(folder, finished):
    report = report_in(finished)
    pairs = read_pairs(folder / "shifted.jsonl").pairs
    assert [arm["ambiguity"] for arm in report["arms"]] == ["erm", "tv:0.5"]
    for arm, slug in zip(report["arms"], ("erm", "tv-0.5"), strict=True):
        correct = []
        for seed in (0, 1):
            model, tokenizer = load_reward_model(str(finished / "runs" / slug / f"seed-{seed}" / "model"))
            correct.append(score_pairs(model, tokenizer, pairs, max_length=48) > 0)
        assert arm["suites"]["shifted"]["accuracy"] == pytest.approx(np.mean(correct))


def test_arms_share_seeds_and_differ_in_training(finished):
    runs = {
        (slug, seed): json.loads((finished / "runs" / slug / f"seed-{seed}" / "run.json").read_text())
        for slug in ("erm", "tv-0.5")
        for seed in (0, 1)
    }
    first_losses = {key: run["history"][0]["mean_loss"] for key, run in runs.items()}
    assert first_losses["erm", 0] == first_losses["tv-0.5", 0] != first_losses["erm", 1]
    assert runs["tv-0.5", 0]["history"][-2]["zero_share"] > 0.3
    assert runs["erm", 0]["history"][-2]["zero_share"] == 0


def test_page_shows_the_weighted_examples_the_logs_and_how_to_run_it_again(folder, finished):
    page = (finished / "report.html").read_text()
    assert "<svg" in page
    assert 'src="http' not in page
    sums = []
    for seed in (0, 1):
        newest = max(finished.glob(f"runs/tv-0.5/seed-{seed}/checkpoint-*"), key=lambda path: int(path.name[11:]))
        with np.load(newest / "ledger.npz") as ledger:
            sums.append(ledger["multiplier_sum"] / ledger["visits"])
    weights = np.mean(sums, axis=0)
    pairs = read_pairs(folder / "train.jsonl").pairs
    assert f"{weights.max():.2f} \N{MULTIPLICATION SIGN}" in page
    report = report_in(finished)
    [arm] = [arm for arm in report["details"][0]["arms"] if "examples" in arm]
    shown = [(item["id"], item["multiplier"]) for item in arm["examples"]["top"]]
    by_id = {pair.id: weight for pair, weight in zip(pairs, weights, strict=True)}
    assert shown[0][1] == pytest.approx(weights.max())
    assert all(by_id[name] == pytest.approx(weight) for name, weight in shown)
    record = json.loads((finished / "runs" / "erm" / "seed-1" / "run.json").read_text())
    [curves] = [run["curves"] for run in report["training"] if (run["arm"], run["seed"]) == (0, 1)]
    assert curves["mean_loss"] == [[row["step"], row["mean_loss"]] for row in record["history"] if "mean_loss" in row]
    assert report["command"].startswith("robust-rlhf demo --data")
    assert report["data"]["train"]["sha256"] == record["data"]["train"]["sha256"]
    assert report["data"]["suites"]["shifted"]["pairs"] == 30
    assert report["settings"]["settings"]["max_length"] == 48


@pytest.mark.slow("a demo")
def test_results_of_a_demo_are_results_of_a_sweep(finished, tmp_path, capsys):
    assert read_results(finished / "results").findings == ()
    assert main(["report", str(finished / "results"), "-o", str(tmp_path / "report.html")]) == 0
    assert (tmp_path / "report.html").read_text() == (finished / "report.html").read_text()


@pytest.mark.slow("a demo twice")
def test_resume_keeps_what_is_done_and_repeats_the_missing_run(folder, finished):
    models = sorted(finished.glob("runs/*/*/model/model.safetensors"))
    before = {path: path.read_bytes() for path in models}
    report = report_in(finished)
    redone = finished / "runs" / "tv-0.5" / "seed-1"
    (redone / "margins.npz").unlink()
    assert demo(folder, finished, "--ambiguity", "erm", "tv:0.5", "--seeds", "2", "--resume") == 0
    assert {path: path.read_bytes() for path in models} == before
    assert {name: report_in(finished)[name] for name in ("arms", "suites", "claims")} == {
        name: report[name] for name in ("arms", "suites", "claims")
    }


def test_resume_with_other_settings_is_refused(folder, finished, capsys):
    assert "ambiguity" in sentence(capsys, demo(folder, finished, "--ambiguity", "erm", "--seeds", "2", "--resume"))


def test_resume_on_other_suites_is_refused(folder, finished, capsys):
    """Finished runs keep their margins, which would be reported under the new suite's name."""
    suite = next(path for path in sorted(folder.iterdir()) if not path.name.startswith("train"))
    before = suite.read_bytes()
    suite.write_bytes(before[: before.rindex(b"\n", 0, -1) + 1])
    try:
        flags = ("--ambiguity", "erm", "tv:0.5", "--seeds", "2", "--resume")
        assert "another files" in sentence(capsys, demo(folder, finished, *flags))
    finally:
        suite.write_bytes(before)


def test_existing_demo_needs_resume_or_overwrite(folder, finished, capsys):
    assert "--resume" in sentence(capsys, demo(folder, finished))
    assert (finished / "report.html").exists()


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--ambiguity", "tv:2"], "[0, 1]"),
        (["--ambiguity", "nothing:1"], "cvar"),
        (["--seeds", "0"], "seeds"),
        (["--set", "learning_rate"], "NAME=VALUE"),
        (["--set", "lerning_rate=1"], "learning_rate"),
        (["--set", "max_length=wide"], "wide"),
        (["--set", "final=middle"], "average"),
        (["--set", "seed=3"], "seed"),
        (["--ambiguity", "tv:0.2", "tv:0.20"], "twice"),
        (["--eval-pairs", "0"], "at least 1"),
        (["--model", "no/such/model"], "no/such/model"),
        (["--data", "nowhere"], "nowhere"),
        (["--set", "learning_rate=[1"], "cannot be read"),
    ],
)
def test_wrong_demo_settings_get_one_sentence(folder, tmp_path, capsys, extra, said):
    assert said in sentence(capsys, demo(folder, tmp_path / "run", *extra))
    assert not (tmp_path / "run" / "settings.json").exists() or extra[0] == "--set"


def test_data_without_suites_is_refused_before_training(folder, tmp_path, capsys):
    (tmp_path / "train.jsonl").write_bytes((folder / "train.jsonl").read_bytes())
    assert "no suite" in sentence(capsys, demo(tmp_path, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_evaluate_writes_what_it_shows_and_compares_pair_by_pair(folder, finished, tmp_path, capsys):
    models = [str(finished / "runs" / slug / "seed-0" / "model") for slug in ("tv-0.5", "erm")]
    suite = str(folder / "id_test.jsonl")
    assert main(["evaluate", models[0], "--suite", suite, "--against", models[1], "--output", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    record, difference = metrics["suites"]["id_test"]["overall"], metrics["comparisons"]["id_test"]["overall"]
    rows = [json.loads(line) for line in (tmp_path / "margins.jsonl").read_text().splitlines()]
    assert record["accuracy"] == pytest.approx(np.mean([row["margin"] > 0 for row in rows]))
    assert f"{100 * record['accuracy']:.1f}" in shown
    assert "id_test" in shown  # a narrow terminal must not squeeze the names out
    assert "safety/refuse" in shown
    saved = np.load(finished / "runs" / "erm" / "seed-0" / "margins.npz")["id_test"]
    assert difference["difference"] == pytest.approx(record["accuracy"] - np.mean(saved > 0))
    assert difference["mcnemar_p"] <= 1
    card = (finished / "runs" / "erm" / "seed-0" / "model" / "README.md").read_text()
    assert f"| id_test | 40 | {np.mean(saved > 0):.3f} [" in card


def test_evaluate_refuses_what_is_no_reward_model(folder, tmp_path, capsys):
    status = main(["evaluate", str(tmp_path), "--suite", str(folder / "id_test.jsonl")])
    assert str(tmp_path) in sentence(capsys, status)


def test_headless_model_is_not_judged(folder, finished, tmp_path, capsys):
    """A base model would get a random head, and its accuracy would be noise."""
    model, tokenizer = load_reward_model(str(finished / "runs" / "erm" / "seed-0" / "model"))
    model.model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    status = main(["evaluate", str(tmp_path), "--suite", str(folder / "id_test.jsonl")])
    assert "no whole reward head" in sentence(capsys, status)


def test_data_commands(folder, tmp_path, capsys):
    assert main(["data", "builtin", str(tmp_path / "corpus"), "--train", "50", "--test", "10"]) == 0
    assert main(["data", "show", str(tmp_path / "corpus" / "train.jsonl")]) == 0
    assert "50 pairs" in capsys.readouterr().out
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a", "chosen": "b"\n')
    assert "line 1" in sentence(capsys, main(["data", "show", str(tmp_path / "bad.jsonl")]))


@pytest.mark.parametrize("kind", ["policy", "rewrd"])
def test_a_demo_is_of_a_kind_that_is_trained_on_pairs(kind, tmp_path, capsys):
    status = main(["demo", "--kind", kind, "--output", str(tmp_path / "demo")])
    assert f"kind must be one of sft, reward, dpo, got '{kind}'" in sentence(capsys, status)
    assert not (tmp_path / "demo").exists()
