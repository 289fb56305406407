"""What the Python blocks of the pages take for granted, and what the pages say of their results."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import cvxpy
import numpy as np
import pytest
import torch
from results_samples import write_sample
from tiny_models import save_models
from tiny_trl import arguments, build

import dro_core
from dro_core import Wasserstein, worst_case
from llm.data.corpus.corpus import generate, write_corpus
from llm.data.pairs import write_pairs


def trl(folder: Path) -> dict[str, Any]:
    """A model called my_model; arguments that fit a CPU and stop after one step."""
    from trl import DPOConfig

    tiny = build(folder)
    Path(tiny.causal).rename(folder / "my_model")

    def short(**said):
        return arguments(DPOConfig, folder / "run", **{**said, "gradient_accumulation_steps": 2})

    return {"pairs": tiny.data, "short": short, "tokenizer": tiny.tokenizer}


def trained(names: dict[str, Any]) -> None:
    assert names["args"].gradient_accumulation_steps == 2
    assert issubclass(names["RobustDPO"], names["RobustPairs"])


def trained_groups(names: dict[str, Any]) -> None:
    assert issubclass(names["RobustDPO"], names["RobustPairs"])
    assert set(names["data"]["source"]) == {pair.source for pair in names["encoded"].pairs}


def checked(folder: Path) -> dict[str, Any]:
    """Prompts, a reward of 0 and 1, and arguments of GRPO."""
    from trl import GRPOConfig

    told = {"micro": 4, "num_generations": 4, "max_completion_length": 8, "loss_type": "grpo"}
    prompts, args = trl(folder)["pairs"], arguments(GRPOConfig, folder / "run", **told)

    def right(completions, **said):
        return [float(sum(map(ord, text)) % 4 == 0) for text in completions]

    return {"prompts": prompts, "right": right, "args": args, "trl": True}


def told_groups(names: dict[str, Any]) -> None:
    row = names["trainer"].state.log_history[0]
    assert row["groups/without_signal"] == row["groups/all_right"] + row["groups/all_wrong"]
    assert row["groups/skipped_step"] == 0


def tokens(folder: Path) -> dict[str, Any]:
    """The same, and a file of pairs with the tokenizer."""
    given = trl(folder)
    write_pairs(generate(8, seed=1), folder / "train.jsonl")
    return {**given, "args": given["short"](max_length=None, per_device_train_batch_size=1)}


def windowed(names: dict[str, Any]) -> None:
    assert set(names["data"].column_names) == {"prompt_ids", "chosen_ids", "rejected_ids"}
    assert len(names["data"]) == len(names["encoded"]) > 4


def small_reward(folder: Path) -> dict[str, Any]:
    """A reward model called rm."""
    save_models(folder, generate(8, seed=1), max_length=64)
    return {}


def scored(names: dict[str, Any]) -> None:
    assert names["rewards"]["answer"].tolist() == [0, 1]
    assert names["rewards"]["reward"].notna().all()


def small_policy(folder: Path) -> dict[str, Any]:
    """A policy to start from, and settings of a run that takes no time."""
    save_models(folder, generate(48, seed=11), max_length=96)
    small = {"max_length": 96, "max_new_tokens": 6, "prompts_per_step": 4, "samples": 2, "logging_steps": 1,
             "use_cpu": True, "disable_tqdm": True}  # fmt: skip
    return {"start": folder / "start", "small": small}


def gradient(names: dict[str, Any]) -> None:
    np.testing.assert_allclose(names["losses"].grad, names["worst"].weights.detach())


def collapses(names: dict[str, Any]) -> None:
    assert names["model"].score(names["features"], names["labels"]) > 0.75
    with pytest.warns(UserWarning, match=r"the fit is the constant: some reweighting in cvar:0\.3"):
        names["RobustPreferenceClassifier"]("cvar:0.3").fit(names["features"], names["labels"])


def scenarios(folder: Path) -> dict[str, Any]:
    draws = np.random.default_rng(0)
    points = draws.normal(size=(6, 2))
    cost = np.linalg.norm(points[:, None] - points, axis=2)
    return {"ConvexSet": dro_core.ConvexSet, "cp": cvxpy, "cost": cost, "lengths": draws.integers(60, 180, 6) * 1.0}


def convex(names: dict[str, Any]) -> None:
    losses = np.random.default_rng(1).exponential(size=6)
    weights = worst_case(losses, names["known_mean"]).weights
    assert weights @ names["lengths"] == pytest.approx(120.0, abs=1e-6)
    narrow = worst_case(losses, names["both"]).weights
    assert np.abs(narrow - 1 / 6).sum() <= 0.4 + 1e-6
    ours = worst_case(losses, dro_core.ConvexSet(names["transport"])).value
    assert ours == pytest.approx(float(worst_case(losses, Wasserstein(0.7, names["cost"])).value), abs=1e-6)


def embedded(folder: Path) -> dict[str, Any]:
    draws = np.random.default_rng(0)
    losses = torch.tensor(draws.exponential(size=5), requires_grad=True)
    return {"embeddings": draws.normal(size=(9, 3)), "rows": np.arange(5), "losses": losses}


def is_distribution(names: dict[str, Any]) -> None:
    assert names["losses"].grad.sum().item() == pytest.approx(1.0)


def features(folder: Path) -> dict[str, Any]:
    draws = np.random.default_rng(0)
    chosen, rejected = draws.normal(0.05, size=(2000, 20)), draws.normal(size=(2000, 20))
    return {"chosen": chosen, "rejected": rejected, "prompts": np.arange(2000) // 2}


def bears_some(names: dict[str, Any]) -> None:
    found, margins = names["found"], (names["chosen"] - names["rejected"]) @ names["found"].direction
    assert 0 < found.held_out < found.radius
    assert names["margin_collapse"](margins, "tv") == pytest.approx(found.bound)


def solved_features(folder: Path) -> dict[str, Any]:
    return {**features(folder), **{name: getattr(dro_core, name) for name in ("collapse_radius", "margin_collapse")}}


def bears_more(names: dict[str, Any]) -> None:
    """Minibatches collapse later than the whole sample, which the page's first example prints."""
    found, margins = names["found"], (names["chosen"] - names["rejected"]) @ names["found"].direction
    assert 0.04157 < found.radius < 2 * 0.04157
    assert found.gap <= 1e-3 * found.radius
    assert names["margin_collapse"](margins, "tv", batch=64) == pytest.approx(found.bound)


