"""The training set that several weighted files come to: read, named, counted across files, drawn.

A weight is how often each pair of a file is seen in an epoch. Its integer part repeats all of them; of its fractional
part, that share of them is drawn by a hash of what they say and a seed: the same in every epoch, wherever the file lies
and whatever stands beside it. So the training set is one list, for whatever shuffles, cuts or resumes lists.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from llm.data.columns import ColumnMap
from llm.data.grouping.columns import PairColumns, PromptColumns, asked_of_file, check_known
from llm.data.hub import address_of
from llm.data.mixtures import Part, parts_of
from llm.data.overview import across
from llm.data.pairs import Pair, read_pairs
from llm.data.records import DataError, stem_of
from llm.data.stream import UniqueIds
from llm.data.suites import check_mapped, content_of, describe_file, split_by_prompt, suite_files

if TYPE_CHECKING:
    from llm.data.prompts import Prompt

Item = TypeVar("Item", Pair, "Prompt")
_UNKNOWN = "unknown"
# What is known of a pair beside what it says, or was asked for.
_BESIDE = ("preference", "weight", "kept", "answer", "beside", "as_text")
_log = logging.getLogger(__name__)


class Ingredient(NamedTuple, Generic[Item]):
    """One file: how it was asked for, its pairs or prompts, and what a report must say about it."""

    part: Part
    items: list[Item]
    record: dict[str, Any]


@dataclass(frozen=True)
class Mixture(Generic[Item]):
    """Files that were read, each once.

    Attributes:
        ingredients: In the order they were named; ids are unique over all of them.
        left_out: Files of weight 0, which were not read.
        noted: What was found across files -> how often.
    """

    ingredients: list[Ingredient[Item]]
    left_out: list[str]
    noted: dict[str, int]

    @property
    def items(self) -> list[Item]:
        """All pairs or prompts, each as often as it stands in the files."""
        return [item for ingredient in self.ingredients for item in ingredient.items]

    def drawn(self, *, seed: int) -> list[Item]:
        """What an epoch sees: everything as often as its file's weight says; repeated ones get another id.

        Raises:
            DataError: The weight of a file is so small that nothing of it is drawn.
        """
        return [item for item, _ in self.drawn_from(seed=seed)]

    def drawn_from(self, *, seed: int) -> list[tuple[Item, str]]:
        """The same, each with the id of what it is or repeats."""
        ids = UniqueIds(item.id for item in self.items)
        found: list[tuple[Item, str]] = []
        for part, items, _ in self.ingredients:
            whole, share = divmod(part.weight, 1.0)
            rest = _subset(items, share, seed=seed) if share else []
            if items and not whole and not rest:
                raise DataError(
                    f"{part.file}: a weight of {part.weight:g} takes none of its {len(items)} examples: raise it, or "
                    "leave the file out with 0."
                )
            copies = [items] * int(whole) + [rest]
            found += [(item, item.id) for item in copies[0]]
            found += [(ids.unique(item), item.id) for copy in copies[1:] for item in copy]
        return found

    def describe(self) -> dict[str, Any]:
        """What a report must say: of one plain file that alone; else also what each was, and a hash of all of it."""
        left_out = {"files_left_out": self.left_out} if self.left_out else {}
        if len(self.ingredients) == 1 and self.ingredients[0].part.plain:
            return self.ingredients[0].record | left_out
        files = [{**one.record, **_asked(one.part)} for one in self.ingredients]
        content = [[content_of(file), file["weight"], file.get("source_name")] for file in files]
        counted = {name: sum(file[name] for file in files) for name in ("pairs", "prompts") if name in files[0]}
        dropped = sum((Counter(file["dropped"]) for file in files), Counter[str]())
        layouts = {"layout": ", ".join(dict.fromkeys(file["layout"] for file in files))} if "pairs" in counted else {}
        return {
            "file": " + ".join(_times(file) for file in files),
            "sha256": hashlib.sha256(json.dumps(content).encode()).hexdigest(),
            **layouts,
            **counted,
            "dropped": dict(dropped),
            "files": files,
            **left_out,
            **({"noted": self.noted} if self.noted else {}),
        }


def names_of(mixture: Mixture[Item]) -> dict[str, str]:
    """Ids -> the name of their file: its source where one was given, else as suites are named; nothing of one file."""
    if len(mixture.ingredients) < 2:
        return {}
    files = list(suite_files([one.part.file for one in mixture.ingredients]))
    named = zip(files, mixture.ingredients, strict=True)
    return {item.id: one.part.source or file for file, one in named for item in one.items}


def once(drawn: Sequence[Item], mixture: Mixture[Item]) -> list[Item]:
    """What was drawn of a mixture without its repetitions, which alone have ids that no file has."""
    known = {item.id for item in mixture.items}
    return [item for item in drawn if item.id in known]


def split(mixture: Mixture[Pair], *, share: float, seed: int) -> tuple[Mixture[Pair], list[Pair]]:
    """Hold out a share of the prompts of all files: what is left, and the pairs held out, once each.

    No prompt is on both sides, whichever files it stands in.
    """
    halves = [split_by_prompt(one.items, share=share, seed=seed) for one in mixture.ingredients]
    kept = [one._replace(items=rest) for one, (rest, _) in zip(mixture.ingredients, halves, strict=True)]
    return replace(mixture, ingredients=kept), [pair for _, held_out in halves for pair in held_out]


def mixed_pairs(
    files: object, *, columns: str | ColumnMap | None = None, shared: bool = False, by: Sequence[str] = ()
) -> Mixture[Pair]:
    """Read the pairs of a training set, or of what is held out.

    Args:
        files: What ``llm.data.mixtures.parts_of`` takes.
        columns: Which column holds what, in the files that say nothing of their own; of several, in those that have
            these columns.
        shared: The columns are those of other files, and none of these need have them.
        by: Names of groups (``llm.data.grouping``); the columns that these need of a file are kept.

    Raises:
        DataError: One cannot be read, or none has the columns.
    """
    keep, names = asked_of_file(by, PairColumns), dict[str, None]()

    def read(part: Part, *, shared: bool) -> tuple[list[Pair], dict[str, Any]]:
        source = read_pairs(part.file, columns=part.columns or columns, shared=shared, keep=keep)
        names.update(dict.fromkeys(source.names))
        return list(source.pairs), describe_file(source)

    parts, ingredients = _read(files, columns, read, shared=shared)
    if not shared:
        check_known(by, PairColumns([pair for one in ingredients for pair in one.items]), names)
    noted: dict[str, int] = {}
    if len(ingredients) > 1:
        again, against = across([one.items for one in ingredients])
        found = {
            "pairs that stand in an earlier file": again,
            "pairs that an earlier file labels otherwise": against,
        }
        noted = {what: cases.count for what, cases in found.items() if cases.count}
        for what in noted:
            _log.warning("%s files: %s: %s", "held-out" if shared else "training", what, found[what])
    return _mixture(parts, ingredients, noted, role="held-out" if shared else "training")


def mixed_prompts(
    files: Any, *, distinct: bool, columns: str | ColumnMap | None = None, by: Sequence[str] = (), beside: bool = False
) -> Mixture[Prompt]:
    """Read the prompts of a training set; with ``distinct`` each is kept where it stands first, over all files.

    With ``beside`` they keep the columns that a checker may ask for.

    Raises:
        DataError: As ``mixed_pairs``; or a file holds no prompt of its own.
    """
    from llm.data.prompts import read_prompts

    keep, names = asked_of_file(by, PromptColumns), dict[str, None]()

    def read(part: Part, *, shared: bool) -> tuple[list[Prompt], dict[str, Any]]:
        told = {"columns": part.columns or columns, "shared": shared, "keep": keep, "beside": beside}
        source = read_prompts(part.file, distinct=distinct, **told)
        names.update(dict.fromkeys(source.names))
        return source.prompts, source.describe()

    parts, ingredients = _read(files, columns, read)
    check_known(by, PromptColumns([prompt for one in ingredients for prompt in one.items]), names)
    if distinct and len(ingredients) > 1:
        ingredients = _once(ingredients)
    return _mixture(parts, ingredients, {})


def _read(
    files: object,
    columns: str | ColumnMap | None,
    read: Callable[..., tuple[list[Item], dict[str, Any]]],
    *,
    shared: bool = False,
) -> tuple[list[Part], list[Ingredient[Item]]]:
    parts = parts_of(files)
    used = [part for part in parts if part.weight]
    own = [part for part in used if not part.columns]
    others = shared or len(own) > 1
    ingredients = [Ingredient(part, *read(part, shared=others and not part.columns)) for part in used]
    if len(own) > 1 and not shared:
        check_mapped(columns, {one.part.file: one.record.get("columns") for one in ingredients if not one.part.columns})
    return parts, ingredients


def _mixture(
    parts: Sequence[Part], ingredients: list[Ingredient[Item]], noted: dict[str, int], *, role: str = "training"
) -> Mixture[Item]:
    left_out = [part.file for part in parts if not part.weight]
    if left_out:
        _log.warning("%s: left out of the training set, by a weight of 0", ", ".join(left_out))
    if len(ingredients) > 1:
        ids = UniqueIds()
        ingredients = [one._replace(items=[ids.unique(item) for item in one.items]) for one in ingredients]
        if ids.repeated:
            _log.warning("%s files: %d ids stand in several files; later ones get a number", role, ids.repeated)
    return Mixture([_named(one, alone=len(ingredients) == 1) for one in ingredients], left_out, noted)


def _named(one: Ingredient[Item], *, alone: bool) -> Ingredient[Item]:
    """With the source that was given; among several files, the file's own name where it says nothing of a source."""
    part = one.part
    if part.source:
        return one._replace(
            items=[replace(item, source=part.source) for item in one.items],
            record=one.record | {"source_name": part.source},
        )
    if alone or not any(item.source == _UNKNOWN for item in one.items):
        return one
    address = address_of(part.file)
    stem = stem_of(Path(part.file)) if address is None else address.stem
    items = [replace(item, source=stem) if item.source == _UNKNOWN else item for item in one.items]
    return one._replace(items=items, record=one.record | {"source_name": stem})


