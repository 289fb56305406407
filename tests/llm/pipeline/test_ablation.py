"""The 2 x 2 table against scipy's paired test, from score files as policy stages leave them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from llm.pipeline.ablation import ablation, gold_curves, render_ablation, write_ablation
from llm.pipeline.plan import Pipeline

SEEDS, PROMPTS, SAMPLES = 2, 12, 4


def finished(folder, *, gold="builtin", prompts=PROMPTS, kl_step=0.5):
    """A pipeline whose policies have left scores and histories; robust policies gain more on every prompt."""
    robust = {"robust": "tv:0.2"}
    evaluation = {"gold": gold} if gold else {}
    pipeline = Pipeline(
        output_dir=str(folder), reward=robust, policy={**robust, "model": "x"}, train_file="x", seeds=SEEDS,
        evaluation=evaluation,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    for stage in pipeline.stages():
        if stage.arm is None:
            continue
        stage.folder.mkdir(parents=True)
        better = 0.4 * (stage.arm.policy == "robust") + 0.1 * stage.seed
        number = prompts if str(stage.arm) == "robust/robust" else PROMPTS
        scores = {f"suite/{name}": better + rng.normal(size=(number, SAMPLES)) for name in ("reward", "kl")}
        if gold:
            scores["suite/gold"] = better + rng.normal(size=(number, SAMPLES))
        np.savez(stage.folder / "scores.npz", **scores)
        steps = [{"step": s + 1, "kl": kl_step * s, "reward": s, "gold": s - 0.1 * s * s} for s in range(6)]
        (stage.folder / "run.json").write_text(json.dumps({"history": steps}))
    return pipeline


def stored(pipeline, arm, field):
    folders = [stage.folder for stage in pipeline.stages() if str(stage.arm) == arm]
    return np.stack([np.load(folder / "scores.npz")[f"suite/{field}"] for folder in folders])


def test_differences_are_paired_by_prompt_after_averaging_seeds_and_samples(tmp_path):
    pipeline = finished(tmp_path)
    rows = {row.arm: row for row in ablation(pipeline)}
    assert list(rows) == ["standard/standard", "standard/robust", "robust/standard", "robust/robust"]
    base = stored(pipeline, "standard/standard", "gold").mean(axis=(0, 2))
    for arm, row in rows.items():
        gold = stored(pipeline, arm, "gold").mean(axis=(0, 2))
        assert row.gold == pytest.approx((gold.mean(), *stats.ttest_1samp(gold, 0).confidence_interval()), rel=1e-9)
        assert row.kl == pytest.approx(stored(pipeline, arm, "kl").mean(), rel=1e-12)
        assert (row.suite, row.prompts, row.seeds) == ("suite", PROMPTS, SEEDS)
        if arm == "standard/standard":
            assert row.difference is None
        else:
            low, high = stats.ttest_rel(gold, base).confidence_interval()
            assert row.difference == pytest.approx(((gold - base).mean(), low, high), rel=1e-9)


def test_stages_that_did_not_act_are_named(tmp_path):
    pipeline = finished(tmp_path)
    idle = next(stage for stage in pipeline.stages() if stage.arm is not None)
    record = json.loads((idle.folder / "run.json").read_text())
    record |= {"config": {}, "inaction": "the adversary did not act: so it is", "beyond": "the set is too large"}
    (idle.folder / "run.json").write_text(json.dumps(record))
    said = write_ablation(pipeline, ablation(pipeline))
    assert said[:2] == [f"{idle.name}: the adversary did not act: so it is", f"{idle.name}: the set is too large"]
    assert json.loads((tmp_path / "ablation.json").read_text())["did_not_act"] == said[:1]


def test_what_is_written_can_be_read_and_drawn(tmp_path):
    pipeline = finished(tmp_path)
    said = write_ablation(pipeline, ablation(pipeline))
    record = json.loads((tmp_path / "ablation.json").read_text())
    assert [row["arm"] for row in record["arms"]][::3] == ["standard/standard", "robust/robust"]
    assert record["arms"][0]["difference"] is None
    assert len(record["gold_while_training"]) == len(said) == 4
    assert (tmp_path / "overoptimisation.png").read_bytes().startswith(b"\x89PNG")
    curves, missing = gold_curves(pipeline)
    assert not missing
    np.testing.assert_allclose(curves[0].gold, [[0, 0.9, 1.6, 2.1, 2.4, 2.5]] * SEEDS)
    console = Console(width=100, record=True)
    console.print(render_ablation(ablation(pipeline)))
    printed = console.export_text()
    assert "standard/robust" in printed
    assert "[+" in printed or "[-" in printed


@pytest.mark.parametrize(
    ("score", "limits"),
    [(0.0, {"low": 0.0, "high": pytest.approx(0.434, abs=1e-3)}), (0.3, {"low": None, "high": None})],
)
def test_prompts_that_all_agree_get_wilsons_limits_or_none(tmp_path, score, limits):
    pipeline = finished(tmp_path)
    for stage in pipeline.stages():
        if stage.arm is not None:
            gold = {"suite/gold": np.full((5, 2), score), "suite/kl": np.zeros((5, 2))}
            np.savez(stage.folder / "scores.npz", **gold)
    write_ablation(pipeline, ablation(pipeline))
    record = json.loads((tmp_path / "ablation.json").read_text())
    assert record["arms"][1]["gold"] == {"mean": score, **limits}
    assert record["arms"][1]["difference"]["low"] is None


def test_without_gold_nothing_is_compared_and_different_prompts_are_refused(tmp_path):
    assert ablation(finished(tmp_path / "none", gold=None)) == []
    with pytest.raises(ValueError, match="suite: the arms answered different prompts"):
        ablation(finished(tmp_path / "fewer", prompts=PROMPTS - 1))


def test_training_that_has_not_moved_is_drawn_at_the_start(tmp_path):
    pipeline = finished(tmp_path, kl_step=0.0)
    said = write_ablation(pipeline, ablation(pipeline))
    assert said
    assert all("0 points away from the start" in line for line in said)
    assert (tmp_path / "overoptimisation.png").exists()


def test_training_that_never_saw_the_start_has_no_curve(tmp_path):
    pipeline = finished(tmp_path)
    for stage in pipeline.stages():
        if stage.arm is not None:
            late = [{"step": 5, "kl": 0.7, "reward": 1.0, "gold": 1.0}]
            (stage.folder / "run.json").write_text(json.dumps({"history": late}))
    said = write_ablation(pipeline, ablation(pipeline))
    assert said
    assert all("judge step 0, or pass start" in line for line in said)
    assert not (tmp_path / "overoptimisation.png").exists()
