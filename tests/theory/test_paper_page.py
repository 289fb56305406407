"""docs/paper.md says of each reading what the registry claims and how it came out."""

import re
from pathlib import Path

from proofs_check.registry import CLAIMS

DOCS = Path(__file__).parents[2] / "docs"
LABELLED = {claim.label: claim for claim in CLAIMS}


def rows(page):
    """The cells of each line of a table that names a claim, without the marks of Markdown."""
    lines = [line for line in (DOCS / page).read_text().splitlines() if re.search(r"\| `[a-z0-9-]+` \|", line)]
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
    return [[re.sub(r"\\(.)", r"\1", cell.replace("**", "")).strip() for cell in row] for row in cells]


def test_every_reading_is_the_statement_of_a_claim_with_its_verdict():
    published = {row[0].strip("`"): row[2] for row in rows("results/verdicts.md")}
    assert set(published) == set(LABELLED)
    readings = rows("paper.md")
    for _, reading, label, verdict in readings:
        claim = LABELLED[label.strip("`")]
        assert reading == claim.statement
        assert verdict.split(";")[0] == claim.expected.value
        assert ("inconclusive" in verdict) == published[claim.label].startswith("inconclusive"), claim.label
    told = {row[2].strip("`") for row in readings}
    assert {label for label, claim in LABELLED.items() if "2503.00539" in claim.reference} <= told
    assert {"sgd-reward", "sgd-dpo", "npg-tabular"} <= told  # its three algorithms
