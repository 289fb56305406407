"""Who gets the weight, against sums over what the runs recorded."""

import re
import shutil

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from llm.report import build_content, write_report
from llm.results.store import PAIR_COLUMNS, read_training_pairs, read_weights, write_table


def account(folder, run):
    stored, pairs = read_weights(folder, run), read_training_pairs(folder)
    return stored, pairs.iloc[stored.rows]


def test_shares_are_sums_over_the_runs(folder, report):
    arm = next(arm for arm in report["details"][0]["arms"] if arm["ambiguity"] == "tv:0.2")
    runs = [account(folder, f"r{number:05d}-last") for number in (6, 7, 8)]
    weight = {
        s: sum(w.multiplier[p["source"] == s].sum() for w, p in runs) for s in ("source 0", "source 1", "source 2")
    }
    for row in arm["weights"]["source"]:
        assert row["share_of_weight"] == pytest.approx(weight[row["group"]] / sum(weight.values()))
        assert row["pairs"] == sum(int((p["source"] == row["group"]).sum()) for _, p in runs)
    flipped = {row["group"]: row["multiplier"] for row in arm["weights"]["flipped"]}
    assert flipped["flipped"] == pytest.approx(np.concatenate([w.multiplier[w.flipped] for w, _ in runs]).mean())


def test_shares_of_weighted_pairs_are_absolute(folder, tmp_path):
    """What a pair counts in plain training times what the adversary made of it; the mean is relative to the former."""
    shutil.copytree(folder, tmp_path / "weighed")
    pairs = read_training_pairs(folder)
    pairs["weight"] = [None if row % 3 else 1.0 + row % 5 for row in range(len(pairs))]
    write_table(tmp_path / "weighed" / "train.parquet", pairs.to_dict("records"), PAIR_COLUMNS)
    content = build_content(tmp_path / "weighed")
    arm = next(arm for arm in content["details"][0]["arms"] if arm["ambiguity"] == "tv:0.2")
    runs = [account(tmp_path / "weighed", f"r{number:05d}-last") for number in (6, 7, 8)]
    mass = np.concatenate([p["weight"].fillna(1.0) for _, p in runs])
    weight = mass * np.concatenate([w.multiplier for w, _ in runs])
    source = np.concatenate([p["source"] for _, p in runs])
    for row in arm["weights"]["source"]:
        here = source == row["group"]
        assert row["share_of_weight"] == pytest.approx(weight[here].sum() / weight.sum())
        assert row["multiplier"] == pytest.approx(weight[here].sum() / mass[here].sum())
        assert row["pairs"] == here.sum()


def test_label_noise_is_estimated_by_the_other_seeds_towards_the_label_as_seen(folder, report):
    plain = {seed: account(folder, f"r{seed:05d}-last")[0] for seed in range(3)}
    chance = {}
    for seed, stored in plain.items():
        right = np.full(400, np.nan)
        right[stored.rows] = np.exp(-stored.last_loss.astype(float))  # sigmoid of the margin, by the loss's definition
        chance[seed] = np.where(np.isin(np.arange(400), stored.rows[stored.flipped]), 1 - right, right)
    scores, truth = [], []
    for seed, number in enumerate((6, 7, 8)):
        stored, _ = account(folder, f"r{number:05d}-last")
        others = np.stack([values[stored.rows] for own, values in chance.items() if own != seed])
        known = ~np.isnan(others).all(axis=0)
        towards = np.nanmean(others[:, known], axis=0)
        scores += list(np.where(stored.flipped[known], towards, 1 - towards))
        truth += list(stored.flipped[known])
    arm = next(arm for arm in report["details"][0]["arms"] if arm["ambiguity"] == "tv:0.2")
    assert arm["noise_ranking"] == pytest.approx(roc_auc_score(truth, scores))
    rows = arm["weights"]["label"]
    assert [row["group"] for row in rows] == ["up to 0.2", "0.2 to 0.4", "0.4 to 0.6", "0.6 to 0.8", "above 0.8"]
    assert sum(row["pairs"] for row in rows) == len(scores)
    assert rows[0]["pairs"] == sum(score >= 0.8 for score in scores)


def test_every_arm_has_the_same_groups(report):
    arms = [arm["weights"] for arm in report["details"][0]["arms"] if "weights" in arm]
    for factor in ("length", "margin", "disagreement", "label"):
        assert len({tuple(row["group"] for row in weights[factor]) for weights in arms}) == 1, factor
        assert len(arms[0][factor]) >= 2


def test_examples_are_the_extremes_with_their_texts(folder, report):
    arm = next(arm for arm in report["details"][0]["arms"] if "examples" in arm)
    weights = [[item["multiplier"] for item in arm["examples"][end]] for end in ("top", "bottom")]
    assert weights[0] == sorted(weights[0], reverse=True)
    assert weights[1] == sorted(weights[1])
    assert weights[0][-1] > weights[1][-1]
    assert re.fullmatch(r"Which one is it in t, number \d+\?", arm["examples"]["top"][0]["prompt"])


@pytest.mark.exhaustive(turns=8)
def test_without_texts_the_report_has_none_of_the_data(folder, tmp_path):
    report = build_content(folder, texts=False)
    page, files = write_report(report, tmp_path / "report.html")
    everything = [page, *(path for path in files.rglob("*") if path.is_file())]
    assert any(arm.get("weights") for arm in report["details"][0]["arms"])
    assert not any("Which one is it" in path.read_text(encoding="utf-8") for path in everything)
