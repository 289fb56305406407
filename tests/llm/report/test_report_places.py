"""One page for whatever can be reported: runs, finished or not, evaluations, demos, pipelines; damaged ones too."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from pages import Page
from results_samples import margins_of, pairs_of, run_record, write_sample
from sample_reports import said, text_of

import robust_rlhf
from llm.data.pairs import write_pairs
from llm.judging.accuracy import compare, summarise
from llm.judging.tables import write_metrics
from llm.report.sources.evaluations import write_evaluation
from llm.report.sources.places import content_of
from llm.results.store import ResultsError
from llm.run.files import write_json
from llm.run.finished import seal

SUITES = {"id_test": (80, ("chat", "code")), "ood": (60, ("",))}
TOP = [{"id": f"t{n}", "source": "web", "category": "chat", "prompt": "Which?", "chosen": "yes", "rejected": "no",
        "multiplier": 4.0 - n, "visits": 2, "margin": -1.0} for n in range(3)]  # fmt: skip


def run_folder(folder, ambiguity="tv:0.2", *, seed=0, data=None):
    """A judged run, as training leaves it, and the files of its suites in ``data``."""
    data = data or folder.parent
    pairs = {name: pairs_of(count, categories, prefix=name) for name, (count, categories) in SUITES.items()}
    for name, own in pairs.items():
        write_pairs(own, data / f"{name}.jsonl")
    margins = {name: margins_of(own, ambiguity, seed) for name, own in pairs.items()}
    folder.mkdir(parents=True)
    record = run_record(ambiguity, seed)
    record["config"] |= {"suites": [str(data / f"{name}.jsonl") for name in SUITES]}
    by_source = {"web": {"pairs": 300, "multiplier": 1.2}, "book": {"pairs": 100, "multiplier": 0.4}}
    record["adversary"] = {"by_source": by_source, "by_category": {}, "top": TOP, "bottom": TOP[::-1]}
    if ambiguity == "erm":
        record["adversary"] |= {side: [pair | {"multiplier": 1.0} for pair in TOP] for side in ("top", "bottom")}
    write_json(folder / "run.json", record)
    write_json(folder / "settings.json", record["config"] | {"resumed_from": []})
    result = {"suites": {name: summarise(own, margins[name]) for name, own in pairs.items()}, "margins": margins}
    write_metrics(result, pairs, folder)
    return pairs, result


@pytest.fixture
def run(tmp_path):
    return tmp_path / "run", *run_folder(tmp_path / "run")


def test_a_run_alone_gets_the_page_of_a_sweep(run, tmp_path):
    folder, _, result = run
    report = content_of(folder)
    [arm] = report["arms"]
    for name, summary in result["suites"].items():
        entry = arm["suites"][name]
        assert entry["accuracy"] == pytest.approx(summary["overall"]["accuracy"])
        assert (entry["low"], entry["high"]) == pytest.approx(tuple(summary["overall"][end] for end in ("low", "high")))
    assert report["story"]["sentence"].startswith("tv:0.2 is right on")
    assert any("--ambiguity erm" in line for line in report["story"]["next"])
    last = [99.0, np.mean([1 / 98, 1 / 99, 1 / 100])]  # of a hundred steps in thirty stretches
    assert report["training"][0]["curves"]["mean_loss"][-1] == pytest.approx(last)
    text = text_of(report, tmp_path)
    assert '<section aria-labelledby="training">' in text
    assert '<section aria-labelledby="difference">' not in text  # there is nothing to compare
    assert report["details"][0]["arms"][0]["weights"]["source"][0]["multiplier"] == 1.2
    assert '<section aria-labelledby="favourites">' in text
    assert "plain training's last look" not in text  # there was none


def test_pairs_that_changed_leave_the_numbers_and_a_note(run):
    folder, pairs, _ = run
    write_pairs(pairs["ood"][1:], folder.parent / "ood.jsonl")
    (folder.parent / "id_test.jsonl").unlink()
    report = content_of(folder)
    assert said(report, "The pairs of ood cannot be shown", "they have changed")
    assert said(report, "The pairs of id_test cannot be shown", "id_test.jsonl")
    assert report["arms"][0]["suites"]["ood"]["low"] is None
    assert report["arms"][0]["suites"]["ood"]["accuracy"] is not None


def test_a_mapping_of_the_run_is_no_fault_of_a_suite_in_a_layout_of_its_own(run):
    """The mapped columns are in the training file and one suite; the other suite is read as it is."""
    folder, pairs, _ = run
    rows = [{"nr": p.id, "ask": p.prompt[0]["content"], "good": p.chosen, "bad": p.rejected} for p in pairs["ood"]]
    (folder.parent / "ood.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    record = json.loads((folder / "run.json").read_text())
    record["config"]["columns"] = "prompt=ask,chosen=good,rejected=bad,id=nr"
    write_json(folder / "run.json", record)
    report = content_of(folder)
    assert not said(report, "cannot be shown")
    assert all(entry["low"] is not None for entry in report["arms"][0]["suites"].values())


@pytest.mark.parametrize(("ambiguity", "kind"), [("tv:0.2,by=topic", "topic"), ("tv:0.2,by=source", "source")])
def test_groups_that_a_set_weighs_are_those_of_the_report(tmp_path, ambiguity, kind):
    """A column of the suite that only the set names, and one that every pair has."""
    folder = tmp_path / "run"
    pairs, _ = run_folder(folder, ambiguity)
    for name, own in pairs.items():
        topics = [("tax", "tax", "visa")[row % 3] for row in range(len(own))]
        named = [
            replace(p, kept=(("topic", t),), source=t if kind == "source" else p.source)
            for p, t in zip(own, topics, strict=True)
        ]
        write_pairs(named, tmp_path / f"{name}.jsonl")
    report = content_of(folder, smallest=10)
    assert said(report, f"Groups are not categories here: id_test by {kind}, ood by {kind}")
    tables = report["details"][0]["categories"]["suites"]
    assert {name: sorted(table) for name, table in tables.items()} == {name: ["tax", "visa"] for name in SUITES}
    assert report["arms"][0]["worst"]["name"].split(" / ")[1] in ("tax", "visa")
    assert f"ood by {kind}" in text_of(report, tmp_path)


def test_suites_are_found_from_another_folder(run, tmp_path, monkeypatch):
    folder, _, _ = run
    record = json.loads((folder / "run.json").read_text())
    record["config"]["suites"] = ["id_test.jsonl", "ood.jsonl"]  # as seen from where it was started
    write_json(folder / "run.json", record)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert content_of(folder)["arms"][0]["suites"]["ood"]["low"] is not None


@pytest.mark.slow("runs to show")
def test_several_runs_make_one_page_with_the_plain_one_to_compare_with(run, tmp_path):
    folder, pairs, result = run
    run_folder(tmp_path / "plain", "erm", data=tmp_path)
    report = content_of(folder, tmp_path / "plain")
    assert report["baseline"] == "erm"
    [difference] = [arm["suites"]["ood"]["difference"] for arm in report["arms"] if arm["ambiguity"] == "tv:0.2"]
    found = compare(pairs["ood"], result["margins"]["ood"], margins_of(pairs["ood"], "erm", 0))["overall"]
    assert difference["difference"] == pytest.approx(found["difference"], abs=1e-6)
    page = tmp_path / "page.html"
    assert robust_rlhf.main(["report", str(tmp_path / "plain"), str(folder), "-o", str(page)]) == 0
    assert page.exists()


def test_what_cannot_stand_on_one_page_is_refused_with_the_route(run, tmp_path):
    folder, *_ = run
    run_folder(tmp_path / "twin", data=tmp_path)
    with pytest.raises(ResultsError, match=r"2 runs are against tv:0\.2 with seed 0"):
        content_of(folder, tmp_path / "twin")
    with pytest.raises(ResultsError, match=r"is no run.* --against OTHER"):
        content_of(folder, tmp_path)


def test_damaged_metrics_are_told_and_the_rest_stays(run):
    folder, _, _ = run
    (folder / "metrics.json").write_text('{"suites": {"id_')
    report = content_of(folder)
    assert said(report, "What judged the model cannot be shown", "metrics.json")
    assert report["suites"] == {}
    assert report["training"]


def test_an_altered_record_is_one_sentence(run, tmp_path, capsys):
    folder, _, _ = run
    seal(folder)
    (folder / "run.json").write_text((folder / "run.json").read_text().replace("tv:0.2", "tv:0.9"))
    assert robust_rlhf.main(["report", str(folder), "-o", str(tmp_path / "x.html")]) == 2
    error = capsys.readouterr().err
    assert "run.json" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "x.html").exists()


def unfinished(folder, steps=4):
    """What a run leaves that was killed behind its first checkpoint."""
    (folder / f"checkpoint-{steps}").mkdir(parents=True)
    write_json(folder / "settings.json", {"ambiguity": "tv:0.3", "model": "tiny", "seed": 3, "learning_rate": 0.01})
    rows = [{"step": n, "mean_loss": 1 / n, "effective_sample_size": 8.0} for n in range(1, steps + 1)]
    write_json(folder / f"checkpoint-{steps}" / "trainer_state.json", {"log_history": rows, "global_step": steps})


def test_a_half_finished_run_shows_what_it_logged(tmp_path):
    unfinished(tmp_path / "run")
    report = content_of(tmp_path / "run")
    assert report["story"]["sentence"].startswith("Trained and not judged")
    assert said(report, "The run is not finished", "step 4")
    assert report["training"][0]["curves"]["mean_loss"] == [[float(n), 1 / n] for n in range(1, 5)]
    assert "Mean loss" in text_of(report, tmp_path)


@pytest.mark.parametrize("what", ["nothing", "beginnings", "missing"])
def test_what_holds_nothing_is_one_sentence(what, tmp_path, capsys):
    if what != "missing":
        (tmp_path / "empty").mkdir()
    if what == "beginnings":
        write_json(tmp_path / "empty" / "settings.json", {"ambiguity": "tv:0.3"})
    assert robust_rlhf.main(["report", str(tmp_path / "empty"), "-o", str(tmp_path / "x.html")]) == 2
    assert "holds nothing to report" in capsys.readouterr().err


def test_an_evaluation_compares_its_two_models(tmp_path):
    found = {name: run_folder(tmp_path / name, ambiguity) for name, ambiguity in (("a", "tv:0.2"), ("b", "erm"))}
    (tmp_path / "judged").mkdir()
    judged = [
        (name, json.loads((tmp_path / name / "run.json").read_text()), result, pairs)
        for name, (pairs, result) in found.items()
    ]
    write_evaluation(tmp_path / "judged" / "results", judged, notes=["They differ in the seed."])
    report = content_of(tmp_path / "judged")
    assert [(arm["ambiguity"], arm["plain"]) for arm in report["arms"]] == [("b", True), ("a", False)]
    assert said(report, "They differ in the seed.")
    assert report["story"]["sentence"].startswith("Nothing is shown: keep b until more is known.")
    right = {name: np.mean(result["margins"]["ood"] > 0) for name, (_, result) in found.items()}
    [weighed] = [one for one in report["details"][0]["arms"] if "examples" in one]
    assert report["arms"][weighed["arm"]]["ambiguity"] == "a"  # the plain one had no favourites
    entry = report["arms"][1]["suites"]["ood"]["difference"]
    assert entry["difference"] == pytest.approx(right["a"] - right["b"])
    assert "Difference to b" in text_of(report, tmp_path)


def test_an_evaluation_of_an_earlier_version_has_its_numbers(run):
    folder, _, result = run
    for name in ("run.json", "settings.json", "margins.jsonl"):
        (folder / name).unlink()
    report = content_of(folder)
    expected = result["suites"]["ood"]["overall"]["accuracy"]
    assert report["arms"][0]["suites"]["ood"]["accuracy"] == pytest.approx(expected)
    assert said(report, "evaluate again")


def test_a_demo_is_reported_by_its_own_folder(tmp_path):
    write_sample(tmp_path / "demo" / "results", ambiguities=("erm", "tv:0.2"), seeds=1, train=50, whole=True)
    report = content_of(tmp_path / "demo", families=0)
    assert report["title"] == "A demo"
    assert [arm["ambiguity"] for arm in report["arms"]] == ["erm", "tv:0.2"]


def pipeline(folder):
    """Two reward models, two policies with their answers, and what compared them."""
    for name, ambiguity in (("standard", "erm"), ("robust", "tv:0.2")):
        run_folder(folder / "seed-0" / "reward" / name, ambiguity, data=folder.parent)
        write_json(folder / "seed-0" / "reward" / name / "stage.json", {"settings": {}, "inputs": {}, "judged": True})
    for number, name in enumerate(("standard-standard", "robust-robust")):
        place = folder / "seed-0" / "policy" / name
        place.mkdir(parents=True)
        record = run_record("erm", 0) | {"kind": "policy"}
        record["config"] |= {"suites": [str(folder.parent / "ood.jsonl")]}
        write_json(place / "run.json", record)
        write_json(place / "stage.json", {"settings": {}, "inputs": {}, "judged": True})
        ids = [f"ood{n}" for n in range(8)]
        write_json(place / "answers.json", {"ood": [{"id": own, "answers": [f"{name} says {own}"]} for own in ids]})
        scores = np.zeros((8, 1)) + number * (np.arange(8)[:, None] == 5)
        np.savez(place / "scores.npz", **{"ood/gold": scores})
    rows = [{"suite": "ood", "arm": arm, "gold": {"mean": 0.1 * n, "low": 0.0, "high": 0.3}, "kl": 0.5, "prompts": 8,
             "difference": None if not n else {"mean": 0.1, "low": 0.02, "high": 0.18}, "seeds": 1}
            for n, arm in enumerate(("standard/standard", "robust/robust"))]  # fmt: skip
    write_json(
        folder / "ablation.json", {"arms": rows, "best_of": [], "gold_while_training": {"robust/robust": "rises"}}
    )


def test_a_pipeline_shows_rewards_and_policies_on_one_page(tmp_path):
    pipeline(tmp_path / "pipe")
    report = content_of(tmp_path / "pipe", families=0)
    assert [arm["ambiguity"] for arm in report["arms"]] == ["erm", "tv:0.2"]
    assert report["story"]["sentence"].startswith("Use the policy robust/robust: gold +0.100 [0.020, 0.180]")
    assert report["story"]["shown"] is True
    first = report["policies"]["answers"][0]
    assert first["id"] == "ood5"  # where the policies lie furthest apart
    assert [(arm["answer"], arm["score"]) for arm in first["arms"]] == [
        ("standard-standard says ood5", 0.0),
        ("robust-robust says ood5", 1.0),
    ]
    assert first["prompt"] == "Which one is it in ood, number 5?"
    page = Page()
    page.feed(text := text_of(report, tmp_path))
    assert "robust-robust says ood5" in text
    assert "Gold of robust/robust while training: rises" in text


def test_a_policy_that_gains_on_one_suite_and_loses_on_another_is_not_recommended(tmp_path):
    pipeline(tmp_path / "pipe")
    told = json.loads((tmp_path / "pipe" / "ablation.json").read_text())
    worse = {"suite": "other", "difference": {"mean": -0.2, "low": -0.3, "high": -0.1}}
    told["arms"] += [told["arms"][0] | {"suite": "other"}, told["arms"][1] | worse]
    write_json(tmp_path / "pipe" / "ablation.json", told)
    sentence = content_of(tmp_path / "pipe", families=0)["story"]["sentence"]
    assert sentence.startswith("It depends: the policy robust/robust has gold +0.100")
    assert "on ood and \u22120.200 [\u22120.300, \u22120.100] on other" in sentence


def test_a_pipeline_that_goes_on_says_what_is_missing(tmp_path):
    pipeline(tmp_path / "pipe")
    (tmp_path / "pipe" / "ablation.json").unlink()
    (tmp_path / "pipe" / "seed-0" / "reward" / "robust" / "run.json").unlink()
    shutil.rmtree(tmp_path / "pipe" / "seed-0" / "policy" / "robust-robust")
    report = content_of(tmp_path / "pipe", families=0)
    assert said(report, "Not finished, so not shown: seed-0/reward/robust")
    assert said(report, "The policies are not compared")
    assert len(report["arms"]) == 1
