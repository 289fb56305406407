"""What the tests of the report look for in it, and what they expect of the margins it was drawn from."""

import numpy as np
from results_samples import SUITES, margins_of, pairs_of

from llm.report import write_report


def arm_of(report, ambiguity, **settings):
    [found] = [
        arm for arm in report["arms"] if arm["ambiguity"] == ambiguity and settings.items() <= arm["settings"].items()
    ]
    return found


def correct(suite, ambiguity, seeds=range(3)):
    pairs = suite_pairs(suite)
    return np.array([margins_of(pairs, ambiguity, seed) > 0 for seed in seeds])


def suite_pairs(suite):
    return pairs_of(*SUITES[suite], prefix=suite, questions=60 if suite == "ood_maths" else None)


def questions(suite):
    return [pair.question_id for pair in suite_pairs(suite)]


def text_of(report, folder):
    page, _ = write_report(report, folder / "report.html")
    return page.read_text(encoding="utf-8")


def said(report, *words):
    return any(all(word in note for word in words) for note in report["notes"])
