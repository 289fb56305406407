"""Finished models in folders that RewardBench and lm-evaluation-harness run as they are.

Both tools render and tokenise by themselves. Whatever they would do otherwise than the training did is put into the
folder (chat template, special tokens as text, names of settings); what cannot be is measured and said.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig

from dro_core.locks import LOCK, locked
from dro_core.messages import check_folder

from ..data.corpus.corpus import generate
from ..data.layouts.tools import CallingAnswer
from ..data.pairs import DataError, Pair
from ..models.adapters import adapter_chain
from ..models.architectures import reading_length
from ..models.fetching import locate, model_of
from ..models.loading import ModelError, is_policy, load_policy, load_reward_model
from ..models.saving import save_model
from ..models.settings import Loading
from ..run.escaping import shell_word
from ..run.files import write_text
from ..run.finished import RECORD, read_record
from ..text.exported_templates import PLAIN, bare_template, exported_template, with_end, without_edges
from .agreement import Agreement, agreement, lm_eval_reading, rewardbench_reading, with_padding
from .lm_eval import TAG, write_tasks
from .transformers_4 import write_for_version_4

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_SAMPLE = 64  # pairs of every suite on which an export is compared with our own way
_PADDED_SAMPLE = 16
_NEGLIGIBLE = 1e-3  # change of a reward by padding, in standard deviations of the rewards


class Tool(Enum):
    """The tools an export can be for."""

    REWARDBENCH = "rewardbench"
    LM_EVAL = "lm-eval"


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        folder: Where.
        command: Runs the tool; to be given inside the folder.
        agreement: How far the tool reads the pairs as the training did.
        left_out: Pairs that the tool cannot express.
    """

    folder: Path
    command: str
    agreement: Agreement
    left_out: int = 0


@dataclass(frozen=True)
class _Model:
    """A loaded model, and the tokens per answer it was trained with."""

    model: PreTrainedModel
    tokenizer: Any
    policy: bool

    @property
    def max_length(self) -> int:
        return reading_length(self.model, self.tokenizer)


def export_model(
    name: str,
    judge: Tool,
    folder: str | Path,
    suites: Mapping[str, Sequence[Pair]],
    *,
    reference: str | None = None,
    trust_remote_code: bool = False,
) -> Exported:
    """Write ``model/``, the suites in the tool's format, and a README with the command into a new ``folder``.

    Args:
        name: A run folder, a model folder, an alias or a hub name.
        judge: The tool.
        folder: Must not exist, or be empty.
        suites: Preference pairs by name; lm-eval needs one at least.
        reference: The policy that RewardBench compares a policy with (default: the one its run started from).
        trust_remote_code: Let a hub repository run its own code.

    Raises:
        ModelError: No such model, a reward model for lm-eval, a policy without its reference for RewardBench.
        OldConfigError: A model that RewardBench's version of transformers cannot describe.
        DataError: No suite where one is needed.
        FileExistsError: The folder has content.
        FolderInUse: Another process exports into it.
    """
    check_folder(folder, flag="--output")
    with locked(folder):
        return _export(name, judge, Path(folder), suites, reference, remote=trust_remote_code)


def _export(
    name: str, judge: Tool, folder: Path, suites: Mapping[str, Sequence[Pair]], reference: str | None, *, remote: bool
) -> Exported:
    name = model_of(name)
    if any(path.name != LOCK for path in folder.iterdir()):
        raise FileExistsError(f"{folder} already has content: choose another folder for the export")
    policy = is_policy(name, trust_remote_code=remote)
    if judge is Tool.LM_EVAL and not policy:
        raise ModelError(f"lm-eval ranks answers by their likelihood and {name} gives rewards: use --to rewardbench")
    if judge is Tool.LM_EVAL and not suites:
        raise DataError("lm-eval needs at least one suite to make a task of: give --suite FILE")
    if judge is Tool.REWARDBENCH and policy and not (reference := reference or _start_of(name)):
        raise ModelError(f"{name} is a policy, which RewardBench judges against the one it started from: --reference")
    loaded = _loaded(name, policy=policy, remote=remote)
    second = _loaded(reference, policy=True, remote=remote) if policy and reference else None
    try:
        if judge is Tool.LM_EVAL:
            done = _for_lm_eval(folder, loaded, suites)
        else:
            done = _for_rewardbench(folder, loaded, second, suites)
        write_text(folder / "README.md", _readme(done, judge, loaded.max_length))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # half an export would look like a whole one
        raise
    return done


def _start_of(model: str) -> str | None:
    """The policy that the run around ``model`` started from, as far as its folder says."""
    run = Path(model).parent
    if Path(model).name != "model":
        return None
    if (run / "reference" / "config.json").exists():
        return str(run / "reference")
    if not (run / RECORD).exists():
        return None
    config = read_record(run / RECORD, "config", remedy="name the policy that this one started from with --reference")
    return config["config"].get("reference_model") or config["config"].get("model")