def visited(folder: Path) -> dict[str, Any]:
    draws = np.random.default_rng(0)
    model = {"rewards": draws.random((3, 2)), "transitions": draws.dirichlet(np.ones(3), (3, 2))}
    used = ("ChiSquare", "radius_from_confidence", "robust_value_iteration")
    return {"visits": draws.integers(1, 90, (3, 2)), **model, **{name: getattr(dro_core, name) for name in used}}


def fall_with_visits(names: dict[str, Any]) -> None:
    assert (np.diff(names["radii"].ravel()[np.argsort(names["visits"].ravel())]) <= 0).all()


def own_data(folder: Path) -> dict[str, Any]:
    write_corpus(folder / "my-data", train=20, test=5)
    return {}


def read(names: dict[str, Any]) -> None:
    assert "id_test" in names["suites"]
    assert len(names["data"].pairs) == 20


def results(folder: Path) -> dict[str, Any]:
    write_sample(folder / "runs" / "heads", seeds=1, ambiguities=("erm",))
    return {}


def no_findings(names: dict[str, Any]) -> None:
    assert names["results"].findings == ()
    assert len(names["results"].table)


def few_pairs(folder: Path) -> dict[str, Any]:
    """The files that the block names, small."""
    write_corpus(folder / "corpus", train=192, test=12)
    for name, file in (("train", "train"), ("id_test", "test")):
        shutil.copy(folder / "corpus" / f"{name}.jsonl", folder / f"{file}.jsonl")
    return {}


def compared(names: dict[str, Any]) -> None:
    difference = names["difference"] if hasattr(names["difference"], "columns") else names["difference"].table
    assert set(difference["group"]) > {"all"}
    assert names["robust"].ambiguity in ("tv:0.03", "tv:0.032")


def compared_by_source(names: dict[str, Any]) -> None:
    assert set(names["difference"]["group"]) > {"all"}
    assert names["robust"].ambiguity == "tv:0.2,by=source"


def fitted(names: dict[str, Any]) -> None:
    assert names["fit"].coefficients.shape == names["features"].chosen.shape[1:]


def refuted(names: dict[str, Any]) -> None:
    """The search was worth something, and its counterexample is one."""
    report, claim = names["report"], names["claim"]
    assert {verdict.value for verdict in report.controls.values()} == {"refuted"}
    assert claim.lhs(report.simplest.instance) > claim.rhs(report.simplest.instance)
