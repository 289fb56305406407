"""Groups by name: any column of any file, quantile bins of numbers, products; and what is no name of a group."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import llm
from llm.data.corpus.corpus import generate
from llm.data.grouping.columns import PairColumns, PromptColumns
from llm.data.grouping.named import NamedGroups
from llm.data.mixing import mixed_pairs, mixed_prompts
from llm.data.pairs import DataError, length_baseline, read_pairs, write_pairs

PAIRS = generate(24, seed=1)
TAGS = ["de", "en", "fr"]
ROWS = [
    {"ask": pair.prompt[0]["content"], "good": pair.chosen, "bad": pair.rejected, "tag": TAGS[place % 3],
     "level": place / 4, "rest": "never asked for"}
    for place, pair in enumerate(PAIRS)
]  # fmt: skip
KEYS = "prompt=ask,chosen=good,rejected=bad"
NUMBERS = st.lists(st.integers(-3, 9) | st.floats(-5, 5), min_size=1, max_size=40)


def save(rows, path):
    frame = pd.DataFrame(rows)
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def codes(labels):
    """Numbers in the order in which labels come up: equal partitions have equal ones."""
    found = {}
    return [found.setdefault(label, len(found)) for label in labels]


@given(NUMBERS, st.integers(2, 9))
def test_bins_are_the_quantiles_of_pandas(values, count):
    found = NamedGroups({"size": values})[f"size/{count}"]
    inner = np.unique(np.quantile(values, np.arange(1, count) / count))
    cut = pd.cut(pd.Series(values, dtype=float), [-np.inf, *inner, np.inf], labels=False)
    assert codes(found) == codes(cut)
    if len(set(values)) == len(values) >= count:
        sizes = Counter(found).values()
        assert len(sizes) == count
        assert max(sizes) - min(sizes) <= 1


@given(st.lists(st.tuples(st.sampled_from(TAGS), st.integers(0, 3), st.integers(0, 50)), min_size=1, max_size=30))
def test_a_product_tells_apart_what_one_of_its_parts_tells_apart(rows):
    groups = NamedGroups({name: list(entries) for name, entries in zip("abc", zip(*rows, strict=True), strict=True)})
    product = codes(groups["a * b*c/3"])
    assert product == codes(zip(groups["a"], groups["b"], groups["c/3"], strict=True))


def test_held_out_numbers_are_cut_where_those_of_training_are():
    train = NamedGroups({"size": [1, 2, 3, 4, 100, None]})
    held_out = NamedGroups({"size": [-5, 2.5, 99, "unknown"]}, like=train)
    assert held_out["size/2"] == ["at most 3", "at most 3", "above 3", "unknown"]
    assert train["size/2"] == ["at most 3"] * 3 + ["above 3"] * 2 + ["unknown"]


def test_a_column_of_such_a_name_is_itself():
    odd = {"a*b": [1, 2], "a/2": ["x", "y"], "a": ["p", "q"], "b": [0, 0]}
    groups = NamedGroups(odd)
    assert all(groups[name] == odd[name] for name in odd)
    assert "a*c" not in groups
    assert "a*b*c" not in groups


@given(st.lists(st.integers(0, 5), min_size=2, max_size=60), st.integers(0, 9))
def test_dealing_labels_anew_keeps_the_sizes_and_moves_all_columns_together(labels, seed):
    columns = {"a": labels, "b": np.arange(len(labels)) % 3, "place": list(range(len(labels)))}
    dealt = NamedGroups(columns, seed=seed).permuted()
    order = dealt["place"]
    assert sorted(order) == columns["place"]
    assert dealt["a"] == [labels[place] for place in order]
    assert list(dealt["b"]) == [place % 3 for place in order]
    assert order == NamedGroups(columns, seed=seed).permuted()["place"]


def test_another_seed_deals_otherwise():
    orders = {tuple(NamedGroups({"a": range(30)}, seed=seed).permuted()["a"]) for seed in range(8)}
    assert len(orders) == 8


def test_pairs_know_their_lengths():
    columns = PairColumns(PAIRS)
    assert columns["length_gap"] == [abs(len(pair.chosen) - len(pair.rejected)) for pair in PAIRS]
    assert columns["chosen_is_longer"] == ["yes" if length_baseline(pair) == 1 else "no" for pair in PAIRS]
    swapped = PairColumns([replace(pair, chosen=pair.rejected, rejected=pair.chosen) for pair in PAIRS])
    assert swapped["length_gap"] == columns["length_gap"]
    assert swapped["chosen_is_longer"] != columns["chosen_is_longer"]
    groups = NamedGroups(columns)
    assert groups["length_gap"] == groups["length_gap/4"]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_a_column_of_the_file_is_kept_where_a_group_names_it_and_nowhere_else(suffix, tmp_path):
    path = save(ROWS, tmp_path / f"a{suffix}")
    mixture = mixed_pairs(path, columns=KEYS, by=["tag*level/2"])
    columns = PairColumns(mixture.items)
    assert columns["tag"] == [row["tag"] for row in ROWS]
    assert list(map(float, columns["level"])) == [row["level"] for row in ROWS]
    assert {name for pair in mixture.items for name, _ in pair.kept} == {"tag", "level"}
    assert [replace(pair, kept=()) for pair in mixture.items] == read_pairs(path, columns=KEYS).pairs
    assert "rest" in mixture.ingredients[0].record["ignored"]
    assert "tag" not in mixture.ingredients[0].record["ignored"]


ONCE = list({row["ask"]: row for row in ROWS}.values())  # one record of every prompt
LAYOUTS = {
    "trl": [{"prompt": r["ask"], "chosen": r["good"], "rejected": r["bad"], "tag": r["tag"]} for r in ONCE],
    "unpaired": [
        {"prompt": r["ask"], "completion": r[side], "label": side == "good", "tag": r["tag"]}
        for r in ONCE for side in ("good", "bad")
    ],
    "helpsteer2": [
        {"prompt": r["ask"], "response": r[side], "helpfulness": number, "correctness": 1, "coherence": 1,
         "complexity": 1, "verbosity": 1, "tag": r["tag"]}
        for r in ONCE for number, side in enumerate(("bad", "good"))
    ],
    "ranked-lists": [
        {"prompt": r["ask"], "generations": [r["good"], r["bad"]], "ratings": [2, 1], "tag": r["tag"]} for r in ONCE
    ],
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_that_make_one_pair_of_several_records_keep_it_too(layout, tmp_path):
    mixture = mixed_pairs(save(LAYOUTS[layout], tmp_path / "a.jsonl"), by=["tag"])
    tags = {row["ask"]: row["tag"] for row in ONCE}
    assert mixture.ingredients[0].record["layout"] == layout
    assert PairColumns(mixture.items)["tag"] == [tags[pair.prompt[0]["content"]] for pair in mixture.items]


def test_objects_files_and_prompts_keep_it_alike(tmp_path):
    pairs = mixed_pairs(save(ROWS, tmp_path / "a.jsonl"), columns=KEYS, by=["tag"]).items
    write_pairs(pairs, tmp_path / "b.jsonl")
    again = mixed_pairs(str(tmp_path / "b.jsonl"), by=["tag"]).items
    assert again == pairs
    prompts = mixed_prompts(str(tmp_path / "b.jsonl"), distinct=False, by=["tag"]).items
    alone = mixed_prompts(save([{"prompt": r["ask"], "tag": r["tag"]} for r in ROWS], tmp_path / "c.jsonl"),
                          distinct=False, by=["tag"]).items  # fmt: skip
    assert PromptColumns(prompts)["tag"] == PromptColumns(alone)["tag"] == [row["tag"] for row in ROWS]


def test_what_a_weight_draws_does_not_depend_on_it(tmp_path):
    files = [{"file": save(ROWS, tmp_path / "a.jsonl"), "weight": 1.5, "columns": KEYS}]
    drawn = [[pair.id for pair in mixed_pairs(files, by=by).drawn(seed=3)] for by in ([], ["tag"])]
    assert drawn[0] == drawn[1]


def test_a_mixture_takes_the_column_where_a_file_has_it(tmp_path):
    other = [{"prompt": f"{row['ask']}?", "chosen": row["good"], "rejected": row["bad"]} for row in ROWS[:5]]
    files = [{"file": save(ROWS, tmp_path / "a.jsonl"), "columns": KEYS}, save(other, tmp_path / "b.jsonl")]
    assert PairColumns(mixed_pairs(files, by=["tag"]).items)["tag"] == [row["tag"] for row in ROWS] + ["unknown"] * 5


@pytest.mark.parametrize(
    ("by", "message"),
    [
        ("tagg", r"by=tagg: there is no column 'tagg', did you mean 'tag'\? The columns are: source, .*, tag, level"),
        (
            "other",
            r"by=other: there is no column 'other'; the columns are: source, category, .*length_gap.*, tag, level",
        ),
        ("source*topic/3", "no column 'topic'"),
        ("tag/3", "tag cannot be cut into bins, for it holds no numbers, 'de' for example"),
        ("level/1", "level/1 asks for 1 bins of level"),
        ("level/99999999999", "groups are from 2 to 1,000"),
    ],
)
def test_what_is_no_group_is_one_sentence(by, message, tmp_path):
    with pytest.raises(ValueError, match=message) as raised:
        NamedGroups(PairColumns(mixed_pairs(save(ROWS, tmp_path / "a.jsonl"), columns=KEYS, by=[by]).items))[by]
    assert "\n" not in str(raised.value)


def test_a_column_of_lists_is_named_with_its_place(tmp_path):
    rows = [row | {"tag": ["de"]} for row in ROWS]
    with pytest.raises(DataError, match=r"line 1: 'tag' should be a text or a number to make groups by, found list"):
        mixed_pairs(save(rows, tmp_path / "a.jsonl"), columns=KEYS, by=["tag"])


def test_prompts_have_no_lengths_of_answers(tmp_path):
    with pytest.raises(DataError, match="no column 'length_gap'; the columns are: source, category, ask"):
        mixed_prompts(save(ROWS, tmp_path / "a.jsonl"), columns="prompt=ask", distinct=False, by=["length_gap"])


def test_a_frame_is_trained_on_by_its_columns(tmp_path):
    few = {
        "model": "tiny",
        "max_steps": 1,
        "max_length": 48,
        "per_device_train_batch_size": 8,
        "use_cpu": True,
        "plain_share": 0,
    }
    run = llm.train("reward", pd.DataFrame(ROWS), columns=KEYS, ambiguity="tv:0.2,by=tag", output=tmp_path / "r", **few)
    assert set(run.record["adversary"]["by_group"]["tag"]) <= set(TAGS)