def _loaded(name: str, *, policy: bool, remote: bool) -> _Model:
    """A model in the precision it is stored in, adapters merged; a reward model must have a trained head."""
    stored = AutoConfig.from_pretrained(locate(adapter_chain(name)[0]), trust_remote_code=remote).dtype
    loading: Loading = {"dtype": str(stored or torch.float32).removeprefix("torch."), "trust_remote_code": remote}
    load = load_policy(name, **loading) if policy else load_reward_model(name, new_head=False, **loading)
    return _Model(*load, policy=policy)


def _for_lm_eval(folder: Path, loaded: _Model, suites: Mapping[str, Sequence[Pair]]) -> Exported:
    tokenizer = loaded.tokenizer
    write_tasks(folder / "tasks", suites, tokenizer)
    read = without_edges(tokenizer)
    agreed = agreement(_sample(suites), tokenizer, loaded.max_length, lm_eval_reading(tokenizer, read), policy=True)
    save_model(folder / "model", loaded.model, read, template=tokenizer.chat_template or PLAIN)
    command = f"lm_eval --model hf --model_args pretrained=model --include_path tasks --tasks {TAG} --batch_size 16"
    return Exported(folder, command, agreed)


def _for_rewardbench(
    folder: Path, loaded: _Model, reference: _Model | None, suites: Mapping[str, Sequence[Pair]]
) -> Exported:
    tokenizer = loaded.tokenizer
    sample = _sample({name: [pair for pair in pairs if _is_text(pair)] for name, pairs in suites.items()})
    template = bare_template(tokenizer) if loaded.policy else exported_template(tokenizer, generates=False)
    read = with_end(tokenizer) if loaded.policy else without_edges(tokenizer)
    reading = rewardbench_reading(read, template, loaded.max_length, policy=loaded.policy)
    agreed = agreement(sample, tokenizer, loaded.max_length, reading, policy=loaded.policy)
    if not loaded.policy:
        agreed = with_padding(agreed, loaded.model, tokenizer.pad_token_id, sample[:_PADDED_SAMPLE], reading)
    left_out = sum(_write_suite(folder / "suites" / f"{name}.jsonl", pairs) for name, pairs in suites.items())
    for model, place in ((loaded, "model"), (reference, "reference")):
        if model is not None:
            save_model(folder / place, model.model, read, template=template)
            write_for_version_4(folder / place)
    data = f"--dataset {shell_word(f'suites/{next(iter(suites))}.jsonl')} --load_json " if suites else ""
    settings = (
        "--ref_model reference"
        if loaded.policy
        else f"--not_quantized --torch_dtype float32 --max_length {loaded.max_length} --force_truncation "
        f"--batch_size {1 if agreed.padding > _NEGLIGIBLE else 8}"
    )
    return Exported(folder, f"rewardbench --model model {data}{settings}", agreed, left_out)


def _sample(suites: Mapping[str, Sequence[Pair]]) -> list[Pair]:
    return [pair for pairs in suites.values() for pair in pairs[:_SAMPLE]] or list(generate(_SAMPLE, seed=0))


def _write_suite(path: Path, pairs: Sequence[Pair]) -> int:
    """Pairs as RewardBench reads them, whole conversations; returns how many it cannot: it knows two roles in turn."""
    path.parent.mkdir(parents=True, exist_ok=True)
    known = [pair for pair in pairs if _is_text(pair) and _in_turn(message["role"] for message in pair.prompt)]
    write_text(path, "".join(f"{json.dumps(_conversations(pair), ensure_ascii=False)}\n" for pair in known))
    return len(pairs) - len(known)


def _is_text(pair: Pair) -> bool:
    """Whether roles and contents are all there is: no calls of tools, and no definitions."""
    calls = any(isinstance(answer, CallingAnswer) for answer in (pair.chosen, pair.rejected))
    return not calls and not any(message.keys() & {"tools", "tool_calls"} for message in pair.prompt)


def _in_turn(roles: Iterable[str]) -> bool:
    roles = list(roles)
    return len(roles) % 2 == 1 and roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]


def _conversations(pair: Pair) -> dict[str, object]:
    ends = {side: {"role": "assistant", "content": getattr(pair, side)} for side in ("chosen", "rejected")}
    whole = {side: [*pair.prompt, end] for side, end in ends.items()}
    return {"id": pair.id, "source": pair.source, "category": pair.category, **whole}


def _readme(done: Exported, judge: Tool, max_length: int) -> str:
    """The command, and what the export found out about itself."""
    found = done.agreement
    whole = judge is Tool.LM_EVAL or "--ref_model" in done.command
    cuts = "the tool reads more." if whole else "an answer too long by itself loses its beginning, not its end."
    lines = [
        f"# Export for {judge.value}",
        "",
        "Inside this folder:",
        "",
        f"    {done.command}",
        "",
        f"- {found.same} of {found.answers} sampled answers have the very tokens that the training gave them.",
    ]
    if found.longer:
        lines.append(f"- {found.longer} are longer than the {max_length} tokens that the training read; {cuts}")
    if done.left_out:
        lines.append(f"- {done.left_out} pairs are left out: the tool knows texts of user and assistant in turn only.")
    if found.padding > _NEGLIGIBLE:
        lines.append(
            "- Padding on the left, as the tool pads, changes the rewards of this model by up to "
            f"{found.padding:.2g} standard deviations: keep the batch size at 1."
        )
    return "\n".join(lines) + "\n"
