"""The demo by itself, on a small corpus: its folder, the numbers of its picture, and going on."""

import html
import io
import json
import re
import shutil
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure

from dro_core.clusters.pool import Pool
from llm.report.content import build_content
from llm.report.lesson.numbers import lesson_numbers, record_of
from llm.report.lesson.panels import PANELS
from llm.report.lesson.picture import caption, remarks
from llm.report.plots import INLINE, PRINTED, WIDTH
from llm.results.store import read_curves, read_margins, read_results, read_suite, read_training_pairs, read_weights
from llm.sweep.lesson import run
from robust_rlhf import main

ROOT = Path(__file__).parents[3]


def small(seeds):
    settings = run.read_recipe(str(run.sweep_folder() / "demo.yaml"))
    settings["builtin"] |= {"train": 500, "test": 60}
    return settings | {"grid": [grid | {"seeds": seeds} for grid in settings["grid"]]}


def demo(folder, *flags):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "lesson_settings", small)
        patch.setattr(run, "Pool", partial(Pool, jobs=1))
        return main(["demo", "--seeds", "2", "--output", str(folder), *flags])


def built(folder):
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        status = demo(folder / "demo")
    assert status == 0, said.getvalue()
    (folder / "said").write_text(said.getvalue())


@pytest.fixture(scope="module")
def finished(once):
    folder = once("finished-lesson", built) / "demo"
    results = read_results(folder / "results")
    runs = {(row.regime, row.ambiguity, row.seed): row.run for row in results.done.itertuples()}
    return SimpleNamespace(folder=folder, results=folder / "results", runs=runs, findings=results.findings)


@pytest.fixture(scope="module")
def numbers(finished):
    return json.loads((finished.folder / "demo.json").read_text())


@pytest.mark.slow("a whole demo")
def test_it_leaves_a_page_a_picture_and_its_numbers(finished, numbers):
    assert not finished.findings
    assert len(finished.runs) == 2 * (2 * 6 + 1)
    assert (finished.folder / "demo.png").read_bytes().startswith(b"\x89PNG")
    page = html.unescape((finished.folder / "report.html").read_text())
    assert caption(numbers).replace("`", "") in page
    assert numbers["seeds"] == [0, 1]


def test_the_page_begins_with_the_picture_and_so_does_the_terminal(finished, numbers):
    page = (finished.folder / "report.html").read_text()
    places = [page.index(f'id="{name}"') for name in ("lesson", "story", "favourites", "flips", "findings")]
    assert places == sorted(places)
    assert re.findall(r'<a href="#(\w+)">', page)[:2] == ["lesson", "story"]
    said = (finished.folder.parent / "said").read_text()
    assert max(map(len, said.splitlines())) <= 80
    assert " ".join(f"{caption(numbers)} {remarks(numbers)}".replace("`", "").split()) in " ".join(said.split())
    rows = [line.split("[")[0].split() for line in said.splitlines() if line.startswith("   ") and "[" in line]
    assert [name for name, _ in rows] == ["erm", "tv:0.4,by=source", "tv:0.4", "tv:0.8"] * 2
    for (name, right), regime in zip(rows, ["all"] * 4 + ["noise-20"] * 4, strict=True):
        expected = record_of(numbers, regime, name, "office")["accuracy"]["accuracy"]
        assert float(right) == pytest.approx(100 * expected, abs=0.051)


def test_where_no_bar_is_shown_lines_say_how_far_it_is(finished):
    said = (finished.folder.parent / "said").read_text()
    found = [(int(done), int(planned)) for done, planned in re.findall(r"^head (\d+) of (\d+)$", said, re.M)]
    assert 5 <= len(found) <= 11
    assert found == sorted(found)
    assert found[-1] == (26, 26)


def test_accuracies_and_differences_are_those_of_the_margins(finished, numbers):
    suite = read_suite(finished.results, "ood_half_office")
    office = (suite["source"] == "office").to_numpy()
    assert office.sum() == 30

    def right(ambiguity, rows):
        margins = [
            read_margins(finished.results, finished.runs["noise-20", ambiguity, seed])["ood_half_office"][rows]
            for seed in (0, 1)
        ]
        return np.mean([np.mean(own > 0) for own in margins])

    for place, rows in (("office", office), ("forum", ~office), ("half office", office | ~office)):
        record = record_of(numbers, "noise-20", "tv:0.4", place)
        assert record["accuracy"]["accuracy"] == pytest.approx(right("tv:0.4", rows))
        expected = right("tv:0.4", rows) - right("erm", rows)
        assert record["difference"]["difference"] == pytest.approx(expected)
        assert record_of(numbers, "noise-20", "erm", place)["difference"] is None


