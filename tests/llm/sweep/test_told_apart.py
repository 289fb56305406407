"""Pairs that a model of a sweep cannot tell apart are left out for all of its models."""

from __future__ import annotations

import json

import numpy as np
import pytest
import transformers as tf
from tokenizer_shapes import shaped, wordpiece

from llm.data.pairs import DataError, Pair, read_pairs, write_pairs
from llm.features.features import load_backbone, pair_features
from llm.sweep.plan import parse_sweep
from llm.sweep.sources import Sources
from llm.sweep.told_apart import told_apart

ASKED = ({"role": "user", "content": "Which colour has the dog?"},)
ALIVE = [Pair(f"a{i}", ASKED, "It is red.", "It is blue." + " Nobody knows." * i) for i in range(4)]
CASE = Pair("case", ASKED, "It is Red.", "It is red.")  # the same without case
LATE = Pair("late", ASKED, "It is red and the cat is blue.", "It is red and the cat is green.")  # parts behind the end


@pytest.fixture
def backbone(tmp_path):
    tokenizer = wordpiece()
    config = tf.BertConfig(vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                           num_attention_heads=1, max_position_embeddings=64, pad_token_id=0)  # fmt: skip
    tf.AutoModel.from_config(config).save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def sweep(backbone, *lengths, **more):
    models = {f"m{n}": {"kind": "head", "model": str(backbone), "max_length": n, "epochs": 1} for n in lengths}
    return parse_sweep(
        {**more, "data": "unused", "models": models, "grid": [{"ambiguity": "erm", "model": list(models)}]}
    )


@pytest.mark.parametrize(
    ("lengths", "dead"), [((48,), {"case"}), ((16,), {"case", "late"}), ((48, 16), {"case", "late"})]
)
def test_pairs_that_one_model_cannot_tell_apart_are_left_out_for_all(backbone, tmp_path, lengths, dead, caplog):
    files = {"train": tmp_path / "train.jsonl", "whole": tmp_path / "whole.jsonl"}
    write_pairs([ALIVE[0], CASE, *ALIVE[1:], LATE], files["train"])
    write_pairs(ALIVE, files["whole"])
    (tmp_path / "out").mkdir()
    found = told_apart(sweep(backbone, *lengths), Sources(files), tmp_path / "out")
    assert found.columns is None
    kept = found.training().pairs
    assert {pair.id for pair in [*ALIVE, CASE, LATE]} - {pair.id for pair in kept} == dead
    assert [pair for pair in kept if pair in ALIVE] == ALIVE
    assert found.suites()[0] == {"whole": ALIVE}
    assert f"train.jsonl: {len(dead)} of 6 pairs cannot be told apart" in caplog.text
    for length in lengths:
        features = pair_features(load_backbone(str(backbone), max_length=length), kept)
        assert (np.abs(features.chosen - features.rejected).max(axis=1) > 0).all()
    with pytest.raises(DataError, match="pairs have no features: of 'case', its two answers have the same tokens"):
        pair_features(load_backbone(str(backbone), max_length=48), [*ALIVE, CASE])


def test_models_are_asked_as_they_are_trained(tmp_path):
    """One that folds system turns reads pairs that its template alone refuses."""
    tokenizer = shaped("bytewise", "gemma")
    config = tf.LlamaConfig(vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                            num_attention_heads=1, max_position_embeddings=64, pad_token_id=0)  # fmt: skip
    tf.AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    files = {"train": tmp_path / "train.jsonl", "whole": tmp_path / "whole.jsonl"}
    write_pairs(
        [ALIVE[0], Pair("s", ({"role": "system", "content": "Be brief."}, *ASKED), "Red.", "Blue.")], files["train"]
    )
    write_pairs(ALIVE, files["whole"])
    (tmp_path / "out").mkdir()
    for turns, kept in (("keep", 1), ("fold", 2)):
        settings = {"model": str(tmp_path / "model"), "max_length": 64, "system_turns": turns}
        plan = {
            "data": "unused",
            "models": {"m": {"kind": "full", **settings}},
            "grid": [{"ambiguity": "erm", "model": "m"}],
        }
        found = told_apart(parse_sweep(plan), Sources(files), tmp_path / "out")
        assert len(found.training().pairs) == kept


def test_files_without_such_pairs_stay_as_they_are(backbone, tmp_path):
    rows = "".join(json.dumps({"asked": "Why?", "good": f"It is {c}.", "bad": "No."}) + "\n" for c in ("red", "blue"))
    mapping = {"prompt": "asked", "chosen": "good", "rejected": "bad"}
    files = {"train": tmp_path / "train.jsonl", "test": tmp_path / "test.jsonl"}
    for path in files.values():
        path.write_text(rows)
    given = Sources(files, columns=mapping)
    assert told_apart(sweep(backbone, 48, columns=mapping), given, tmp_path) is given
    assert given.training().pairs[0].chosen == "It is red."
    dead = json.dumps({"asked": "Why?", "good": "It is Red.", "bad": "it is red."})
    files["test"].write_text(rows + dead + "\n")
    found = told_apart(sweep(backbone, 48, columns=mapping), given, tmp_path)
    assert found.columns is None
    assert [len(read_pairs(path).pairs) for path in found.files.values()] == [2, 2]


def test_a_file_without_a_pair_that_can_be_told_apart_is_refused(backbone, tmp_path):
    files = {"train": tmp_path / "train.jsonl", "dead": tmp_path / "dead.jsonl"}
    write_pairs(ALIVE, files["train"])
    write_pairs([CASE], files["dead"])
    with pytest.raises(DataError, match="same tokens"):
        told_apart(sweep(backbone, 48), Sources(files), tmp_path)
