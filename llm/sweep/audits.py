"""What each model of a sweep will see of the training pairs and suites, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..audit.auditor import audit_of
from ..audit.limits import LIMITS, AuditLimits
from ..audit.verdicts import concerns
from ..data.pairs import Pair, PairSet
from ..models.loading import tiny_reward_model
from ..models.tokenizers import limit_of, load_tokenizer
from ..results.audits import Audits, read_audits
from ..run.files import JsonObject
from ..training.config import RewardConfig
from ..training.pair_trainer import texts_of
from .plan import FullModel, Model, SweepConfig


def audits_of(
    config: SweepConfig, train: PairSet, suites: Mapping[str, Sequence[Pair]], known: Path, key: Mapping[str, str]
) -> Audits:
    """An audit for every model in use; those that the results folder ``known`` holds already are not made again.

    Args:
        config: The sweep.
        train: The training pairs.
        suites: What the models are judged by.
        known: The results folder.
        key: The content of all files, by name.

    Raises:
        ModelError: A model has no tokenizer.
    """
    before, found = read_audits(known), dict[str, JsonObject]()
    for name in dict.fromkeys(cell.model for cell in config.cells):
        settings = _settings(config.models[name])
        mark = {"files": dict(key), "eval_pairs": config.eval_pairs, **settings}
        found[name] = before[name] if before.get(name, {}).get("key") == mark else _made(settings, train, suites, mark)
    return found


def _made(
    settings: Mapping[str, Any], train: PairSet, suites: Mapping[str, Sequence[Pair]], mark: Mapping[str, object]
) -> JsonObject:
    length, reads = settings["max_length"], None
    if settings["model"] == "tiny":
        tokenizer = tiny_reward_model(texts_of(train.pairs), max_length=length)[1]
    else:
        tokenizer = load_tokenizer(
            settings["model"], fold_system=settings["fold"], trust_remote_code=settings["trust_remote_code"]
        )
        reads = limit_of(settings["model"], trust_remote_code=settings["trust_remote_code"])
    judged = {name: PairSet(list(pairs), name, "", "") for name, pairs in suites.items()}
    audit = audit_of(train, tokenizer, max_length=length, suites=judged)
    limits = AuditLimits(**settings["limits"])
    found = concerns(audit, limits, reads=reads)
    return {"key": mark, "audit": audit.as_json(), "concerns": [str(concern) for concern in found]}


def _settings(model: Model) -> JsonObject:
    """What decides how a model reads: its tokenizer, length and template; and what is of concern."""
    own = model.settings if isinstance(model, FullModel) else {"model": model.model, "max_length": model.max_length}
    return {
        "model": own.get("model", RewardConfig.model),
        "max_length": int(own.get("max_length", RewardConfig.max_length)),
        "fold": own.get("system_turns") == "fold",
        "trust_remote_code": bool(own.get("trust_remote_code", False)),
        "limits": {name: float(own[name]) for name in LIMITS if name in own},
    }
