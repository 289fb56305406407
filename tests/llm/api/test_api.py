"""The Python face: what a notebook says in five lines is what the commands do, with the same refusals."""

from __future__ import annotations

import json
import shutil
from importlib import metadata

import misbehaving
import numpy as np
import pandas as pd
import pytest
from command_lines import flags
from datasets import Dataset
from forked import start_ranks

import llm
from dro_core import TotalVariation
from llm.data.corpus.corpus import generate
from llm.data.pairs import read_pairs, write_pairs
from llm.judging.margins import reward_margins, score_pairs
from robust_rlhf import main

SMALL = {"max_length": 48, "max_steps": 3, "logging_steps": 1, "use_cpu": True, "disable_tqdm": True, "plain_share": 0,
         "ramp_share": 0, "per_device_train_batch_size": 8}  # fmt: skip
TRAIN, TEST = generate(48, seed=1), generate(30, seed=2)


def trained(folder, kind="reward", ambiguity="tv:0.5", **more):
    return llm.train(kind, TRAIN, model="tiny", ambiguity=ambiguity, output=folder, **SMALL, **more)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A plain and a robust reward model, judged by the test pairs."""
    folder = tmp_path_factory.mktemp("api")
    write_pairs(TEST, folder / "test.jsonl")
    return tuple(
        trained(folder / name, ambiguity=ambiguity, suites=folder / "test.jsonl")
        for name, ambiguity in (("plain", "erm"), ("robust", TotalVariation(0.5)))
    )


def test_training_from_python_is_the_command(tmp_path, runs):
    write_pairs(TRAIN, tmp_path / "train.jsonl")
    told = {"config": "reward-tiny", "train_file": tmp_path / "train.jsonl", "output_dir": tmp_path / "run",
             "ambiguity": "tv:0.5"} | SMALL  # fmt: skip
    assert main(["train", "reward", *flags(told)]) == 0
    there = llm.Run(tmp_path / "run")
    for name, weight in there.model.state_dict().items():
        assert (weight == runs[1].model.state_dict()[name]).all()
    assert there.ambiguity == runs[1].ambiguity == "tv:0.5"
    assert there.kind == "reward"
    assert list(there.table["step"])[:3] == [1, 2, 3]
    assert "Reward model against tv:0.5: 3 steps" in there._repr_html_()


def test_margins_are_those_of_the_model(runs):
    judged = llm.evaluate(runs[1], {"mine": TEST})
    margins = score_pairs(runs[1].model, runs[1].tokenizer, TEST, max_length=48, margin_of=reward_margins)
    assert judged.result["margins"]["mine"] == pytest.approx(margins)
    whole = judged.table.query("kind == 'overall'").iloc[0]
    assert whole["accuracy"] == pytest.approx(np.mean(np.heaviside(margins, 0.5)))


@pytest.mark.parametrize("form", ["run", "folder", "model folder", "objects"])
@pytest.mark.parametrize("suites", ["own", "path", "pairs"])
def test_every_way_to_name_models_and_suites_is_one(runs, form, suites):
    run = runs[1]
    model = {"run": run, "folder": str(run.folder), "model folder": run.folder / "model", "objects": run.loaded}[form]
    if suites == "own" and form != "run":
        with pytest.raises(ValueError, match="no suite"):
            llm.evaluate(model)
        return
    path = run.config.suites[0]
    judged = llm.evaluate(model, {"own": None, "path": path, "pairs": read_pairs(path).pairs}[suites])
    (margins,) = judged.result["margins"].values()
    assert margins == pytest.approx(llm.evaluate(run).result["margins"]["test"], abs=1e-6)


def test_a_comparison_is_that_of_the_command(runs, tmp_path, capsys):
    plain, robust = runs
    compared = llm.compare(robust, plain)
    paths = [str(run.folder / "model") for run in (robust, plain)]
    assert main(["evaluate", paths[0], "--against", paths[1], "--suite", *robust.config.suites,
                 "--output", str(tmp_path / "out")]) == 0  # fmt: skip
    told = json.loads((tmp_path / "out" / "metrics.json").read_text())["comparisons"]["test"]["overall"]
    whole = compared.table.query("group == 'all'").iloc[0]
    assert whole["difference"] == pytest.approx(told["difference"])
    assert whole["p"] == pytest.approx(told["p"])
    assert "tv:0.5 minus erm" in compared._repr_html_()
    assert "may be missing elsewhere" not in repr(compared)
    with pytest.raises(ValueError, match="different pairs"):
        llm.compare(llm.evaluate(plain, TEST[:10]), llm.evaluate(robust, TEST))


def test_reports_of_runs_and_of_folders(runs, tmp_path):
    page = llm.write_report(runs, tmp_path / "report.html")
    numbers = json.loads((tmp_path / "report_files" / "report.json").read_text())
    assert page.read_text().startswith("<!doctype html>")
    assert "<h1>Reward models against erm, tv:0.5</h1>" in page.read_text()
    assert [run["curves"]["mean_loss"] for run in numbers["training"]] == [
        [[row["step"], row["mean_loss"]] for row in run.record["history"] if "mean_loss" in row] for run in runs
    ]
    assert [arm["ambiguity"] for arm in numbers["arms"]] == ["erm", "tv:0.5"]
    accuracy = llm.evaluate(runs[1]).table.query("kind == 'overall'").iloc[0]["accuracy"]
    assert numbers["arms"][1]["suites"]["test"]["accuracy"] == pytest.approx(accuracy)
    assert llm.write_report(runs[1].folder, tmp_path / "one.html").exists()
    with pytest.raises(ValueError, match=r"\.html"):
        llm.write_report(runs, tmp_path / "report.pdf")
    with pytest.raises(ValueError, match="holds nothing to report"):
        llm.write_report(tmp_path, tmp_path / "none.html")


def test_a_diagnosis_shows_itself(runs):
    found = llm.diagnose(runs[1])
    titles = [finding.title for finding in found.findings]
    assert list(found.table["title"]) == [*titles, *found.unchecked]
    assert "checked: " in found._repr_html_()
    assert llm.diagnose(runs[1].folder).findings == found.findings


ROWS = [{"prompt": pair.prompt[-1]["content"], "chosen": pair.chosen, "rejected": pair.rejected} for pair in TEST]


@pytest.mark.parametrize(
    "form", [ROWS, pd.DataFrame(ROWS), Dataset.from_list(ROWS), iter(ROWS)], ids=lambda f: type(f).__name__
)
def test_rows_are_read_as_files_are(form, tmp_path):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    found, there = llm.read_pairs(form), llm.read_pairs(tmp_path / "rows.jsonl")
    texts = [(pair.prompt, pair.chosen, pair.rejected) for pair in there.pairs]
    assert [(pair.prompt, pair.chosen, pair.rejected) for pair in found.pairs] == texts
    assert found.layout == there.layout


@pytest.mark.parametrize(("wrong", "says"), [
    ([], "empty"), (7, "got int"), ({"prompt": "x"}, "got dict"), ([1], "row 1 is a int"),
    ([{"prompt": "x"}], "objects"), ("nowhere.jsonl", "does not exist"),
])  # fmt: skip
def test_what_holds_no_pairs_says_so(wrong, says):
    with pytest.raises(ValueError, match=says):
        llm.read_pairs(wrong)


@pytest.mark.parametrize(("changes", "says"), [
    ({"lerning_rate": 1}, "did you mean 'learning_rate'"), ({"ambiguity": "tv:2"}, "radius"),
    ({"dry_run": True}, "robust-rlhf train --dry_run"), ({"suites": {"a/b": TEST}}, "stem of a file"),
])  # fmt: skip
def test_refusals_are_those_of_the_command_and_leave_nothing(changes, says, tmp_path):
    with pytest.raises(ValueError, match=says):
        llm.train("reward", TRAIN, **{"model": "tiny", "output": tmp_path / "run", **SMALL, **changes})
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="no kind of training 'rewrd'"):
        llm.train("rewrd", TRAIN)


def test_a_run_in_the_way_names_the_arguments_of_python(runs):
    with pytest.raises(FileExistsError, match=r"resume=True, replace it with overwrite=True") as refused:
        trained(runs[1].folder)
    assert "--" not in str(refused.value)


def test_without_an_output_the_run_goes_with_its_value(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = llm.train("sft", TRAIN, model="tiny", suites={"mine": TEST[:8]}, **(SMALL | {"max_steps": 1}))
    folder = run.folder
    assert llm.evaluate(run).suites.keys() == {"mine"}
    assert not list(tmp_path.iterdir())
    del run
    assert not folder.exists()


def test_a_model_that_was_loaded_already_is_a_start(runs, tmp_path):
    more = SMALL | {"max_steps": 1, "learning_rate": 0.0}
    run = llm.train("reward", TRAIN, model=runs[0].loaded, output=tmp_path / "run", **more)
    assert llm.evaluate(run, TEST).result["margins"]["suite"] == pytest.approx(
        llm.evaluate(runs[0], TEST).result["margins"]["suite"], abs=1e-6
    )


def test_policies_need_a_reference_and_runs_know_their_own(tmp_path):
    start = llm.train("sft", TRAIN, model="tiny", output=tmp_path / "sft", **(SMALL | {"max_steps": 1}))
    run = llm.train("dpo", TRAIN, model=str(start.folder), output=tmp_path / "dpo", **(SMALL | {"max_steps": 1}))
    own = llm.evaluate(run, TEST).result["margins"]["suite"]
    told = llm.evaluate(run.folder, TEST, reference=str(start.folder)).result["margins"]["suite"]
    assert own == pytest.approx(told, abs=1e-6)
    assert llm.evaluate(run.folder, TEST).result["margins"]["suite"] == pytest.approx(told, abs=1e-6)
    with pytest.raises(ValueError, match="is a policy"):
        llm.evaluate(start.folder, TEST)


def test_the_face_is_typed_lazy_and_whole():
    assert set(llm.__all__) <= set(dir(llm))
    for name in llm.__all__:
        assert getattr(llm, name).__doc__
    assert llm.__version__ == metadata.version("robust-rlhf")
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        llm.trian  # noqa: B018


def planted(folder, evil):
    """A run whose model brings code, whose record asks for it to be trusted."""
    config = json.loads((folder / "model" / "config.json").read_text())
    classes = ("AutoConfig", "AutoModelForSequenceClassification", "AutoModel")
    (folder / "model" / "config.json").write_text(
        json.dumps(config | {"auto_map": dict.fromkeys(classes, "evil.Evil")})
    )
    (folder / "model" / "evil.py").write_text(f"import os\nos.mkdir({str(evil)!r})\n")
    record = json.loads((folder / "run.json").read_text())
    record["config"]["trust_remote_code"] = True
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "seal.json").unlink()
    return folder


def test_a_record_cannot_ask_to_be_trusted(runs, tmp_path):
    folder = planted(shutil.copytree(runs[0].folder, tmp_path / "run"), tmp_path / "ran")
    run = llm.Run(folder)
    llm.evaluate(run, TEST[:4])
    assert run.model is not None
    assert not run.config.trust_remote_code
    assert not (tmp_path / "ran").exists()
    with pytest.raises(Exception, match=r"(?s).+"):  # asked for, it runs, and is no model
        llm.evaluate(run, TEST[:4], trust_remote_code=True)
    assert (tmp_path / "ran").exists()


def test_objects_stand_wherever_paths_do(runs, tmp_path):
    frame = pd.DataFrame(ROWS)
    few = SMALL | {"max_steps": 1}
    run = llm.train("reward", frame, model=runs[0], output=tmp_path / "run", eval_file=frame, **few)
    assert run.record["data"]["eval"]["pairs"] == len(ROWS)
    assert run.record["config"]["model"] == str(runs[0].folder)
    assert llm.compare(run, runs[0], frame).names == ("erm", "erm")
    assert llm.evaluate(run, iter(ROWS[:5])).suites.keys() == {"suite"}
    with pytest.raises(ValueError, match="an adapter alone needs its base in a folder"):
        llm.train("reward", frame, model=run.loaded, lora_rank=2, merge_adapter=False, **few)


def test_prompts_need_no_answers(runs, tmp_path):
    start = llm.train("sft", TRAIN, model="tiny", output=tmp_path / "sft", **(SMALL | {"max_steps": 1}))
    rows = [{"prompt": row["prompt"]} for row in ROWS]
    few = {name: SMALL[name] for name in ("logging_steps", "use_cpu", "disable_tqdm")}
    run = llm.train("policy", rows, model=start, reward_model=str(runs[0].folder), output=tmp_path / "policy",
                    max_steps=1, max_length=96, max_new_tokens=8, prompts_per_step=4, samples=2, **few)  # fmt: skip
    assert run.kind == "policy"
    assert run.record["data"]["train"]["prompts"] > 1


def test_functions_score_answers(tmp_path):
    start = llm.train("sft", TRAIN, model="tiny", output=tmp_path / "sft", **(SMALL | {"max_steps": 1}))
    rows = [{"prompt": row["prompt"], "answer": "yes"} for row in ROWS]
    few = {name: SMALL[name] for name in ("logging_steps", "use_cpu", "disable_tqdm")}
    few |= {"max_steps": 1, "max_length": 96, "max_new_tokens": 8, "prompts_per_step": 4, "samples": 2}
    run = llm.train(
        "policy", rows, model=start, reward_model=[misbehaving.half, "exact:2"], gold=misbehaving.half, **few
    )
    assert run.record["config"]["reward_model"] == [f"{misbehaving.__file__}:half", "exact:2"]
    assert (run.record["history"][0]["reward/half"], run.record["history"][0]["gold"]) == (0.5, 0.5)
    for elsewhere in (lambda completions: [], test_functions_score_answers.__class__, print):
        with pytest.raises(ValueError, match="stands in no file of its own"):
            llm.train("policy", rows, model=start, reward_model=elsewhere, **few)


def test_processes_need_one_folder(monkeypatch):
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="2 processes need one folder to train into: give output"):
        llm.train("reward", TRAIN, model="tiny", **SMALL)


@pytest.mark.exhaustive(turns=8)
def test_two_processes_are_one_run(runs, tmp_path):
    said = [rank.communicate(timeout=120)[0] for rank in start_ranks(ranked, tmp_path / "run")]
    assert llm.Run(tmp_path / "run").record["effective_batch"] == 8, said


def ranked(folder):
    llm.train("reward", TRAIN, model="tiny", ambiguity="tv:0.5", output=folder,
              **(SMALL | {"per_device_train_batch_size": 4, "dataloader_drop_last": True}))  # fmt: skip
    return 0
