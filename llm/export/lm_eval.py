"""Preference suites as multiple-choice tasks of EleutherAI's lm-evaluation-harness.

A task asks which of two answers a policy finds likelier. Prompt and answers stand in its data as text, special
tokens included, so that the harness scores the tokens the policy was trained on, without a chat template.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.pairs import Pair
from ..run.files import write_text
from ..text.rendering import Refused, Rendered
from ..text.tokens import Reader

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TAG = "robust_rlhf"
_LOADER = '''"""Reads the pairs that lie beside this file, wherever the folder was moved to."""

from pathlib import Path

from datasets import load_dataset


def load(suite, **unused):
    return load_dataset("json", data_files={"test": str(Path(__file__).with_name(f"{suite}.jsonl"))})
'''


def write_tasks(
    folder: Path, suites: Mapping[str, Sequence[Pair]], tokenizer: PreTrainedTokenizerBase
) -> dict[str, str]:
    """Write one task per suite into ``folder``: its YAML, its pairs as JSON lines, the loader they share.

    Returns:
        Suite -> name of its task; all have the tag ``robust_rlhf``.
    """
    names = {suite: f"{TAG}_{_word(suite)}" for suite in suites}
    if len(set(names.values())) < len(names):
        raise ValueError(f"two suites would be one task: give them other file names ({', '.join(suites)})")
    folder.mkdir(parents=True)
    write_text(folder / "pairs.py", _LOADER)
    reader = Reader(tokenizer)
    for suite, pairs in suites.items():
        rows = (json.dumps(asked, ensure_ascii=False) for pair in pairs if (asked := question(pair, reader)))
        write_text(folder / f"{_word(suite)}.jsonl", "".join(f"{row}\n" for row in rows))
        write_text(folder / f"{names[suite]}.yaml", _yaml(names[suite], _word(suite)))
    return names


def question(pair: Pair, reader: Reader) -> dict[str, Any] | None:
    """A pair as the harness asks it; ``label`` is where the chosen answer stands, first or second by the id's hash.

    A model that cannot tell, or says nan, then gets half of the questions right, not all.

    Returns:
        The question, or None for a pair that the chat template refuses or does not write whole.
    """
    try:
        texts = reader.renderer.answered(pair.prompt, [pair.chosen, pair.rejected])
    except Refused:
        return None
    ending = reader.ending()
    start, end = (reader.special_text(ids) for ids in (ending.before, ending.after))
    label = hashlib.sha256(pair.id.encode()).digest()[0] & 1
    answers = [_closed(text, reader) + end for text in texts]
    return {
        "id": pair.id,
        "source": pair.source,
        "category": pair.category,
        "context": start + texts[0].text[: texts[0].start],
        "answers": answers[::-1] if label else answers,
        "label": label,
    }


def _closed(text: Rendered, reader: Reader) -> str:
    """An answer with the token that the template ends it by, and nothing behind that."""
    ending, answer = reader.ending(), text.text[text.start :]
    if ending.token is None or not ending.rest:
        return answer
    return answer.removesuffix(ending.rest) + reader.special_text([ending.token])


def their_tokens(tokenizer: Any, context: str, answer: str) -> list[int]:
    """The tokens the harness makes of a question: special ones only where the text does not begin with the first."""
    first = tokenizer.bos_token if tokenizer.bos_token is not None else tokenizer.eos_token
    return tokenizer.encode(context + answer, add_special_tokens=not context.startswith(first))


def _yaml(task: str, suite: str) -> str:
    lines = (
        f"task: {task}",
        f"tag: {TAG}",
        "custom_dataset: !function pairs.load",
        f'dataset_kwargs: {{suite: "{suite}"}}',
        "test_split: test",
        "output_type: multiple_choice",
        "doc_to_text: context",
        "doc_to_choice: answers",
        "doc_to_target: label",
        'target_delimiter: ""',
        "num_fewshot: 0",
        "metric_list:",
        "  - {metric: acc, aggregation: mean, higher_is_better: true}",
        "  - {metric: acc_norm, aggregation: mean, higher_is_better: true}",
    )
    return "\n".join(lines) + "\n"


def _word(suite: str) -> str:
    return re.sub(r"\W+", "_", suite)