def test_more_steps_are_compared_with_the_plain_training_that_had_fewer(finished, numbers):
    margins = {
        regime: [read_margins(finished.results, finished.runs[regime, "erm", seed])["id_test"] for seed in (0, 1)]
        for regime in ("all", "longer")
    }
    found = record_of(numbers, "longer", "erm", "like training")["difference"]["difference"]
    assert found == pytest.approx(np.mean(np.array(margins["longer"]) > 0) - np.mean(np.array(margins["all"]) > 0))


def test_curves_are_of_the_held_out_prompts_and_end_where_the_head_does(finished, numbers):
    validation = read_suite(finished.results, "validation")
    office = (validation["source"] == "office").to_numpy()
    runs = [finished.runs["all", "erm", seed] for seed in (0, 1)]
    last = np.mean([np.mean(read_margins(finished.results, run)["validation"][office] > 0) for run in runs])
    curve = next(curve for curve in numbers["curves"] if (curve["ambiguity"], curve["group"]) == ("erm", "office"))
    assert curve["accuracy"][-1] == pytest.approx(last)
    assert curve["steps"][-1] == read_results(finished.results).done.set_index("run").loc[runs[0], "steps"].iloc[0]
    assert len(curve["steps"]) == len(curve["low"]) == len(read_curves(finished.results, runs[0]).steps)


def test_weights_are_shares_of_the_account(finished, numbers):
    found = {(row["ambiguity"], row["of"]): row["share"] for row in numbers["weights"]}
    train = read_training_pairs(finished.results)
    shares = []
    for seed in (0, 1):
        weights = read_weights(finished.results, finished.runs["noise-20", "tv:0.4", seed])
        seen = weights.visits > 0
        given = weights.multiplier[seen].astype(float) * weights.visits[seen]
        shares.append(given[weights.flipped[seen]].sum() / given.sum())
    assert found["tv:0.4", "wrong labels"] == pytest.approx(np.mean(shares))
    assert found["erm", "wrong labels"] == pytest.approx(0.2, abs=0.01)
    assert found["erm", "office"] == pytest.approx((train["source"] == "office").mean(), abs=0.01)


@pytest.mark.slow("a whole demo")
def test_a_finished_demo_trains_nothing_again(finished, tmp_path, monkeypatch, capsys):
    folder = shutil.copytree(finished.folder, tmp_path / "demo")
    before = (folder / "demo.json").read_bytes()
    (folder / "demo.json").unlink()
    monkeypatch.setattr("llm.sweep.runs.train_head", None)
    assert demo(folder) == 2
    assert "continue it with --resume" in " ".join(capsys.readouterr().err.split())
    assert demo(folder, "--resume") == 0
    assert (folder / "demo.json").read_bytes() == before


@pytest.mark.slow("a whole demo")
def test_other_results_have_no_lesson(finished, tmp_path):
    folder = shutil.copytree(finished.results, tmp_path / "results")
    next(folder.glob(f"weights/{finished.runs['all', 'tv:0.4', 0].removesuffix('-last')}.npz")).unlink()
    assert lesson_numbers(folder) is None
    assert build_content(folder)["lesson"] is None


def test_the_readme_says_what_the_stored_numbers_say():
    stored = json.loads((ROOT / "docs" / "demo.json").read_text())
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert caption(stored) in readme
    said = re.search(r"!\[[^]]*\]\(docs/demo.png\)(.*?)```", readme)[1]
    for regime, ambiguity, place in (
        ("all", "erm", "office"), ("all", "tv:0.4,by=source", "office"), ("all", "erm", "forum"),
        ("noise-20", "tv:0.8", "like training"), ("noise-20", "erm", "like training"),
    ):  # fmt: skip
        (record,) = (
            r["accuracy"]
            for r in stored["records"]
            if (r["regime"], r["ambiguity"], r["place"]) == (regime, ambiguity, place)
        )
        assert f"{100 * record['accuracy']:.1f} % [{100 * record['low']:.1f}, {100 * record['high']:.1f}]" in said
    assert len(stored["seeds"]) == 10
    assert (ROOT / "docs" / "demo.png").exists()


@pytest.mark.parametrize(("size", "page"), [((WIDTH, 3.0), INLINE), ((4.2, 3.5), PRINTED)])
def test_names_of_sets_stand_in_a_legend_beside_their_differences(size, page):
    """A name with a mark of its own beside it is not taken for a point of a row, nor does it hide one."""
    (panel,) = (panel for panel in PANELS if panel.name == "lesson-price")
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    panel.paint(json.loads((ROOT / "docs" / "demo.json").read_text()), axes, page)
    figure.draw_without_rendering()
    legend = axes.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["over sources", "over pairs"]
    assert not axes.texts
    frame = legend.get_window_extent()
    points = [axes.transData.transform(container[0].get_xydata()) for container in axes.containers]
    assert sum(map(len, points)) == 8
    assert not any(frame.contains(*point) for point in np.concatenate(points))
