"""One file to all stages of RLHF: what it may say, which runs follow from it, and what a second start does."""

from __future__ import annotations

import json

import pytest
import yaml
from damaged_runs import HOSTILE
from whole_runs import wrong

from llm.data.corpus.corpus import generate
from llm.data.pairs import write_pairs
from llm.models.contents import digest
from llm.pipeline.plan import Combination, Pipeline, read_pipeline
from llm.pipeline.run import NOTE, State, begin, note, state_of
from llm.training.config import ConfigError
from robust_rlhf import main

COMMON = {"use_cpu": True, "disable_tqdm": True, "max_length": 64, "per_device_train_batch_size": 8}


def write(folder, **changes):
    """A file for runs of two steps; a section that is None is left out."""
    if not (folder / "train.jsonl").exists():
        write_pairs(generate(48, seed=3), folder / "train.jsonl")
    policy = {"max_new_tokens": 8, "prompts_per_step": 4, "samples": 2, "logging_steps": 1, "eval_prompts": 4}
    settings = {
        "output_dir": str(folder / "run"),
        "train_file": str(folder / "train.jsonl"),
        "sft": {"recipe": "sft-tiny", "max_steps": 2, **COMMON},
        "reward": {"recipe": "reward-tiny", "robust": "tv:0.3", "max_steps": 2, **COMMON},
        "policy": {"recipe": "policy-tiny", "robust": "tv:0.2,by=source", "max_steps": 2, **policy, **COMMON},
        "evaluation": {"pairs": [str(folder / "train.jsonl")], "prompts": [str(folder / "train.jsonl")]},
    } | changes
    path = folder / "rlhf.yaml"
    path.write_text(yaml.safe_dump({name: value for name, value in settings.items() if value is not None}))
    return path


def section(path, name, **changes):
    return yaml.safe_load(path.read_text())[name] | changes


def test_two_switches_give_four_policies_from_two_rewards_and_one_start(tmp_path):
    stages = read_pipeline(write(tmp_path, seeds=2)).stages()
    run = tmp_path / "run"
    assert len(stages) == 1 + 2 * (2 + 4)
    assert [stage.kind for stage in stages[:7]] == ["sft", "reward", "reward", *["policy"] * 4]
    assert len({stage.folder for stage in stages}) == len(stages)
    for place, stage in enumerate(stages):
        earlier = {str(other.model) for other in stages[:place]}
        needed = {stage.settings.get(name) for name in ("model", "reward_model")}
        assert {path for path in needed if path and path.startswith(str(run))} <= earlier
    robust = next(s for s in stages if s.seed == 1 and s.arm == Combination("robust", "standard"))
    assert robust.settings["reward_model"] == str(run / "seed-1" / "reward" / "robust" / "model")
    assert robust.settings["model"] == str(run / "sft" / "model")
    config, arguments = robust.parsed()
    assert (config.ambiguity, arguments.seed, arguments.max_steps, config.resume) == ("erm", 1, 2, True)
    assert next(s for s in stages if s.seed == 1 and s.kind == "reward").settings["ambiguity"] == "erm"
    assert [s.settings["ambiguity"] for s in stages if s.kind == "policy"] == ["erm", "tv:0.2,by=source"] * 4


def test_without_switches_there_is_one_chain(tmp_path):
    path = write(tmp_path)
    plain = {name: section(path, name) for name in ("reward", "policy")}
    for settings in plain.values():
        del settings["robust"]
    stages = read_pipeline(
        write(tmp_path, sft=None, **plain | {"policy": plain["policy"] | {"model": "smollm2"}})
    ).stages()
    assert [stage.name for stage in stages] == ["reward standard, seed 0", "policy standard/standard, seed 0"]
    assert stages[1].settings["model"] == "smollm2"


