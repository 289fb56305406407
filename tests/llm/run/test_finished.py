"""Finished runs that were damaged afterwards, and folders that hold no run: one sentence that says which file."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from pathlib import Path

import pytest
from checkpoint_runs import KINDS, command, halted, place_of, same_end
from forked import Forked
from test_checkpoints import cut, flipped

from dro_core.messages import check_folder
from llm.data.corpus.corpus import write_corpus
from llm.demo import demo as demos
from llm.run import sealed
from llm.run.finished import SEAL
from llm.run.folder import check_output
from robust_rlhf import COMMANDS, main


@pytest.fixture(scope="module")
def place(once):
    return place_of(once)


def copy(place, kind, tmp_path, *, sealed=True):
    run = shutil.copytree(place.runs / kind, tmp_path / kind)
    if not sealed:
        (run / SEAL).unlink()
    return run


def digit(path):
    """Another digit where there is one: still JSON, still a number."""
    text = path.read_text()
    where = next(k for k in range(len(text) // 2, len(text)) if text[k] in "12345678")
    path.write_text(text[:where] + str(int(text[where]) + 1) + text[where + 1 :])


def status_of(argv):
    try:
        return main(argv)
    except SystemExit as end:  # of argparse
        return end.code


def said_by(capsys, caplog, argv):
    """Exit status, and the lines of errors and of our warnings."""
    caplog.clear()
    capsys.readouterr()
    with caplog.at_level(logging.WARNING):
        status = status_of(list(map(str, argv)))
    bars = re.compile(r"^(\[transformers\]|.*[━╸]|\s*$)")
    errors = [line for line in capsys.readouterr().err.splitlines() if not bars.match(line)]
    warnings = [record.getMessage() for record in caplog.records if record.name.startswith("llm")]
    return status, "".join(f"{line}\n" for line in [*warnings, *errors])


def evaluate(run, place):
    ranked = [] if run.name == "reward" else ["--reference", "none"]
    return ["evaluate", run, "--suite", place.inputs / "train.jsonl", "--eval-pairs", "4", *ranked]


# -- the seal --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_seal_lists_what_a_run_exported_as_it_is(kind, place):
    run = place.runs / kind
    files = json.loads((run / SEAL).read_text())["files"]
    there = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    checkpoints = {name for name in there if name.startswith("checkpoint-")}
    assert there - checkpoints - {SEAL, "model/README.md"} == set(files)
    for name, facts in files.items():
        content = (run / name).read_bytes()
        assert facts == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


@pytest.mark.parametrize("kind", KINDS)
def test_any_damage_to_any_file_of_a_finished_run_is_named(kind, place, tmp_path, capsys, caplog):
    run = copy(place, kind, tmp_path)
    files = [name for name in json.loads((run / SEAL).read_text())["files"] if name.startswith("model/")]
    assert {"model/model.safetensors", "model/tokenizer.json", "model/config.json"} <= set(files)
    looks = [(name, evaluate(run, place)) for name in files]
    looks += [("run.json", ["doctor", run]), ("run.json", evaluate(run, place)), (SEAL, evaluate(run, place))]
    looks += [("settings.json", evaluate(run, place)), (SEAL, ["doctor", run])]
    if kind in ("sft", "policy"):
        export = ["export", run, "--to", "rewardbench", "-o", tmp_path / "export"]
        looks += [("run.json", export), ("model/model.safetensors", export)]
    for name, argv in looks:
        whole = (run / name).read_bytes()
        for damage in (flipped, cut):
            damage(run / name)
            status, said = said_by(capsys, caplog, argv)
            assert (status, said.count("\n")) == (2, 1), (name, argv[0], said)
            assert f"{run / name} " in said, (name, argv[0], said)
            (run / name).write_bytes(whole)
    assert said_by(capsys, caplog, evaluate(run, place))[0] == 0


def test_what_people_add_or_edit_is_no_damage_nor_is_a_folder_without_a_seal(place, tmp_path, capsys, caplog):
    run = copy(place, "reward", tmp_path)
    (run / "model" / "README.md").write_text("my own card")
    (run / "model" / "notes.txt").write_text("mine")
    (run / "metrics.csv").write_text("mine")
    assert said_by(capsys, caplog, evaluate(run, place)) == (0, "")
    digit(run / "run.json")
    moved = shutil.copytree(run / "model", tmp_path / "elsewhere" / "model")
    flipped(moved / "model.safetensors")
    assert said_by(capsys, caplog, evaluate(moved.rename(moved.with_name("reward")), place))[0] == 0
    (run / SEAL).unlink()
    assert said_by(capsys, caplog, evaluate(run, place)) == (0, "")
    assert "cannot" not in said_by(capsys, caplog, ["doctor", run])[1]


def test_a_finished_model_is_hashed_once_by_the_run_that_starts_from_it(place, tmp_path, monkeypatch):
    run, hashed, digest = copy(place, "reward", tmp_path), [], hashlib.file_digest

    def counted(stream, name):
        hashed.append(Path(stream.name))
        return digest(stream, name)

    monkeypatch.setattr(sealed, "_SETTLED", -1)
    monkeypatch.setattr(sealed.hashlib, "file_digest", counted)
    assert main(command(place, "reward", tmp_path / "next", model=run, max_steps=1)) == 0
    assert hashed.count(run / "model" / "model.safetensors") == 1
    with (run / "model" / "model.safetensors").open("r+b") as weights:
        weights.write(b"\0")
    before = len(hashed)
    assert main(command(place, "reward", tmp_path / "last", model=run, max_steps=1)) == 2
    assert run / "model" / "model.safetensors" in hashed[before:]  # it was touched, so it is read again


@pytest.mark.parametrize("kind", KINDS)
def test_resuming_a_damaged_finished_run_writes_it_again(kind, place, tmp_path):
    run = copy(place, kind, tmp_path)
    flipped(run / "model" / "model.safetensors")
    digit(run / "run.json")
    assert main(command(place, kind, run, resume=True)) == 0
    assert same_end(run, place.runs / kind)
    ours, before = (json.loads((folder / SEAL).read_text())["files"] for folder in (run, place.runs / kind))
    assert ours.keys() == before.keys()
    assert ours["model/model.safetensors"] == before["model/model.safetensors"]


def test_metrics_written_over_those_of_a_run_are_listed_anew(place, tmp_path, capsys, caplog):
    run = copy(place, "reward", tmp_path)
    for pairs in ("4", "5"):
        judged = [*evaluate(run, place), "--output", run]
        judged[judged.index("--eval-pairs") + 1] = pairs
        assert said_by(capsys, caplog, judged) == (0, "")
        assert "cannot" not in said_by(capsys, caplog, ["doctor", run])[1]
    whole = (run / "metrics.json").read_text()
    digit(run / "metrics.json")
    status, said = said_by(capsys, caplog, ["doctor", run])
    assert (status, said.startswith(f"robust-rlhf: {run / 'metrics.json'} ")) == (2, True)
    (run / "metrics.json").write_text(whole)
    flipped(run / SEAL)
    status, said = said_by(capsys, caplog, [*evaluate(place.runs / "reward", place), "--output", run])
    assert (status, str(run / SEAL) in said) == (2, True)


@pytest.mark.parametrize("kind", ["reward", "policy"])
def test_a_resumed_run_that_ends_before_its_export_is_not_damaged(kind, place, tmp_path, capsys, caplog, monkeypatch):
    run = copy(place, kind, tmp_path)
    before = (run / "settings.json").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("llm.training.run.save_run", lambda *_: (_ for _ in ()).throw(OSError("power failure")))
        patch.setattr("llm.policy.run._export", lambda *_: (_ for _ in ()).throw(OSError("power failure")))
        assert main(command(place, kind, run, resume=True, force=True, weight_decay=0.5)) == 2
    assert (run / "settings.json").read_bytes() != before
    assert said_by(capsys, caplog, evaluate(run, place)) == (0, "")


def test_two_writes_within_one_tick_of_the_clock_are_told_apart(tmp_path, monkeypatch):
    state = sealed._state

    def ticks(descriptor):  # of a clock of seconds
        return *state(descriptor)[:3], *(moment - moment % 10**9 for moment in state(descriptor)[3:])

    monkeypatch.setattr(sealed, "_state", ticks)
    file = tmp_path / "file"
    for turn in range(30):
        content = b"%03d" % turn
        file.write_bytes(content)
        assert sealed.file_hash(file) == hashlib.sha256(content).hexdigest()


# -- records that are none -------------------------------------------------------------------------

HOSTILE = {
    "{}": b"{}",
    "[]": b"[]",
    "one entry": b'{"a": 1}',
    "cut": b'{"config": {"model": "x"',
    "binary": bytes(range(256)),
    "deep": b"[" * 100_000,
    "other kinds": b'{"config": 5, "history": 7, "suites": [], "log_history": [1], "settings": 1, "inputs": 2, "judged": 3}',  # noqa: E501
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_a_record_that_is_none_is_named_by_whoever_reads_it(content, place, tmp_path, capsys, caplog):
    sft, unfinished = copy(place, "sft", tmp_path, sealed=False), halted(place, "reward", tmp_path / "unfinished")
    (sft / "metrics.json").write_text("{}")
    export = ["export", sft, "--to", "rewardbench", "-o", tmp_path / "export"]
    resume = command(place, "reward", unfinished, resume=True)
    state = unfinished / "checkpoint-2" / "trainer_state.json"
    rows = [
        (sft / "run.json", ["doctor", sft], 2),
        (sft / "run.json", export, 2),
        (sft / "run.json", evaluate(sft, place), 0),  # whose model is whole: a warning
        (sft / "metrics.json", ["doctor", sft], 2),
        (unfinished / "settings.json", resume, 2),
        (state, ["doctor", unfinished], 2),
        (unfinished / "checkpoint-2" / "ledger.npz", ["doctor", unfinished], 2),
        (state, resume, 2),
    ]
    if content not in (b"{}", b'{"a": 1}', HOSTILE["other kinds"]):  # whose entries may all be missing
        rows.append((unfinished / "settings.json", ["doctor", unfinished], 2))
    for file, argv, expected in rows:
        whole = file.read_bytes()
        file.write_bytes(content)
        status, said = said_by(capsys, caplog, argv)
        assert (status, said.count("\n")) == (expected, 1), (file, argv[0], said)
        assert str(file) in said, (file, argv[0], said)
        file.write_bytes(whole)


# -- demos -----------------------------------------------------------------------------------------


def demo(folder, *more):
    settings = ["max_steps=1", "use_cpu=true", "max_length=48", "disable_tqdm=true"]
    return ["demo", "--ambiguity", "erm", "--max-pairs", "32", "--eval-pairs", "8", "--output", folder,
            "--set", *settings, *more]  # fmt: skip


@pytest.fixture(scope="module")
def done(once):
    return once("finished-demo", lambda folder: main(list(map(str, demo(folder / "demo")))))


def test_a_demo_names_what_was_damaged_and_makes_it_again(done, tmp_path, capsys, caplog):
    shutil.copytree(done / "demo", tmp_path / "demo")
    run = tmp_path / "demo" / "runs" / "erm" / "seed-0"
    damages = {"model/model.safetensors": flipped, "metrics.json": digit, "run.json": digit, "margins.npz": flipped,
               "metrics.csv": cut}  # fmt: skip
    for name, damage in damages.items():
        whole = (run / name).read_bytes()
        damage(run / name)
        status, said = said_by(capsys, caplog, demo(tmp_path / "demo", "--resume"))
        assert status == 0
        assert f"is exported and judged again: what it left is damaged ({run / name} " in said
        assert name in ("run.json", "margins.npz") or (run / name).read_bytes() == whole
        assert said_by(capsys, caplog, demo(tmp_path / "demo", "--resume")) == (0, "")


def test_a_demo_of_another_corpus_is_refused_and_a_damaged_one_is_made_again(
    done, tmp_path, capsys, caplog, monkeypatch
):
    folder = shutil.copytree(done / "demo", tmp_path / "demo")
    train = folder / "data" / "train.jsonl"
    whole = train.read_bytes()
    flipped(train)
    status, said = said_by(capsys, caplog, demo(folder, "--resume"))
    assert (status, f"{folder}/data is made again" in said) == (0, True)
    assert train.read_bytes() == whole
    with monkeypatch.context() as patch:
        patch.setattr(demos, "write_corpus", lambda place: write_corpus(place, seed=1))
        status, said = said_by(capsys, caplog, demo(folder, "--resume"))
        assert status == 2
        assert "another content of the built-in corpus: " in said
        assert "--force" not in said  # which a demo does not have
    settings = json.loads((folder / "settings.json").read_text())
    del settings["content of the built-in corpus"]  # as versions before left it
    (folder / "settings.json").write_text(json.dumps(settings))
    assert said_by(capsys, caplog, demo(folder, "--resume")) == (0, "")


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_settings_of_a_demo_that_are_none_are_named_with_a_remedy_that_exists(content, done, tmp_path, capsys, caplog):
    folder = shutil.copytree(done / "demo", tmp_path / "demo")
    (folder / "settings.json").write_bytes(content)
    status, said = said_by(capsys, caplog, demo(folder, "--resume"))
    assert (status, said.count("\n")) == (2, 1)
    assert str(folder / "settings.json") in said or "holds files and no run of ours" in said
    assert "--force" not in said


# -- what a run is ---------------------------------------------------------------------------------


def outcome(folder, **how):
    try:
        check_output(folder, **{"resume": False, "overwrite": False} | how)
    except FileExistsError as error:
        return str(error).removeprefix(f"{folder} ").split(":")[0]
    return "goes on"


OURS, THEIRS = '{"ambiguity": "erm"}', '{"editor.fontSize": 12}'
FREE = ("goes on",) * 3
A_RUN = ("already holds a run", "goes on", "goes on")
FOREIGN = (
    "holds files and no run of ours",
    "holds files and no run of ours, so there is nothing to resume",
    "does not look like a run of ours, so --overwrite will not delete it",
)
NOT_OURS = (*A_RUN[:2], FOREIGN[2])


@pytest.mark.parametrize(
    ("files", "plainly_resumed_overwritten"),
    [
        ({}, FREE),
        ({"job-7.out": "", "train.log": "", ".DS_Store": "", "in-use.lock": "", "logs/7.txt": ""}, FREE),
        ({"stage.json": "{}"}, FREE),
        ({"settings.json": OURS}, FREE),
        ({"settings.json": '{"ambig'}, FREE),
        ({"settings.json": OURS, "reference.npz": "", "reference/model.safetensors": "", "stage.json": "{}"}, FREE),
        ({"settings.json": OURS, "runs/Nov28/events.out": "", "wandb/x": "", "mine.txt": ""}, FREE),
        ({"settings.json": OURS, "checkpoint-3/trainer_state.json": "{}"}, A_RUN),
        ({"settings.json": OURS, "runs/erm/seed-0/checkpoint-3/x": ""}, A_RUN),  # of a demo
        ({"settings.json": OURS, "model/config.json": "{}"}, A_RUN),
        ({"settings.json": '{"ambig', "checkpoint-3/trainer_state.json": "{}"}, A_RUN),
        ({"run.json": '{"config": {}}'}, A_RUN),
        ({"seal.json": "{}", "run.json": "{"}, A_RUN),
        ({"checkpoint-3/manifest.json": "{}"}, A_RUN),
        ({"checkpoint-500/trainer_state.json": "{}"}, NOT_OURS),  # of transformers' own Trainer
        ({"run.json": '{"name": "npm"}'}, NOT_OURS),
        ({"mine.txt": ""}, FOREIGN),
        ({"settings.json": THEIRS}, FOREIGN),
        ({"settings.json": THEIRS, "model/config.json": "{}"}, FOREIGN),
        ({"x/checkpoint-3/manifest.json": "{}", "x/settings.json": OURS}, FOREIGN),  # a folder of runs
    ],
)
def test_what_a_run_is(files, plainly_resumed_overwritten, tmp_path):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = (outcome(tmp_path), outcome(tmp_path, resume=True), outcome(tmp_path, overwrite=True))
    assert found == plainly_resumed_overwritten


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_is_overwritten_though_its_settings_are_lost_and_logs_stay(kind, place, tmp_path):
    run = copy(place, kind, tmp_path)
    (run / "settings.json").unlink()
    (run / "job-7.out").write_text("said before")
    (run / "mine.txt").write_text("of the old run")
    assert main(command(place, kind, run, overwrite=True)) == 0
    assert same_end(run, place.runs / kind)
    assert (run / "job-7.out").read_text() == "said before"
    assert not (run / "mine.txt").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_trained_into_what_is_no_run(kind, place, tmp_path, capsys, caplog):
    run = tmp_path / "run"
    run.mkdir()
    (run / "thesis.tex").write_text("mine")
    status, said = said_by(capsys, caplog, command(place, kind, run, resume=True))
    assert (status, said.count("\n")) == (2, 1)
    assert "so there is nothing to resume" in said
    assert [path.name for path in run.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_that_cannot_be_saved_gets_the_same_sentence(kind, place, tmp_path, capsys, caplog, monkeypatch):
    def full(folder):
        raise OSError(28, "No space left on device", str(folder / "manifest.json"))

    for module in ("checkpointing", "policy_checkpoints"):
        monkeypatch.setattr(f"llm.{module}.write_manifest", full)
    run = halted(place, kind, tmp_path / "run")
    status, said = said_by(capsys, caplog, command(place, kind, run, resume=True))
    assert status == 2
    assert said.splitlines()[-1] == (
        f"robust-rlhf: could not save the checkpoint of step 3 ({run}/checkpoint-3/manifest.json: no space left on "
        f"device); earlier checkpoints in {run} are intact: make room and continue with --resume"
    )


# -- places that cannot be written to, and what is typed --------------------------------------------


def writers(place, tmp_path, output):
    pairs, config = place.inputs / "train.jsonl", tmp_path / "rlhf.yaml"
    stages = {
        "reward": {"recipe": "reward-tiny"},
        "policy": {"recipe": "policy-tiny", "model": str(place.inputs / "start")},
    }
    config.write_text(json.dumps({"output_dir": str(output), "train_file": str(pairs), **stages}))
    return {
        **{f"train {kind}": command(place, kind, output) for kind in KINDS},
        "demo": demo(output),
        "pipeline": ["pipeline", "--config", config],
        "sweep": ["sweep", "--config", "heads", "--output", output],
        "evaluate": ["evaluate", place.runs / "reward", "--suite", pairs, "--output", output],
        "export": ["export", place.runs / "reward", "--to", "rewardbench", "-o", output],
        "report": ["report", tmp_path, "-o", output / "page.html"],
        "data builtin": ["data", "builtin", output],
        "data convert": ["data", "convert", pairs, output / "pairs.jsonl"],
        "simulate": ["simulate", "bias", "--output", output],
        "verify": ["verify", "--json", output / "verdicts.json"],
    }


@pytest.mark.parametrize("what", ["a file", "below a file", "no permission"])
def test_a_place_that_cannot_be_written_to_gets_one_sentence(what, place, tmp_path, capsys, caplog, monkeypatch):
    (tmp_path / "file").write_text("mine")
    output = {"a file": tmp_path / "file", "below a file": tmp_path / "file" / "sub"}.get(what, tmp_path / "closed")
    if what == "no permission":
        output.mkdir()
        monkeypatch.setattr("dro_core.messages._writable", lambda folder: folder != output)
    for name, argv in writers(place, tmp_path, output).items():
        status, said = said_by(capsys, caplog, argv)
        assert (status, said.count("\n")) == (2, 1), (name, said)
        assert "Errno" not in said, (name, said)
        assert str(tmp_path / ("closed" if what == "no permission" else "file")) in said, (name, said)
        assert any(text in said for text in ("is a file", "existing folder", "no permission")), (name, said)
    assert (tmp_path / "file").read_text() == "mine"


def without_rights(folder):
    os.setuid(65534)
    for place in (folder / "closed", folder / "closed" / "sub" / "run", folder / "open"):
        try:
            check_folder(place)
        except PermissionError:
            print("refused", place.relative_to(folder), flush=True)  # noqa: T201


@pytest.mark.skipif(not hasattr(os, "setuid") or os.getuid() != 0, reason="only root can become somebody else")
def test_whoever_has_no_rights_is_told_before():
    with tempfile.TemporaryDirectory() as place:  # pytest's own folders are closed to others
        folder = Path(place)
        folder.chmod(0o755)
        for name, mode in (("closed", 0o755), ("open", 0o777)):
            (folder / name).mkdir()
            (folder / name).chmod(mode)
        said = Forked(without_rights, folder).communicate(60)[0]
    assert said.split() == ["refused", "closed", "refused", "closed/sub/run"]


@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_typed_is_shown_and_never_obeyed(name, capsys, caplog):
    evil = "\x1b[2J\u202eevil\u2066\x9b"
    rows = {
        "train": [["reward", f"--{evil}", "1"], ["reward", "--config", evil], [evil]],
        "data": [["show", evil], [evil]],
        "models": [["fetch", evil]],
        "doctor": [[evil], [".", f"--{evil}"]],
        "evaluate": [[".", "--suite", ".", f"--{evil}"]],
        "export": [[".", "--to", "lm-eval", "-o", "x", f"--{evil}"]],
        "report": [[".", f"--{evil}"]],
        "sweep": [["--config", "heads", f"--{evil}"]],
        "pipeline": [["--config", "x", f"--{evil}"], ["--config", evil]],
        "verify": [[evil], ["--json", f"{evil}/x/y"]],
        "simulate": [[evil], ["bias", "--ambiguity", evil]],
    }
    for argv in [[f"--{evil}"], *rows.get(name, [])]:
        status, said = said_by(capsys, caplog, [name, *argv])
        assert status == 2, (argv, said)
        assert not set(said) & set(evil.removesuffix("evil")) - set("[2J evil"), (argv, said)
    status, said = said_by(capsys, caplog, [evil])
    assert (status, "\x1b" in said, "unknown command" in said) == (2, False, True)
