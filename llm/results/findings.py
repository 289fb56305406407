"""What a reader of a results table should know before believing it, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..statistics.ties import EARLIER_RULE

KEY = ["run", "suite", "category"]
# All settings but the seed (and the size of the training set, which may follow from it).
CELL = ["model", "ambiguity", "regime", "batch_size", "learning_rate", "label_noise", "final"]

FindingKind = Literal[
    "unreadable table", "unfinished write", "missing columns", "duplicate rows", "duplicate runs", "missing suites",
    "missing seeds", "mixed versions", "failed runs", "earlier rule", "damaged files",
]  # fmt: skip


@dataclass(frozen=True)
class Caveat:
    """Something about the results that a reader of them should know.

    Attributes:
        kind: What sort of thing.
        text: One sentence for people, with what was done about it.
        runs: The runs concerned.
    """

    kind: FindingKind
    text: str
    runs: tuple[str, ...] = ()


def without_duplicates(table: Any, findings: list[Caveat]) -> Any:
    """Keep the last of equal rows, and of the runs that differ in no setting."""
    repeated = table.duplicated(KEY, keep="last")
    if repeated.any():
        runs = tuple(sorted(set(table.loc[repeated, "run"])))
        text = f"{int(repeated.sum())} rows of {len(runs)} runs stand there twice; the last ones count."
        findings.append(Caveat("duplicate rows", text, runs))
        table = table[~repeated]
    done = table[table["status"] == "done"]
    runs = done.drop_duplicates("run", keep="last")
    older = runs.loc[runs.duplicated([*CELL, "seed", "train_pairs", "steps"], keep="last"), "run"]
    if len(older):
        text = f"{len(older)} runs have the settings of a later one and were left out."
        findings.append(Caveat("duplicate runs", text, tuple(sorted(older))))
        table = table[~table["run"].isin(older)]
    return table


def gaps(table: Any) -> list[Caveat]:
    """Suites that some runs were not judged on, and seeds that some cells of the grid lack."""
    done, findings = table[(table["status"] == "done") & (table["suite"] != "")], []
    suites = done.groupby(["regime", "run"])["suite"].agg(set).reset_index("regime")
    everywhere = suites.groupby("regime")["suite"].agg(lambda seen: set().union(*seen))  # a regime may have its own
    missing = suites.apply(lambda row: everywhere[row["regime"]] - row["suite"], axis=1) if len(suites) else suites
    if len(partial := missing[missing.map(len) > 0]):
        names = ", ".join(sorted(set().union(*partial)))
        text = f"{len(partial)} of {len(suites)} runs were not judged on all suites (missing: {names})."
        findings.append(Caveat("missing suites", text, tuple(sorted(partial.index))))
    runs = done.drop_duplicates("run")
    seeds = runs.groupby(CELL, dropna=False)["seed"].nunique()
    if len(seeds) and len(short := seeds[seeds < seeds.max()]):
        where = "; ".join(_cell(dict(zip(CELL, key, strict=True))) for key in list(short.index)[:3])
        text = f"{len(short)} of {len(seeds)} settings have fewer than {seeds.max()} seeds, among them {where}."
        findings.append(Caveat("missing seeds", text))
    return findings


def _cell(settings: Mapping[str, object]) -> str:
    return " ".join(str(settings[name]) for name in ("model", "ambiguity", "regime", "batch_size", "final"))


def mixed_versions(table: Any) -> list[Caveat]:
    """Whether the runs came from more than one version of the code."""
    runs = table[table["status"] == "done"].drop_duplicates("run")
    counts = runs.groupby(["version", "revision"], dropna=False).size()
    if len(counts) < 2:
        return []
    named = ", ".join(f"{version} {revision}".strip() + f" ({n} runs)" for (version, revision), n in counts.items())
    return [Caveat("mixed versions", f"The runs were made by {len(counts)} versions of the code: {named}.")]


def earlier_rule(table: Any) -> list[Caveat]:
    """Runs of which the table does not count ties: their accuracy was made by the rule of an earlier version."""
    runs = tuple(
        sorted(set(table.loc[(table["status"] == "done") & (table["suite"] != "") & table["ties"].isna(), "run"]))
    )
    if not runs:
        return []
    text = (
        f"In the accuracy that the table holds of {len(runs)} runs {EARLIER_RULE}; what is worked out from margins "
        "here counts it one half."
    )
    return [Caveat("earlier rule", text, runs)]


def failures(table: Any) -> list[Caveat]:
    """How many runs failed, and what of."""
    failed = table[table["status"] == "failed"]
    if failed.empty:
        return []
    reasons = failed["error"].value_counts()
    text = f"{len(failed)} runs failed, most often with: {reasons.index[0]}"
    return [Caveat("failed runs", text, tuple(sorted(failed["run"])))]
