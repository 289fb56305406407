"""Run the study of policies and fill policy.md: python -m experiments.policy.study (about two hours of one core).

The pipeline of policy.yaml, then its standard/robust arm with other versions. What is done is not done again;
``--tables`` trains nothing.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import yaml

from llm.data.prompts import Prompt, questions, read_prompts
from llm.pipeline.best_of import draw_best_of
from llm.pipeline.plan import Stage, read_pipeline
from llm.run.stored_arrays import read_arrays
from llm.statistics.intervals import mean_interval

from ..page_tables import RESULTS, filled, markdown

if TYPE_CHECKING:
    from collections.abc import Sequence

PIPELINE = Path(__file__).with_name("policy.yaml")
SUITES = {"id_test": "in distribution", "ood_shifted_mixture": "shifted mixture"}
VARIANTS = {
    "standard/robust, version A": ("A", {"version": "A"}),
    "standard/standard, whitened advantages": ("whitened", {"whiten": "advantages"}),
    "standard/robust, whitened advantages, version A": ("A-whitened", {"version": "A", "whiten": "advantages"}),
    "standard/robust, whitened advantages, version B": ("B-whitened", {"version": "B", "whiten": "advantages"}),
}
Rows = list[tuple[str, ...]]


class Answered(NamedTuple):
    """Scores by suite and judge, ``(seeds, prompts)``, means over the samples; and KL in nats by suite."""

    scores: dict[str, dict[str, np.ndarray]]
    kl: dict[str, float]


def main() -> None:
    """Train what is not trained, then fill the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", action="store_true", help="train nothing: only write what the runs say")
    if not parser.parse_args().tables:
        command("data", "builtin", "runs/policy/corpus")
        command("pipeline", "--config", str(PIPELINE))
        for stage in (stage for stages in variants().values() for stage in stages):
            settings = stage.folder.parent / f"{stage.folder.name}.yaml"
            settings.write_text(yaml.safe_dump(dict(stage.settings)), encoding="utf-8")
            command("train", "policy", "--config", str(settings))
    runs = arms()
    tables = {
        "arms": arms_table(runs), "seeds": seeds_table(runs), "sources": sources_table(runs), "best": best_table(),
        "versions": versions_table(runs),
    }  # fmt: skip
    page = RESULTS / "policy.md"
    page.write_text(filled(page.read_text("utf-8"), {n: markdown(t) for n, t in tables.items()}), encoding="utf-8")
    shutil.copy("runs/policy/overoptimisation.png", RESULTS / "policy-overoptimisation.png")


def command(*words: str) -> None:
    """Run robust-rlhf."""
    subprocess.run([sys.executable, "-m", "robust_rlhf", *words], check=True)


def policies() -> list[Stage]:
    """The policy runs of the pipeline."""
    return [stage for stage in read_pipeline(PIPELINE).stages() if stage.arm is not None]


def variants() -> dict[str, list[Stage]]:
    """Arms once more, with weights on the rewards or on the loss of each answer, with and without whitening."""
    return {name: [_varied(stage, *change) for stage in policies() if str(stage.arm) == name.split(",")[0]]
            for name, change in VARIANTS.items()}  # fmt: skip


def _varied(stage: Stage, ending: str, settings: dict[str, str]) -> Stage:
    folder = stage.folder.with_name(f"{stage.folder.name}-{ending}")
    return replace(stage, folder=folder, settings={**stage.settings, **settings, "output_dir": str(folder)})


def arms() -> dict[str, Answered]:
    """All arms by name, the plain one first."""
    stages: dict[str, list[Stage]] = {}
    for stage in policies():
        stages.setdefault(str(stage.arm), []).append(stage)
    stages |= variants()
    return {name: _answered([stage.folder for stage in runs]) for name, runs in stages.items()}


def _answered(folders: Sequence[Path]) -> Answered:
    stored = [read_arrays(folder / "scores.npz") for folder in folders]
    scores = {
        suite: {
            judge: np.stack([run[f"{suite}/{judge}"].mean(axis=1) for run in stored]) for judge in ("reward", "gold")
        }
        for suite in SUITES
    }
    return Answered(scores, {suite: float(np.mean([run[f"{suite}/kl"].mean() for run in stored])) for suite in SUITES})