def test_only_the_reward_models_that_an_arm_needs_are_trained(tmp_path):
    stages = read_pipeline(write(tmp_path, arms=["robust/standard"])).stages()
    assert [stage.name for stage in stages[1:]] == ["reward robust, seed 0", "policy robust/standard, seed 0"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"output_dir": None}, "output_dir is missing"),
        ({"policy": None}, "policy is missing: it needs a section"),
        ({"reward": ["tiny"]}, "reward must be a section"),
        ({"ppo": {}}, "unknown entry 'ppo'"),
        ({"seeds": 0}, "at least 1, got 0"),
        ({"seeds": "two"}, "got 'two'"),
        ({"arms": ["robust/maximal"]}, "'robust/maximal' cannot be trained: choose from standard/standard"),
        ({"evaluation": {"golden": "builtin"}}, "evaluation: unknown entry 'golden'"),
        ({"evaluation": {"best_of": 1, "prompts": ["x"], "gold": "builtin"}}, "must be at least 2, or 0 for no"),
        ({"evaluation": {"best_of": "many"}}, "got 'many'"),
        ({"evaluation": {"best_of": True}}, "got True"),
        ({"evaluation": {"best_of": 8, "prompts": ["x"]}}, "judged by gold: name gold beside it"),
        ({"evaluation": {"best_of": 8, "gold": "builtin"}}, "name prompts beside it"),
        ({"reward": {"recipe": "reward-huge"}}, "no recipe 'reward-huge'"),
        ({"reward": {"recipe": "reward-tiny", "ambiguity": "tv:0.2"}}, "the switch is robust: SET"),
        ({"reward": {"recipe": "reward-tiny", "robust": "erm"}}, "robust names the set"),
        ({"reward": {"recipe": "reward-tiny", "robust": "tv:2"}}, "stage reward robust, seed 0: "),
        (
            {"reward": {"recipe": "reward-tiny", "learning_rat": 1}},
            "reward: unknown setting 'learning_rat', did you mean",
        ),
        ({"sft": {"recipe": "sft-tiny", "robust": "tv:0.2"}}, "set ambiguity"),
        ({"sft": {"recipe": "sft-tiny", "max_length": 1}}, "stage sft: max_length must be at least 8"),
        ({"policy": {"recipe": "policy-tiny", "model": "smollm2"}}, "model is what the sft stage makes"),
        (
            {"policy": {"recipe": "policy-tiny", "reward_model": "here"}},
            "reward_model cannot be set here: the pipeline",
        ),
        ({"policy": {"recipe": "policy-tiny", "gold": "builtin"}}, "it belongs into evaluation"),
        ({"train_file": None}, "stage sft: train_file is missing"),
    ],
)
def test_wrong_files_get_one_sentence_before_anything_is_trained(tmp_path, capsys, changes, said):
    message = wrong(capsys, "pipeline", "--config", str(write(tmp_path, **changes)))
    assert said in message
    assert not (tmp_path / "run").exists()


def finish(stage):
    (stage.folder / "run.json").write_text("{}")
    note(stage, judged=True)


def test_what_was_made_from_something_else_is_refused(tmp_path):
    path = write(tmp_path)
    stage = read_pipeline(path).stages()[0]
    assert state_of(stage) is State.OPEN
    assert begin(stage) is State.OPEN
    assert state_of(stage) is State.BEGUN
    other = read_pipeline(write(tmp_path, sft=section(path, "sft", learning_rate=0.5))).stages()[0]
    assert state_of(other) is State.BEGUN  # of the first start nothing was kept
    write(tmp_path)
    finish(stage)
    assert begin(stage) is State.DONE
    path = write(tmp_path, sft=section(path, "sft", learning_rate=0.5))
    with pytest.raises(ConfigError, match=r"stage sft: .*sft was made from another learning_rate: delete"):
        state_of(read_pipeline(path).stages()[0])
    write_pairs(generate(40, seed=5), tmp_path / "train.jsonl")
    with pytest.raises(ConfigError, match=r"another train_file \(its content changed\)"):
        state_of(stage)


def test_other_suites_judge_a_finished_stage_anew(tmp_path):
    path = write(tmp_path)
    stage = read_pipeline(path).stages()[1]
    begin(stage)
    finish(stage)
    stage = read_pipeline(write(tmp_path, evaluation={"pairs": []})).stages()[1]
    assert state_of(stage) is State.BEGUN


def test_what_a_stage_starts_from_counts_down_to_the_base_of_an_adapter(tmp_path):
    """Named by the folder of a run, whose own records may change; a note of an older version lacks the base."""
    base, adapter = tmp_path / "base", tmp_path / "start" / "model"
    for folder in (base, adapter):
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"one")
    (base / "config.json").write_text("{}")
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    path = write(tmp_path)
    path = write(tmp_path, sft=section(path, "sft", model=str(tmp_path / "start")))
    stage = read_pipeline(path).stages()[0]
    begin(stage)
    (stage.folder / "checkpoint-1").mkdir()
    (tmp_path / "start" / "run.json").write_text("{}")
    assert state_of(stage) is State.BEGUN
    (base / "model.safetensors").write_bytes(b"two")
    with pytest.raises(ConfigError, match=r"another base of model \(its content changed\)"):
        state_of(stage)
    found = json.loads((stage.folder / NOTE).read_text())
    del found["inputs"]["base of model"], found["sha256"]
    (stage.folder / NOTE).write_text(json.dumps(found))
    assert state_of(stage) is State.BEGUN


def test_a_suite_of_new_content_judges_a_finished_stage_anew(tmp_path):
    suite = tmp_path / "test.jsonl"
    write_pairs(generate(8, seed=1), suite)
    stage = read_pipeline(write(tmp_path, evaluation={"prompts": [str(suite)]})).stages()[-1]
    begin(stage)
    finish(stage)
    assert state_of(stage) is State.DONE
    write_pairs(generate(8, seed=2), suite)
    assert state_of(stage) is State.BEGUN


