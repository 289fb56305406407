"""Reports of drawn results that the files on the report share, each made once for all."""

import pickle

import pytest
from results_samples import write_sample

from llm.report import build_content, write_report


@pytest.fixture(scope="module")
def noisy(once):
    """Whole models with wrong labels: the results, what the report says of them, and its page."""

    def build(place):
        write_sample(place / "noisy", label_noise=(0.2,), whole=True)
        report = build_content(place / "noisy")
        (place / "report").write_bytes(pickle.dumps(report))
        (place / "page").mkdir()
        write_report(report, place / "page" / "report.html")

    return once("report-noisy", build)


@pytest.fixture(scope="module")
def folder(noisy):
    return noisy / "noisy"


@pytest.fixture(scope="module")
def report(noisy):
    return pickle.loads((noisy / "report").read_bytes())


@pytest.fixture(scope="module")
def written(noisy):
    """Text of the page, and the folder of its files."""
    page = noisy / "page" / "report.html"
    return page.read_text(encoding="utf-8"), page.with_name("report_files")


@pytest.fixture(scope="module")
def clean(once):
    """The report of an undamaged folder, without details: what the same folder is compared with once it is damaged."""
    return sample(once, "clean")


@pytest.fixture(scope="module")
def small(once):
    """A report of two arms with few figures, for what does not depend on how much there is to draw."""
    few = {"suites": {"id_test": (60, ("",))}, "ambiguities": ("erm", "tv:0.2"), "seeds": 1, "train": 50}
    return sample(once, "small", **few)


def sample(once, name, **more):
    def build(place):
        write_sample(place / "results", **more)
        (place / "report").write_bytes(pickle.dumps(build_content(place / "results", families=0)))

    return pickle.loads((once(f"report-{name}", build) / "report").read_bytes())