def arms_table(runs: dict[str, Answered]) -> Rows:
    """Gold score of every arm and its difference to the plain one, prompt by prompt; means over seeds."""
    rows: Rows = [("suite", "reward model / policy", "gold", "difference to standard/standard", "KL, nats")]
    for suite, title in SUITES.items():
        base, same = next(iter(runs.values())).scores[suite]["gold"].mean(axis=0), questions(asked(suite))
        for name, arm in runs.items():
            gold = arm.scores[suite]["gold"].mean(axis=0)
            difference = "" if name == next(iter(runs)) else _limits(gold - base, same, sign="+")
            rows.append((title, name, _limits(gold, same), difference, f"{arm.kl[suite]:.2f}"))
    return rows


def seeds_table(runs: dict[str, Answered]) -> Rows:
    """Gold score by seed: what no interval over prompts covers."""
    rows: Rows = [("suite", "reward model / policy", "gold by seed", "difference by seed")]
    for suite, title in SUITES.items():
        base = next(iter(runs.values())).scores[suite]["gold"].mean(axis=1)
        for name, arm in runs.items():
            by_seed = arm.scores[suite]["gold"].mean(axis=1)
            rows.append((title, name, _listed(by_seed), _listed(by_seed - base, sign="+")))
    return rows


def sources_table(runs: dict[str, Answered]) -> Rows:
    """Gold score by source on the shifted mixture."""
    prompts = asked("ood_shifted_mixture")
    same = questions(prompts)
    sources = np.array([prompt.source for prompt in prompts])
    names = sorted(set(sources))
    rows: Rows = [("reward model / policy", *(f"{name} ({(sources == name).sum()})" for name in names))]
    for arm, answered in runs.items():
        gold = answered.scores["ood_shifted_mixture"]["gold"].mean(axis=0)
        rows.append((arm, *(_limits(gold[sources == name], same[sources == name]) for name in names)))
    return rows


def versions_table(runs: dict[str, Answered]) -> Rows:
    """Gold scores with whitened advantages: the robust versions less the plain policy, and one less the other."""
    plain, a, b = (name for name in runs if "whitened" in name)
    rows: Rows = [("suite", "version A less plain", "version B less plain", "version A less version B")]
    for suite, title in SUITES.items():
        gold, same = (
            {name: runs[name].scores[suite]["gold"].mean(axis=0) for name in (plain, a, b)},
            questions(asked(suite)),
        )
        pairs = ((a, plain), (b, plain), (a, b))
        rows.append((title, *(_limits(gold[one] - gold[other], same, sign="+") for one, other in pairs)))
    return rows


def best_table() -> Rows:
    """Best-of-n from the start, by either reward model, against the start itself."""
    rows: Rows = [("suite", "chosen by", "n", "KL at most", "gold", "difference to the start")]
    for suite, drawn in draw_best_of(read_pipeline(PIPELINE)).items():
        for reward in drawn.proxies:
            found = drawn.estimated(reward)
            for n, kl, gold in zip(found.sizes, found.kl_bound, found.gold.T, strict=True):
                apart = "" if n == 1 else _limits(gold - found.gold[:, 0], drawn.asked, sign="+")
                rows.append((SUITES[suite], reward, str(n), f"{kl:.2f}", _limits(gold, drawn.asked), apart))
    return rows


def asked(suite: str) -> list[Prompt]:
    """The prompts of a suite, repeats and all, as the arms answered them."""
    return read_prompts(f"runs/policy/corpus/{suite}.jsonl", distinct=False).prompts


def _limits(values: np.ndarray, same: np.ndarray, *, sign: str = "") -> str:
    """A mean with its interval over prompts, clustered where a prompt is repeated."""
    found = mean_interval(values, same)
    return f"{found.mean:{sign}.3f} [{found.low:{sign}.3f}, {found.high:{sign}.3f}]"


def _listed(values: np.ndarray, *, sign: str = "") -> str:
    return ", ".join(f"{value:{sign}.3f}" for value in values)


if __name__ == "__main__":
    main()
