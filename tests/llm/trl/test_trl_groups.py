"""Groups of TRL's data sets: lengths of texts and messages, columns that travel with our tokens, and their weights."""

from __future__ import annotations

import numpy as np
import pytest
from datasets import Dataset
from robust_trl import trainer_for
from tiny_trl import PAIRS

from llm.data.grouping.columns import PairColumns
from llm.data.grouping.named import NamedGroups
from llm.text.encoding import encode_pairs
from llm.trl import trl_dataset
from llm.trl.columns import Columns

NAMES = ("length_gap", "chosen_is_longer")


def messages(text):
    return [{"role": "assistant", "content": text}]


FORMATS = {
    "texts": lambda pair: {"prompt": "ask", "chosen": pair.chosen, "rejected": pair.rejected},
    "whole texts": lambda pair: {"chosen": "ask " + pair.chosen, "rejected": "ask " + pair.rejected},
    "messages": lambda pair: {"chosen": messages(pair.chosen), "rejected": messages(pair.rejected)},
    "conversations": lambda pair: {
        side: [{"role": "user", "content": "ask"}, *messages(getattr(pair, side))] for side in ("chosen", "rejected")
    },
}


@pytest.mark.parametrize("form", FORMATS)
def test_lengths_are_those_of_the_pairs_in_every_format(form):
    columns = Columns(Dataset.from_list([FORMATS[form](pair) for pair in PAIRS]))
    for name in NAMES:
        assert columns[name] == PairColumns(PAIRS)[name]
    assert set(NAMES) <= set(columns)


def test_a_data_set_of_its_own_column_or_without_answers_is_taken_as_it_is():
    own = Columns(Dataset.from_list([{"chosen": "a", "rejected": "bcd", "length_gap": 7}]))
    assert own["length_gap"] == [7]
    assert list(Columns(Dataset.from_list([{"prompt": "a"}]))) == ["prompt"]


@pytest.mark.parametrize("kind", ["reward", "dpo"])
def test_columns_travel_with_our_tokens(tiny, kind):
    encoded = encode_pairs(PAIRS, tiny.tokenizer, max_length=64)
    data = trl_dataset(encoded, kind, by=["source", "length_gap"])
    plain = trl_dataset(encoded, kind)
    assert data.remove_columns(["source", "length_gap"]).to_list() == plain.to_list()
    assert data["length_gap"] == PairColumns(encoded.pairs)["length_gap"]


@pytest.mark.parametrize("kind", ["reward", pytest.param("dpo", marks=pytest.mark.exhaustive)])
def test_a_trainer_groups_by_what_it_was_asked_for(tiny, tmp_path, kind):
    trainer = trainer_for(tiny, kind, tmp_path, "tv:0.3,by=source*length_gap/3")
    wanted = NamedGroups(PairColumns(PAIRS))["source*length_gap/3"]
    assert len(trainer.train_dataset) == len(PAIRS)
    np.testing.assert_array_equal(trainer.ambiguity.groups, np.unique(wanted, return_inverse=True)[1])
