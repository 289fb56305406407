"""Beyond the average: the details of every arm against scipy, scikit-learn and the margins."""

import numpy as np
import pytest
from results_samples import margins_of, write_sample
from sample_reports import questions, suite_pairs
from scipy.special import expit
from scipy.stats import binomtest, chi2, spearmanr
from sklearn.calibration import calibration_curve

from llm.report import build_content
from llm.report.curves import calibration_error, reliability, shift_bounds, tail_losses
from llm.report.radii import kind_of, sized
from llm.statistics.intervals import holm
from llm.statistics.shift_bounds import error_limit


def mcnemar(a, b):
    """Exact below 25 discordant pairs, else chi-square with continuity correction."""
    return binomtest(a, a + b).pvalue if a + b < 25 else chi2.sf((abs(a - b) - 1) ** 2 / (a + b), 1)


def test_what_stands_beyond_the_average_is_that_of_the_margins(folder, report):
    names = [entry["ambiguity"] for entry in report["details"][0]["arms"]]
    pairs, records = suite_pairs("ood_maths"), report["details"][0]["suites"]["ood_maths"]
    lengths = [len(pair.chosen) - len(pair.rejected) for pair in pairs]
    longer = [0.5 if length == 0 else float(length > 0) for length in lengths]
    for name, record in zip(names, records, strict=True):
        margins = {seed: margins_of(pairs, name, seed).astype(float) for seed in range(3)}
        plain = {seed: margins_of(pairs, "erm", seed) > 0 for seed in range(3)}
        only = {seed: (int(np.sum((m > 0) & ~plain[seed])), int(np.sum((m <= 0) & plain[seed])))
                for seed, m in margins.items()}  # fmt: skip
        expected = {str(seed): mcnemar(*counts) for seed, counts in only.items() if name != "erm"}
        assert record["mcnemar"] == pytest.approx(expected)
        assert record["length_correlation"] == pytest.approx(
            np.mean([spearmanr(m, lengths)[0] for m in margins.values()])
        )
        assert record["mean_loss"] == pytest.approx(np.mean([np.logaddexp(0, -m).mean() for m in margins.values()]))
        right = np.mean([m > 0 for m in margins.values()], axis=0)
        assert record["longer"]["difference"] == pytest.approx(np.mean(right - longer))
        accuracies = {
            name: np.mean(right[[n for n, pair in enumerate(pairs) if pair.category == name]])
            for name in ("algebra", "counting", "tiny")
        }
        assert record["category_average"] == pytest.approx(np.mean(list(accuracies.values())))
        assert record["worst_category"]["name"] == min(accuracies, key=accuracies.get)
    assert all(record["category_average"] is None for record in report["details"][0]["suites"]["ood_plain"])


def test_holm_runs_over_all_categories_of_all_suites(report):
    tables = report["details"][0]["categories"]
    found = [entry["difference"] for table in tables["suites"].values() for record in table.values()
             for entry in record["arms"] if entry["difference"]]  # fmt: skip
    assert tables["tests"] == len(found) == 3 * 5
    assert [record["p_holm"] for record in found] == pytest.approx(holm([record["p"] for record in found]))


def test_the_rule_of_the_longer_answer_is_held_against_every_arm(tmp_path):
    suites = {"id_test": (600, ("",)), "ood": (600, ("",))}
    write_sample(tmp_path / "r", suites=suites, ambiguities=("erm", "tv:0.2"), hard=3.0, gain=0.0)
    [claim] = [claim for claim in build_content(tmp_path / "r")["claims"] if "the longer answer wins" in claim["text"]]
    assert "is beaten in 2 of 4 cells" in claim["text"]
    assert claim["items"] == ["erm: better on id_test; worse on ood", "tv:0.2: better on id_test; worse on ood"]


def test_reliability_is_scikit_learns_calibration_curve():
    margins = np.random.default_rng(0).standard_normal(500) * 2 + 0.4
    rows = reliability(margins)
    right, confidence = calibration_curve(margins > 0, expit(np.abs(margins)), n_bins=20)
    assert [row["accuracy"] for row in rows] == pytest.approx(right)
    assert [row["confidence"] for row in rows] == pytest.approx(confidence)
    assert sum(row["pairs"] for row in rows) == 500
    assert reliability([]) == []
    assert calibration_error([]) is None


def test_margins_that_are_too_large_are_called_too_sure():
    rng = np.random.default_rng(1)
    size = np.abs(rng.standard_normal(20_000))
    margins = size * np.where(rng.random(20_000) < expit(size), 1, -1)  # right with chance sigmoid(|h|)
    assert calibration_error(reliability(margins)) < 0.02
    assert calibration_error(reliability(3 * margins)) > 0.1
    assert all(row["accuracy"] < row["confidence"] for row in reliability(3 * margins)[3:])


def test_tail_losses_are_means_of_the_worst_share():
    margins = {0: np.random.default_rng(2).standard_normal(200), 4: np.random.default_rng(3).standard_normal(200)}
    losses = np.sort([np.logaddexp(0, -values) for values in margins.values()], axis=1)[:, ::-1]
    found = {row["share"]: row["loss"] for row in tail_losses(margins)}
    for share in (1.0, 0.5, 0.1, 0.01):
        assert found[share] == pytest.approx(losses[:, : round(200 * share)].mean())


def test_shift_bounds_start_at_the_limit_and_never_fall(report):
    margins = {0: margins_of(suite_pairs("ood_maths"), "erm", 0)}
    found = shift_bounds(margins, questions("ood_maths"))
    assert found["method"] == "Hoeffding-Bentkus"  # several pairs a question
    assert found["limit"] == error_limit(margins[0] <= 0, questions("ood_maths")).limit
    for shift in ("total variation", "chi-square"):
        bounds = [row["bound"] for row in found["rows"] if row["shift"] == shift]
        assert bounds[0] == pytest.approx(found["limit"])
        assert all(np.diff(bounds) >= 0)
    detail = report["details"][0]
    assert detail["anchor"] == "id_test"
    assert detail["arms"][0]["bounds"]["units"] == 300


@pytest.mark.parametrize(
    ("text", "kind", "plain"),
    [
        ("tv:0.2", "tv", 0.0), ("tv:0.2,by=source", "tv,by=source", 0.0), ("cvar:0.3,trim=0.05", "cvar,trim=0.05", 1.0),
        ("kl_penalty:1", "kl_penalty", None), ("dr_dpo:1", "dr_dpo", None), ("erm", "erm", None),
        ("shuffled:tv:0.2,within=category", "shuffled:tv,within=category", 0.0),
        ("adaptive:tv:0.4", "adaptive:tv", 0.0), ("chi2:0.5,batch=4", "chi2,batch=4", 0.0),
        ("spectral:0.1/0.9", "spectral:0.1/0.9", None), ("micro:8:tv:0.2", "micro:8:tv:0.2", None),
        (" tv : 0.20 , by = source", "tv,by=source", 0.0), ("kl_penalty:inf", "kl_penalty:inf", None), ("", "", None),
        ("chi2:?@tv:0.2", "chi2:?@tv:0.2", None), ("shuffled:gr_dpo:1,by=source", "shuffled:gr_dpo,by=source", None),
    ],
)  # fmt: skip
def test_sets_are_placed_on_the_scale_of_their_kind(text, kind, plain):
    assert kind_of(text) == kind
    assert (None if sized(text) is None else sized(text).plain) == plain
