"""How sure labels are and how much pairs count: read, refused, written, counted, in every way that pairs are read."""

from __future__ import annotations

import json
import math

import pytest
from pair_layouts import save

from llm.commands.data import data as data_command
from llm.data.mixing import mixed_pairs
from llm.data.objects import pairs_of
from llm.data.overview import overview
from llm.data.pairs import DataError, Pair, read_pairs, write_pairs

ASKED = [{"role": "user", "content": "Where?"}]
TURNS = [*ASKED, {"role": "assistant", "content": "Here."}], [*ASKED, {"role": "assistant", "content": "There."}]
SAID = "\n\nHuman: Where?\n\nAssistant: "
PLAIN = {
    "canonical": {"prompt": ASKED, "chosen": "Here.", "rejected": "There."},
    "trl": {"prompt": "Where?", "chosen": "Here.", "rejected": "There."},
    "trl-implicit": dict(zip(("chosen", "rejected"), TURNS, strict=True)),
    "hh-rlhf": {"chosen": f"{SAID}Here.", "rejected": f"{SAID}There."},
    "ultrafeedback-binarized": {
        "prompt": "Where?", "score_chosen": 3.0, "score_rejected": 1.0,
        **dict(zip(("chosen", "rejected"), TURNS, strict=True)),
    },
}  # fmt: skip


def labels(pairs):
    return [(pair.preference, pair.weight) for pair in pairs]


@pytest.mark.parametrize("layout", PLAIN)
@pytest.mark.parametrize("suffix", [".jsonl", pytest.param(".csv", marks=pytest.mark.exhaustive)])
def test_plain_layouts_read_both_columns_and_conversion_keeps_them(layout, suffix, tmp_path):
    nothing = "" if suffix == ".csv" else None
    rows = [
        PLAIN[layout] | {"id": "a", "preference": 0.8, "weight": 2},
        PLAIN[layout] | {"id": "b", "preference": nothing, "weight": 0.5},
        PLAIN[layout] | {"id": "c", "preference": 0, "weight": nothing},
    ]
    read = read_pairs(save(rows, tmp_path / f"a{suffix}"))
    assert (read.layout, labels(read.pairs)) == (layout, [(0.8, 2.0), (None, 0.5), (0.0, None)])
    write_pairs(read.pairs, tmp_path / "b.jsonl")
    assert read_pairs(tmp_path / "b.jsonl").pairs == read.pairs
    lines = [json.loads(line) for line in (tmp_path / "b.jsonl").read_text().splitlines()]
    assert [sorted({"preference", "weight"} & line.keys()) for line in lines] == [
        ["preference", "weight"], ["weight"], ["preference"],
    ]  # fmt: skip
    seen = overview(read.pairs)
    assert (seen.preferences, seen.weights) == (2, 2)


def test_objects_frames_and_data_sets(capsys, tmp_path):
    datasets, pandas = pytest.importorskip("datasets"), pytest.importorskip("pandas")
    rows = [PLAIN["trl"] | {"preference": 0.25, "weight": 3.0}, PLAIN["trl"] | {"preference": None, "weight": 1.0}]
    for source in (rows, pandas.DataFrame(rows), datasets.Dataset.from_list(rows)):
        assert labels(pairs_of(source).pairs) == [(0.25, 3.0), (None, 1.0)]  # a frame has NaN where a rating is missing
    mapped = [{"q": "Where?", "yes": "Here.", "no": "There.", "sure": "0.25", "n": 3}]
    keys = {"prompt": "q", "chosen": "yes", "rejected": "no", "preference": "sure", "weight": "n"}
    assert labels(pairs_of(mapped, columns=keys).pairs) == [(0.25, 3.0)]
    data_command(["show", str(save(rows, tmp_path / "a.jsonl"))])
    assert "preferences (soft_labels: data): 1 pairs" in (said := capsys.readouterr().out)
    assert "weights: 2 pairs" in said


WRONG = [
    ("preference", 1.2, "'preference' should be the probability, from 0 to 1, .* found 1.2: correct it"),
    ("preference", -0.1, "'preference' .* found -0.1"),
    ("preference", "model_a", "'preference' .* found 'model_a': correct it, leave it empty, or rename the column"),
    ("weight", -1, "'weight' should be how much the pair or prompt counts, a finite number of at least 0, found -1.0"),
    ("weight", math.nan, "'weight' .* found nan"),
    ("weight", math.inf, "'weight' .* found inf"),
    ("weight", [1], r"'weight' .* found \[1\]"),
]


@pytest.mark.parametrize(("name", "value", "message"), WRONG, ids=[f"{name}={value}" for name, value, _ in WRONG])
@pytest.mark.parametrize("layout", PLAIN)
def test_what_is_no_probability_or_no_weight_is_refused_with_its_record(layout, name, value, message):
    with pytest.raises(DataError, match=f"row 2: {message}"):
        pairs_of([PLAIN[layout], PLAIN[layout] | {name: value}])


RATED = {
    "helpsteer2": (
        [{"prompt": "q", "response": text, "helpfulness": mark} for text, mark in (("Here.", 5), ("There.", 1))],
        "a rating is 5, outside its scale from 0 to 4",
    ),
    "webgpt": (
        [{"question": "q", "answer_0": "Here.", "answer_1": "There.", "score_0": 2.0, "score_1": -2.0}],
        "a rating is 2, outside its scale from -1 to 1",
    ),
}


@pytest.mark.parametrize("layout", RATED)
def test_a_rating_outside_its_scale_is_refused_with_its_record(layout):
    rows, message = RATED[layout]
    with pytest.raises(DataError, match=f"row 1.*: {message}: mend or leave out the record"):
        pairs_of(rows)


def test_what_a_model_wrote_outside_the_scale_is_a_hard_label_and_counted():
    answers = [{"response": text, "overall_score": score} for text, score in (("Here.", 85.0), ("There.", 5.0))]
    read = pairs_of([{"instruction": "q", "completions": answers}])
    assert labels(read.pairs) == [(None, None)]
    assert sum(read.noted.values()) == 1


def test_votes_below_zero_say_nothing():
    row = {"history": "q", "human_ref_A": "Here.", "human_ref_B": "There.", "labels": 1, "score_A": 3, "score_B": -2}
    assert labels(pairs_of([row]).pairs) == [(None, None)]


def test_what_a_weighted_file_draws_does_not_depend_on_its_labels(tmp_path):
    """A fractional file weight draws by a hash of the texts: runs of earlier versions resume on the same pairs."""
    bare = [Pair(f"p{i}", ({"role": "user", "content": f"q{i}"},), "a", "b") for i in range(40)]
    sure = [Pair(*(pair.id, pair.prompt, "a", "b"), preference=i / 40, weight=1 + i) for i, pair in enumerate(bare)]
    drawn = []
    for pairs in (bare, sure):
        write_pairs(pairs, tmp_path / "a.jsonl")
        drawn.append([pair.id for pair in mixed_pairs(f"{tmp_path / 'a.jsonl'}:0.5").drawn(seed=1)])
    assert drawn[0] == drawn[1]
    assert 0 < len(drawn[0]) < 40