def test_a_model_is_known_by_its_weights_not_by_its_card(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"one")
    before = digest(folder)
    (folder / "README.md").write_text("judged")
    assert digest(folder) == before
    (folder / "model.safetensors").write_bytes(b"two")
    assert digest(folder) != before


@pytest.mark.slow("a whole pipeline twice")
def test_a_pipeline_runs_to_its_end_and_goes_on_where_it_was_broken_off(tmp_path, capsys, caplog, monkeypatch):
    files = section(write(tmp_path), "evaluation", gold="builtin")
    path = write(tmp_path, arms=["robust/robust"], evaluation=files)
    folders = [stage.folder for stage in read_pipeline(path).stages()]
    with monkeypatch.context() as broken:
        broken.setattr("llm.kinds.policy.train_policy", lambda *_: (_ for _ in ()).throw(OSError("power failure")))
        assert "power failure" in wrong(capsys, "pipeline", "--config", str(path))
    first = {folder: (folder / "model").stat().st_mtime_ns for folder in folders[:2]}
    assert not (folders[2] / "model").exists()
    assert main(["pipeline", "--config", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "1/3  sft: done" in printed
    assert "3/3  policy robust/robust, seed 0: to be continued" in printed
    assert {folder: (folder / "model").stat().st_mtime_ns for folder in folders[:2]} == first
    record = json.loads((folders[2] / "run.json").read_text())
    assert record["config"]["reward_model"] == str(folders[1] / "model")
    assert (record["steps"], record["config"]["ambiguity"]) == (2, "tv:0.2,by=source")
    for folder in folders[1:]:
        assert set(json.loads((folder / "metrics.json").read_text())["suites"]) == {"train"}
    assert main(["pipeline", "--config", str(path)]) == 0
    assert capsys.readouterr().out.count(": done") == 3
    assert "Gold score by arm" in printed
    assert json.loads((tmp_path / "run" / "ablation.json").read_text())["arms"][0]["arm"] == "robust/robust"
    assert json.loads((folders[2] / NOTE).read_text())["inputs"].keys() == {"train_file", "model", "reward_model"}
    damages_are_named(path, folders, caplog)


def damages_are_named(path, folders, caplog):
    """A finished stage that was damaged is exported and judged again, whichever file it was."""
    files = [folders[0] / "model" / "model.safetensors", folders[1] / "metrics.json", folders[2] / "scores.npz",
             folders[2] / "answers.json"]  # fmt: skip
    before = [file.read_bytes() for file in files]
    for file in files:
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    caplog.clear()
    assert main(["pipeline", "--config", str(path)]) == 0
    said = [record.getMessage() for record in caplog.records if "exported and judged again" in record.getMessage()]
    assert [str(file) in text for file, text in zip([*files[:2], files[3]], said, strict=True)] == [True] * 3
    assert files[0].read_bytes() == before[0]
    assert [json.loads(file.read_text()) for file in files[1::2]] == [json.loads(text) for text in before[1::2]]
    caplog.clear()
    assert main(["pipeline", "--config", str(path)]) == 0
    assert "exported" not in caplog.text


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_what_is_no_note_of_a_stage_is_named(content, tmp_path, capsys):
    path = write(tmp_path)
    stage = read_pipeline(path).stages()[0]
    begin(stage)
    finish(stage)
    (stage.folder / NOTE).write_bytes(content)
    for how in ([], ["--dry-run"]):
        message = wrong(capsys, "pipeline", "--config", str(path), *how)
        assert f"{stage.folder / NOTE} " in message
        assert "delete it, and the stage goes on" in message


def test_a_note_of_a_stage_with_another_letter_is_no_note(tmp_path, capsys):
    path = write(tmp_path)
    stage = read_pipeline(path).stages()[0]
    begin(stage)
    (stage.folder / "checkpoint-1").mkdir()
    text = (stage.folder / NOTE).read_text()
    (stage.folder / NOTE).write_text(text.replace('"judged": false', '"judged": true'))
    assert "was altered since it was written" in wrong(capsys, "pipeline", "--config", str(path))


def test_how_a_stage_goes_on_may_change_at_any_time(tmp_path):
    path = write(tmp_path)
    stage = read_pipeline(path).stages()[0]
    begin(stage)
    finish(stage)
    path = write(tmp_path, sft=section(path, "sft", skip_damaged=True, force=True))
    assert state_of(read_pipeline(path).stages()[0]) is State.DONE


def test_dry_run_lists_the_stages_and_makes_nothing(tmp_path, capsys):
    assert main(["pipeline", "--config", str(write(tmp_path)), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "policy robust/standard, seed 0" in printed
    assert printed.count("to be run") == 7
    assert not (tmp_path / "run").exists()


def test_a_pipeline_can_be_built_without_a_file(tmp_path):
    cells = Pipeline(output_dir=str(tmp_path), reward={"robust": "cvar:0.3"}, policy={}, train_file="x").cells()
    assert cells == [Combination("standard", "standard"), Combination("robust", "standard")]
