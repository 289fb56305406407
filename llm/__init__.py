"""Trainers that solve the worst-case reweighting exactly over the whole effective batch, and what judges them.

The names below are the public face; each is loaded when it is first used, and nothing heavy before.

    run = train("reward", "train.jsonl", model="minilm", ambiguity="tv:0.2")
    evaluate(run, "test.jsonl").table
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .api.audits import PairAudit, audit_pairs
    from .api.ceilings import PairCeiling, ceiling
    from .api.judged import Evaluation, PairedComparison, compare, evaluate
    from .api.reports import diagnose, write_report
    from .api.runs import Run, train
    from .api.scores import Scored, score
    from .data.objects import pairs_of as read_pairs
    from .kinds.dpo import DPOTrainer
    from .kinds.reward import RewardTrainer
    from .kinds.sft import SFTTrainer
    from .policy.trainer import PolicyTrainer
    from .training.robust_trainer import RobustTrainer

_WHERE = {
    "PairAudit": "api.audits",
    "PairCeiling": "api.ceilings",
    "PairedComparison": "api.judged",
    "DPOTrainer": "kinds.dpo",
    "Evaluation": "api.judged",
    "PolicyTrainer": "policy.trainer",
    "RewardTrainer": "kinds.reward",
    "RobustTrainer": "training.robust_trainer",
    "Run": "api.runs",
    "SFTTrainer": "kinds.sft",
    "Scored": "api.scores",
    "audit_pairs": "api.audits",
    "ceiling": "api.ceilings",
    "compare": "api.judged",
    "diagnose": "api.reports",
    "evaluate": "api.judged",
    "read_pairs": "data.objects",
    "score": "api.scores",
    "train": "api.runs",
    "write_report": "api.reports",
}
_AS = {"read_pairs": "pairs_of"}  # there under another name

__all__ = [
    "DPOTrainer",
    "Evaluation",
    "PairAudit",
    "PairCeiling",
    "PairedComparison",
    "PolicyTrainer",
    "RewardTrainer",
    "RobustTrainer",
    "Run",
    "SFTTrainer",
    "Scored",
    "audit_pairs",
    "ceiling",
    "compare",
    "diagnose",
    "evaluate",
    "read_pairs",
    "score",
    "train",
    "write_report",
]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("robust-rlhf")
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f".{_WHERE[name]}", __name__), _AS.get(name, name))
    except ModuleNotFoundError as error:
        if (error.name or "llm").split(".")[0] in ("llm", "dro_core"):
            raise
        message = f"llm.{name} needs {error.name}, which is not installed: pip install 'robust-rlhf[llm]'"
        raise ModuleNotFoundError(message, name=error.name) from error


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
