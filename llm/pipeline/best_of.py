"""Best-of-n in a pipeline: answers of the policy that all arms start from, scored by every reward model and by gold.

Sampling is the cost, so the answers to a suite are drawn once and every reward model chooses from the same ones. They
answer the prompts that the arms answered, and are drawn with the arms' settings.

A folder per suite in ``best_of`` has ``answers.json`` and a file of scores per judge. Each says what it was made from,
is written at once, and is made again when that has changed.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase, TrainingArguments

from ..data.pairs import DataError
from ..data.prompts import Prompt, PromptSet, questions, subset
from ..data.suites import suite_files
from ..models.architectures import placed
from ..models.contents import content_of
from ..models.loading import load_policy
from ..models.tokenizers import load_tokenizer
from ..policy.config import PolicyConfig
from ..policy.rollouts import Answers, Sampling
from ..policy.run import fitting, prompts_of, scorer_of
from ..policy.token_draws import Lots, Purpose
from ..rewards.checked import checked_scores
from ..rewards.names import models_in, reads_of
from ..rewards.scorer import refused_by
from ..run.sealed import read_sealed, write_sealed
from ..statistics.best_of import BestOfN, best_of
from ..statistics.overoptimisation import Curve, best_of_curve
from ..training.processes import on_main_process
from .plan import Pipeline

_log = logging.getLogger(__name__)
Floats: TypeAlias = NDArray[np.float64]
_DRAWN_WITH = ("eval_prompts", "max_length", "max_new_tokens", "temperature", "top_p", "dtype")


@dataclass(frozen=True)
class Drawn:
    """The answers to one suite, as they were scored.

    Attributes:
        ids: Of the prompts.
        asked: Integers, equal for repeats of a prompt.
        proxies: ``standard`` or ``robust`` -> scores by the reward model of every seed, ``(prompts, answers)`` each.
        gold: ``(prompts, answers)``.
    """

    ids: list[str]
    asked: NDArray[Any]
    proxies: Mapping[str, list[Floats]]
    gold: Floats

    def estimated(self, reward: str) -> BestOfN:
        """Best-of-n by the reward models of a kind, the mean over their seeds."""
        seeds = [best_of(proxy, self.gold) for proxy in self.proxies[reward]]
        proxy, gold = (np.mean([getattr(seed, name) for seed in seeds], axis=0) for name in ("proxy", "gold"))
        return BestOfN(seeds[0].sizes, proxy, gold)


def draw_best_of(pipeline: Pipeline) -> dict[str, Drawn]:
    """What best-of-n needs of every suite, made where it is missing; empty where the pipeline asks for none.

    Raises:
        BadScores: A judge gave nan or infinity.
        DataError: A suite has no prompt that fits, or two of the same id.
    """
    if not pipeline.judged_by().best_of:
        return {}
    policy = next(stage for stage in pipeline.stages() if stage.arm is not None)
    config, arguments = policy.parsed()  # on all processes: it asks for the device
    files = suite_files(pipeline.judged_by().prompts)
    return on_main_process(
        lambda: {suite: _drawn(pipeline, suite, path, config, arguments) for suite, path in files.items()}
    )


def best_of_curves(drawn: Mapping[str, Drawn]) -> list[Curve]:
    """The curve of every suite and kind of reward model, over prompts."""
    return [
        best_of_curve(
            found.estimated(reward),
            name=f"best-of-n ({reward})" + (f", {suite}" if len(drawn) > 1 else ""),
            clusters=found.asked,
        )
        for suite, found in drawn.items()
        for reward in found.proxies
    ]


def _drawn(pipeline: Pipeline, suite: str, path: Path, config: PolicyConfig, arguments: TrainingArguments) -> Drawn:
    judged, source = pipeline.judged_by(), prompts_of(config, path)
    if len({prompt.id for prompt in source.prompts}) < len(source.prompts):
        raise DataError(f"{source.name}: two prompts have the same id, by which answers are kept: give each its own")
    folder = Path(pipeline.output_dir) / "best_of" / quote(suite, safe="")
    told = {name: getattr(config, name) for name in _DRAWN_WITH} | {"seed": arguments.seed, "answers": judged.best_of}
    rewards = [stage for stage in pipeline.stages() if stage.kind == "reward"]
    judges = _tokenizers([*(str(stage.model) for stage in rewards), str(judged.gold)], config)
    prompts = subset(source.prompts, config.eval_prompts)
    refused = sorted(prompts[place].id for place in refused_by(judges, prompts))
    made_from = told | {"model": content_of(config.model), "prompts": source.sha256}
    made_from |= {"refused by judges": refused} if refused else {}
    answers = _kept(
        folder / "answers.json",
        made_from,
        lambda: _sampled(prompts, judges, config, arguments, samples=judged.best_of),
    )

    def scores(name: str, judge: str) -> Floats:
        made_from = {"answers": hashlib.sha256(json.dumps(answers).encode()).hexdigest(), "judge": _content(judge)}
        return np.array(
            _kept(folder / f"{name}.json", made_from, lambda: _scored(source, answers, judge, config, arguments))
        )

    proxies: dict[str, list[Floats]] = {stage.folder.name: [] for stage in rewards}
    for stage in rewards:
        how = stage.folder.name
        proxies[how].append(scores(f"{how}-{stage.seed}", str(stage.model)))
    ids, by_id = [entry["id"] for entry in answers], {prompt.id: prompt for prompt in source.prompts}
    asked = questions([by_id[name] for name in ids])
    return Drawn(ids, asked, proxies, scores("gold", str(judged.gold)))


def _tokenizers(judges: Sequence[str], config: PolicyConfig) -> list[PreTrainedTokenizerBase]:
    """What the judges that are models read with; their weights are only loaded where answers are scored."""
    models = [model for name in judges for model in models_in(name)]
    return [load_tokenizer(name, trust_remote_code=config.trust_remote_code) for name in models]


def _content(judge: str) -> str:
    """What the scores of a judge are decided by: its name where nothing is read, else what it is read from."""
    read = reads_of("judge", judge)
    return " ".join([*([] if list(read.values()) == [judge] else [judge]), *map(content_of, read.values())])


def _sampled(
    prompts: list[Prompt],
    judges: Sequence[PreTrainedTokenizerBase],
    config: PolicyConfig,
    arguments: TrainingArguments,
    *,
    samples: int,
) -> list[dict[str, object]]:
    """Answers to those of the prompts that an arm is judged by, in that order: ``id`` and ``answers``."""
    model, tokenizer = load_policy(config.model, **config.loading())
    prompts, encoded, _ = fitting(prompts, tokenizer, most=config.prompt_tokens, judges=judges)
    sampling = Sampling(config.max_new_tokens, config.temperature, config.top_p)
    pen = Answers(tokenizer, sampling, batch_size=arguments.per_device_eval_batch_size)
    lots = Lots(arguments.seed, Purpose.BEST_OF_N)
    texts = [pen.text(answer) for answer in pen(placed(model, arguments.device), encoded, lots, samples=samples)]
    return [
        {"id": prompt.id, "answers": texts[row * samples : (row + 1) * samples]} for row, prompt in enumerate(prompts)
    ]


def _scored(
    source: PromptSet, answers: list[dict[str, Any]], judge: str, config: PolicyConfig, arguments: TrainingArguments
) -> list[list[float]]:
    prompts = {prompt.id: prompt for prompt in source.prompts}
    asked = [prompts[entry["id"]] for entry in answers for _ in entry["answers"]]
    texts = [text for entry in answers for text in entry["answers"]]
    scores = checked_scores(scorer_of(config, judge, arguments)(asked, texts), asked, step=0)
    return scores.reshape(len(answers), -1).tolist()


def _kept(path: Path, made_from: Mapping[str, object], make: Callable[[], object]) -> Any:
    """What ``path`` holds if it was made from the same, else what is made now, which it then holds."""
    found = read_sealed(path, earlier={"made_from", "made"})
    if found is not None and found.get("made_from") == made_from and "made" in found:
        return found["made"]
    if found is None and path.exists():
        _log.warning("%s is made again: it was cut off or altered since it was written", path)
    made = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_sealed(path, {"made_from": made_from, "made": made})
    return made
