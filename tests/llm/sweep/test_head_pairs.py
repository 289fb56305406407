"""What heads of a sweep train on: soft labels, a slice set apart, pairs across prompts; as whole models do."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
from head_sweeps import LENGTH, build, settings
from small_sweeps import prepared, quiet

from dro_core import parse_ambiguity, worst_case
from dro_core.clusters.pool import Pool
from llm.adversary.geometry import COLUMN
from llm.adversary.matching import sampled_batches
from llm.data.pairs import read_pairs
from llm.data.trained_on.cross_prompt import cross_prompt_pairs
from llm.features.features import load_backbone, pair_features
from llm.results.store import read_results, read_suite, read_weights
from llm.run.stored_arrays import read_arrays
from llm.statistics.crossfit import crossfit
from llm.sweep.head_pairs import head_data
from llm.sweep.runs import head_run, identity
from llm.training.soft.crossfit import clusters_of
from robust_rlhf import main

HEADS = [
    {"model": "heads", "ambiguity": ["erm", "regret:tv:0.3"], "regime": ["all", "soft", "fitted", "crossed", "both"]},
    {"model": "heads", "ambiguity": ["tv:auto=0.5"], "regime": ["all", "soft", "crossed"]},
    {"model": "heads", "ambiguity": ["tv:0.3,by=drawn", "mmd:0.1", "chi2:?@tv:0.2"], "regime": "crossed", "seeds": [1]},
    {"model": "heads", "ambiguity": "regret:kl:?@regret:tv:0.3", "regime": "fitted"},
]


@pytest.fixture(scope="module")
def folder(once):
    return once("pairs of heads", build)


@pytest.fixture(scope="module")
def sweep(folder, tmp_path_factory):
    """All heads, trained."""
    found = prepared(tmp_path_factory.mktemp("heads") / "s", settings(folder, HEADS))
    counts = found.run(pool=Pool(jobs=1), report=quiet)
    assert counts["failed"] == 0, read_results(found.folder).findings
    return found


def cell_of(sweep, spec, regime):
    return next(c for c in sweep.context.config.cells if (c.ambiguity, c.regime) == (spec, regime))


def pairs_of(sweep, selection):
    """The texts of the own pairs of a training, as its labels have them, by a reading of its own."""
    pairs = read_pairs(sweep.context.sources.files["train"]).pairs
    found = []
    for row, wrong in zip(sweep.context.train[selection.rows], selection.flipped, strict=True):
        pair = pairs[row]
        p = pair.preference
        turned = replace(pair, chosen=pair.rejected, rejected=pair.chosen, preference=p if p is None else 1 - p)
        found.append(turned if wrong else pair)
    return found


def features_by_hand(folder, pairs):
    backbone = load_backbone(str(folder / "rm"), max_length=LENGTH)
    found = pair_features(backbone, pairs)
    return found.chosen.astype(np.float64) - found.rejected


def weights_of(sweep, spec, regime):
    training = identity(cell_of(sweep, spec, regime), sweep.context)
    return read_weights(sweep.folder, training), read_arrays(sweep.folder / "weights" / f"{training}.npz")


@pytest.mark.slow("it trains heads")
def test_soft_labels_are_those_of_the_data_with_the_label_that_a_run_sees(sweep):
    data, selection, _ = head_data(cell_of(sweep, "erm", "soft"), sweep.context)
    told = [pair.preference for pair in pairs_of(sweep, selection)]
    expected = [1.0 if p is None else p for p in told]
    np.testing.assert_allclose(data.preferences, expected)
    assert ((data.preferences < 0.5) == (selection.flipped & (np.array(expected) < 0.5))).all()
    assert (data.preferences < 0.5).sum() > 10
    assert head_data(cell_of(sweep, "erm", "all"), sweep.context).data.preferences is None


@pytest.mark.parametrize(("regime", "folds", "seed"), [("fitted", 4, 0), ("fitted", 4, 1), ("both", 3, 0)])
def test_fitted_labels_have_not_seen_the_fold_of_their_prompt(folder, sweep, regime, folds, seed):
    """Features and prompts by hand, wrong labels in; the cross-fit is tested by itself."""
    cell = replace(cell_of(sweep, "erm", regime), seed=seed)  # other labels are wrong: what is fitted is another
    data, selection, _ = head_data(cell, sweep.context)
    pairs = pairs_of(sweep, selection)
    made = cross_prompt_pairs(pairs, share=0.3) if regime == "both" else []
    prompts = np.unique([p.prompt[0]["content"].strip() for p in [*pairs, *made]], return_inverse=True)[1]
    assert len(set(prompts)) < len(pairs)
    differences = features_by_hand(folder, [*pairs, *made])
    codes = clusters_of([*pairs, *made])  # their order decides the folds; they tell the same prompts apart
    assert len(set(zip(codes, prompts, strict=True))) == len(set(prompts)) == len(set(codes))
    np.testing.assert_allclose(data.preferences, crossfit(differences, codes, folds=folds), atol=1e-4)


def test_pairs_across_prompts_stand_behind_the_others_with_features_of_their_own(folder, sweep):
    plain, own, _ = head_data(cell_of(sweep, "erm", "all"), sweep.context)
    data, selection, scale = head_data(cell_of(sweep, "erm", "crossed"), sweep.context)
    pairs, n = pairs_of(sweep, selection), len(selection.rows)
    np.testing.assert_array_equal(own.rows, selection.rows)
    made = cross_prompt_pairs(pairs, share=0.5)
    assert len(data.differences) == n + len(made)
    assert len(made) == round(n / 2)
    np.testing.assert_allclose(data.differences * scale, features_by_hand(folder, [*pairs, *made]), atol=1e-5)
    np.testing.assert_allclose(np.mean(data.differences**2, axis=0), 1)
    assert data.columns["drawn"].tolist() == ["own"] * n + ["cross_prompt"] * len(made)
    for name, column in (("source", [pair.source for pair in made]), ("category", [pair.category for pair in made])):
        assert data.columns[name][n:].tolist() == column
    gaps = np.array([len(pair.chosen) - len(pair.rejected) for pair in [*pairs, *made]])
    np.testing.assert_array_equal(data.columns["length_gap"], np.abs(gaps))
    assert data.columns["chosen_is_longer"].tolist() == np.where(gaps > 0, "yes", "no").tolist()
    assert len(data.validation) == len(plain.validation) == len(read_suite(sweep.folder, "validation"))


def test_embeddings_of_made_pairs_are_those_of_their_prompts(sweep):
    data, selection, _ = head_data(cell_of(sweep, "mmd:0.1", "crossed"), sweep.context)
    own = pairs_of(sweep, selection)
    told = dict(zip((pair.prompt[0]["content"] for pair in own), data.columns[COLUMN], strict=False))
    prompts = [pair.prompt[0]["content"] for pair in cross_prompt_pairs(own, share=0.5)]
    assert len(data.columns[COLUMN]) == len(own) + len(prompts)
    np.testing.assert_allclose(data.columns[COLUMN][len(own) :], [told[text] for text in prompts], atol=1e-6)


def test_the_account_tells_own_pairs_from_those_that_were_made(sweep):
    seen = dict.fromkeys(("erm", "regret:tv:0.3", "tv:auto=0.5"))
    for spec in seen:
        weights, stored = weights_of(sweep, spec, "crossed")
        n = len(weights.rows)
        made = stored["cross_prompt_visits"]
        assert len(weights.visits) == n
        assert weights.visits.sum() + made.sum() == 2 * 16 * ((n + len(made)) // 16)
        assert 0.4 * n < len(made) < 0.6 * n
        assert len(weights.flipped) == n
        assert weights.flipped.any()
        assert np.isfinite(weights.last_loss).any()
    assert "cross_prompt_visits" not in weights_of(sweep, "erm", "soft")[1]
    assert np.isnan(weights_of(sweep, "erm", "soft")[0].last_loss).all()  # no margin can be told from it
    table = read_results(sweep.folder).done
    assert set(table["train_pairs"]) == {len(weights_of(sweep, spec, "all")[0].rows) for spec in ("erm", "tv:auto=0.5")}


def test_what_was_measured_is_kept(sweep):
    _, stored = weights_of(sweep, "tv:auto=0.5", "all")
    assert stored["measured"][:, 0].tolist() == [0, 5, 10, 15]
    assert "measured" not in weights_of(sweep, "erm", "all")[1]


def test_no_prompt_of_the_slice_is_trained_on_nor_made_into_a_pair(sweep):
    data, selection, _ = head_data(cell_of(sweep, "tv:auto=0.5", "crossed"), sweep.context)
    _, all_of_it, _ = head_data(cell_of(sweep, "erm", "crossed"), sweep.context)
    assert set(selection.rows) < set(all_of_it.rows)
    aside = np.setdiff1d(all_of_it.rows, selection.rows)
    assert len(aside) == len(data.aside.differences) >= 24
    wrong = dict(zip(all_of_it.rows, all_of_it.flipped, strict=True))
    held = pairs_of(sweep, type(selection)(aside, np.array([wrong[row] for row in aside])))
    assert not {p.prompt[0]["content"] for p in held} & {p.prompt[0]["content"] for p in pairs_of(sweep, selection)}
    assert len(set(data.aside.prompts)) == len({pair.prompt[0]["content"] for pair in held})
    gaps = [abs(len(pair.chosen) - len(pair.rejected)) for pair in held]
    np.testing.assert_array_equal(data.aside.columns["length_gap"], gaps)
    assert len(data.differences) == len(selection.rows) + round(len(selection.rows) / 2)


def test_the_slice_has_the_scale_and_labels_of_the_training_pairs(folder, sweep):
    data, selection, scale = head_data(cell_of(sweep, "tv:auto=0.5", "soft"), sweep.context)
    _, everything, _ = head_data(cell_of(sweep, "erm", "soft"), sweep.context)
    held = pairs_of(sweep, everything.part(~np.isin(everything.rows, selection.rows)))
    np.testing.assert_allclose(data.aside.differences * scale, features_by_hand(folder, held), atol=1e-5)
    np.testing.assert_allclose(np.mean(data.differences**2, axis=0), 1)
    expected = [1.0 if pair.preference is None else pair.preference for pair in held]
    np.testing.assert_allclose(data.aside.preferences, expected)
    assert min(expected) < 0.5


def test_a_set_is_matched_on_what_it_sees(sweep):
    """On regrets both sets have the same effective sample size; on losses they have not."""
    run, pairs = head_run(cell_of(sweep, "regret:tv:0.3", "fitted"), sweep.context)
    p, margins = pairs.data.preferences, pairs.data.differences @ run.iterates["last"]
    losses = p * np.log1p(np.exp(-margins)) + (1 - p) * np.log1p(np.exp(margins))
    regrets = losses + p * np.log(p) + (1 - p) * np.log1p(-p)
    done = read_results(sweep.folder).done
    (matched,) = {name for name in done["ambiguity"] if name.startswith("regret:kl:")}

    def size(shown):
        found = parse_ambiguity(matched.removeprefix("regret:"))
        weights = [worst_case(shown[rows], found).weights for rows in sampled_batches(len(p), 16)]
        return np.mean([1 / (q @ q) for q in weights])

    # of 16: .3 of the mass leaves the smallest losses and goes to the largest, whatever they are
    moved = 1 / ((0.2 / 16) ** 2 + 10 * (1 / 16) ** 2 + (1 / 16 + 0.3) ** 2)
    assert size(regrets) == pytest.approx(moved, rel=1e-3)
    assert size(losses) != pytest.approx(moved, rel=1e-2)


def test_workers_and_later_starts_do_the_same(folder, sweep):
    again = prepared(sweep.folder, settings(folder, HEADS))
    assert again.run(pool=Pool(jobs=1), report=quiet) == {
        "before": len(sweep.matched(quiet)[0]),
        "done": 0,
        "failed": 0,
    }
    sent = pickle.loads(pickle.dumps(sweep.context))
    for spec, regime in (("regret:tv:0.3", "both"), ("tv:auto=0.5", "crossed")):
        one, other = (head_run(cell_of(sweep, spec, regime), at)[0] for at in (sweep.context, sent))
        np.testing.assert_array_equal(one.iterates["last"], other.iterates["last"])


@pytest.mark.exhaustive(turns=8)
def test_a_page_is_made_of_it(sweep, tmp_path):
    assert main(["report", str(sweep.folder), "--output", str(tmp_path / "report.html")]) == 0


@pytest.mark.exhaustive(turns=8)
@pytest.mark.slow("three whole models are trained")
@pytest.mark.usefixtures("forked_workers")
def test_whole_models_of_a_regime_train_on_the_same_pairs(folder, sweep, tmp_path):
    grid = [{"model": "whole", "ambiguity": "tv:auto=0.5", "regime": ["soft", "crossed"]},
            {"model": "whole", "ambiguity": "regret:tv:0.3", "regime": "both"}]  # fmt: skip
    whole = prepared(tmp_path / "s", settings(folder, grid))
    assert whole.run(pool=Pool(jobs=1), report=quiet)["failed"] == 0, read_results(whole.folder).findings
    for cell in whole.context.config.cells:
        training = identity(cell, whole.context)
        seen, heads = read_weights(whole.folder, training), weights_of(sweep, cell.ambiguity, cell.regime)
        np.testing.assert_array_equal(seen.rows, heads[0].rows)
        np.testing.assert_array_equal(seen.flipped, heads[0].flipped)
        assert len(seen.visits) == len(seen.multiplier) == len(seen.rows)
        stored = read_arrays(whole.folder / "weights" / f"{training}.npz")
        lengths = [len(part.get("cross_prompt_visits", ())) for part in (stored, heads[1])]
        assert lengths[0] == lengths[1]
        assert seen.visits.sum() + stored.get("cross_prompt_visits", np.zeros(1)).sum() == 4 * 16
        assert np.isnan(seen.last_loss).all() == (cell.regime != "crossed")
        file = whole.folder / "full" / training / "soft_labels.jsonl"
        assert file.exists() == (cell.regime == "both")
        if file.exists():
            found = [json.loads(line)["p"] for line in file.read_text().splitlines()]
            own = head_data(cell_of(sweep, cell.ambiguity, cell.regime), sweep.context).data.preferences
            np.testing.assert_allclose(found, own, atol=2e-3)