def _once(ingredients: Sequence[Ingredient[Prompt]]) -> list[Ingredient[Prompt]]:
    from llm.data.prompts import distinct_prompts

    seen: dict[str, str | None] = {}
    found: list[Ingredient[Prompt]] = []
    for one in ingredients:
        dropped = Counter[str](one.record["dropped"])
        prompts = list(distinct_prompts(one.items, dropped, seen))
        if not prompts:
            raise DataError(f"{one.part.file} holds no prompt that is not in an earlier file: leave it out.")
        found.append(
            one._replace(items=prompts, record=one.record | {"prompts": len(prompts), "dropped": dict(dropped)})
        )
    return found


def _subset(items: Sequence[Item], share: float, *, seed: int) -> list[Item]:
    """That share of the items, rounded, by a hash of what they say and the seed; equal ones are drawn on their own."""
    copies = Counter[str]()
    order: list[tuple[bytes, int]] = []
    for place, item in enumerate(items):
        said = {name: value for name, value in asdict(item).items() if name not in _BESIDE}
        content = json.dumps(said | {"id": "", "source": ""}, sort_keys=True)
        copies[content] += 1
        order.append((hashlib.sha256(f"{seed} {copies[content]} {content}".encode()).digest(), place))
    chosen = sorted(place for _, place in sorted(order)[: int(share * len(items) + 0.5)])
    return [items[place] for place in chosen]


def _asked(part: Part) -> dict[str, Any]:
    return {"weight": part.weight}


def _times(file: dict[str, Any]) -> str:
    return file["file"] if file["weight"] == 1 else f"{file['file']} x {file['weight']:g}"


def said_of(record: Mapping[str, Any], role: str = "training") -> dict[str, str]:
    """Of a described mixture, what a plan says of its files; of one file nothing."""
    what = "pairs" if "pairs" in record else "prompts"
    files = [f"{_times(file)} ({file[what]:,} {what})" for file in record.get("files", ())]
    return {f"{role} files": ", ".join(files)} if files else {}


def files_of(record: Mapping[str, Any], role: str = "training") -> Iterator[tuple[str, str]]:
    """Of a described mixture, a name for each of its files and what tells it from others: content, weight, source."""
    for number, file in enumerate(record.get("files", ()), start=1):
        name = f", named {file['source_name']}" if "source_name" in file else ""
        yield f"{role} file {number}", f"{content_of(file)} x {file['weight']:.17g}{name}"
