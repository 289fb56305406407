"""Every published data set, in every file format, gives the pairs that its card says are in it."""

from __future__ import annotations

import csv
import json
import logging
import tracemalloc
from pathlib import Path

import pytest
from hub_samples import BINARIZED, HELPSTEER, MT_BENCH, REWARD_BENCH_2, SAMPLES, ULTRAFEEDBACK, completions, judged

from llm.data.conversion import convert
from llm.data.pairs import DataError, read_pairs, stream_pairs
from robust_rlhf import main


def save(rows, path: Path) -> Path:
    """Write with libraries that are not under test."""
    if path.suffix == ".parquet":
        pa = pytest.importorskip("pyarrow")
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(
                {k: json.dumps(v) if isinstance(v, list | dict) else v for k, v in row.items()} for row in rows
            )
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".csv"])
@pytest.mark.parametrize("name", SAMPLES)
def test_every_data_set_in_every_format(tmp_path, name, suffix):
    sample = SAMPLES[name]
    read = read_pairs(save(sample.rows, tmp_path / f"part{suffix}"))
    assert read.layout == sample.layout
    assert read.pairs == sample.expected("part")
    assert read.dropped == sample.dropped


@pytest.mark.parametrize("name", SAMPLES)
def test_converted_pairs_are_the_same_pairs(tmp_path, name):
    source = save(SAMPLES[name].rows, tmp_path / "part.jsonl")
    done = convert(source, tmp_path / "new.jsonl.gz")
    again = read_pairs(tmp_path / "new.jsonl.gz")
    assert (again.layout, again.pairs, again.dropped) == ("canonical", read_pairs(source).pairs, {})
    assert (done.layout, done.dropped) == (SAMPLES[name].layout, SAMPLES[name].dropped)
    assert done.written == len(again.pairs)


def test_the_order_of_the_columns_does_not_matter(tmp_path):
    for name, sample in SAMPLES.items():
        rows = [dict(reversed(row.items())) for row in sample.rows]
        assert read_pairs(save(rows, tmp_path / "part.jsonl")).pairs == sample.expected("part"), name


def test_ties_are_no_sign_of_a_bad_file_but_one_pair_is_needed(tmp_path, caplog):
    ties = [judged(81, "tie", 1)] * 5
    read = read_pairs(save([*ties, judged(81, "model_a", 2)], tmp_path / "a.jsonl"))
    assert (len(read.pairs), read.dropped) == (1, {"tie": 5})
    assert "dropped 5 of 6 records (tie: 5)" in caplog.text
    with pytest.raises(DataError, match=r"a\.jsonl holds no comparison: all 5 records were left out \(tie: 5\)"):
        read_pairs(save(ties, tmp_path / "a.jsonl"))


def test_ultrafeedback_draws_the_worse_answer_evenly_and_always_the_same(tmp_path):
    rows = [completions(1, 9, 2, 3) | {"instruction": f"Question {i}"} for i in range(600)]
    pairs = read_pairs(save(rows, tmp_path / "a.jsonl")).pairs
    assert {pair.chosen for pair in pairs} == {"answer 1"}
    drawn = {name: sum(pair.rejected == f"answer {name}" for pair in pairs) for name in (0, 2, 3)}
    assert sum(drawn.values()) == 600
    assert min(drawn.values()) > 150  # 200 each; four standard deviations are 46
    shuffled = read_pairs(save(rows[::-1], tmp_path / "b.jsonl")).pairs[::-1]
    assert [pair.rejected for pair in shuffled] == [pair.rejected for pair in pairs]


def test_a_binarized_set_without_its_prompt_is_dropped_not_misread(tmp_path):
    rows = [BINARIZED.rows[0] | {"prompt": None}, BINARIZED.rows[0]]
    read = read_pairs(save(rows, tmp_path / "a.jsonl"))
    assert (read.layout, len(read.pairs), read.dropped) == ("ultrafeedback-binarized", 1, {"empty prompt": 1})


WRONG = [
    (HELPSTEER.rows[0] | {"helpfulness": "high"}, "line 1 and line 2: 'helpfulness' should be a number, found 'high'"),
    (ULTRAFEEDBACK.rows[0] | {"completions": "none"}, "line 1: 'completions' should be a list, found str"),
    (ULTRAFEEDBACK.rows[0] | {"completions": ["a", "b"]}, "line 1: 'completions' should hold objects with response"),
    (ULTRAFEEDBACK.rows[0] | {"completions": [{"text": "a"}]}, "line 1: no 'overall_score' here, found text"),
    (MT_BENCH.rows[0] | {"winner": "a"}, "line 1: 'winner' should be model_a, model_b or tie, found 'a'"),
    (MT_BENCH.rows[0] | {"conversation_b": "text"}, "line 1: 'conversation_b' should be a list of messages, found str"),
    (REWARD_BENCH_2.rows[0] | {"chosen": "one"}, "line 1: 'chosen' should be a list, found str"),
    (REWARD_BENCH_2.rows[0] | {"rejected": [3]}, "line 1: an answer should be text, found int"),
    (SAMPLES["allenai/reward-bench"].rows[0] | {"rejected": ["a"]}, "line 1: 'rejected' should be text, found list"),
    (SAMPLES["HuggingFaceH4/hhh_alignment"].rows[0] | {"targets": "a"}, "'targets' should hold choices and labels"),
    ({"input": "q", "targets": {"choices": ["a", "b"], "labels": [1]}}, "'targets' has 2 choices but 1 labels"),
    ({"conv_A": [], "conv_B": []}, "line 1: found the columns conv_A, conv_B, expected.*unified-feedback {conv_A and"),
]


@pytest.mark.parametrize(("row", "message"), WRONG, ids=range(len(WRONG)))
def test_a_record_that_breaks_its_layout_says_how(tmp_path, row, message):
    with pytest.raises(DataError, match=message) as caught:
        read_pairs(save([row, row], tmp_path / "a.jsonl"))
    assert str(tmp_path / "a.jsonl") in str(caught.value)


def test_a_prefix_is_a_prefix(tmp_path):
    path = save(SAMPLES["llm-blender/Unified-Feedback"].rows, tmp_path / "a.jsonl")
    whole, part = read_pairs(path), read_pairs(path, max_records=2)
    assert (part.pairs, part.dropped) == (whole.pairs[:1], {"tie": 1})
    with pytest.raises(DataError, match="max_records must be at least 1, got 0"):
        read_pairs(path, max_records=0)


def test_a_stream_reads_no_further_than_asked(tmp_path):
    rows = [{"prompt": "p", "chosen": f"a{i}", "rejected": "b"} for i in range(3)]
    path = save(rows, tmp_path / "a.jsonl")
    path.write_text(path.read_text() + "{oops}\n")
    stream = iter(stream_pairs(path))
    assert [next(stream).chosen for _ in range(3)] == ["a0", "a1", "a2"]
    with pytest.raises(DataError, match="line 4: this is not JSON"):
        next(stream)
    assert convert(path, tmp_path / "new.jsonl", max_pairs=3).written == 3


def test_conversion_filters_and_leaves_the_old_file_when_nothing_is_left(tmp_path, caplog):
    caplog.set_level(logging.ERROR)
    path = save(SAMPLES["llm-blender/Unified-Feedback"].rows, tmp_path / "a.jsonl")
    target = tmp_path / "new.jsonl"
    done = convert(path, target, sources=["s2"])
    assert (done.written, done.passed_over, [p.source for p in read_pairs(target).pairs]) == (1, 1, ["s2"])
    before = target.read_bytes()
    with pytest.raises(DataError, match=r"a\.jsonl has no pair from s3; its sources are s0, s2"):
        convert(path, target, sources=["s3"])
    with pytest.raises(DataError, match="max_pairs must be at least 1, got 0"):
        convert(path, target, max_pairs=0)
    assert target.read_bytes() == before


def test_the_command_converts_and_shows(tmp_path, capsys):
    path, target = save(MT_BENCH.rows, tmp_path / "a.jsonl"), tmp_path / "new.jsonl.gz"
    assert main(["data", "convert", str(path), str(target), "--where", "turn=1", "winner=model_a"]) == 0
    assert f"{target}: 1 pairs from the mt-bench layout, dropped: nothing" in capsys.readouterr().out
    assert main(["data", "show", str(path), "--max-records", "3"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "2 pairs, mt-bench layout" in shown
    assert "dropped: 1 tie" in shown
    assert main(["data", "convert", str(path), str(target), "--where", "turn"]) == 2
    assert "--where takes COLUMN=VALUE, got 'turn'" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_conversion_holds_a_small_part_of_the_file(tmp_path, suffix):
    rows = [{"prompt": f"p{i}", "chosen": "a" * 2000, "rejected": "b" * 2000} for i in range(2000)]
    path = save(rows, tmp_path / f"big{suffix}")
    tracemalloc.start()
    try:
        convert(path, tmp_path / "new.jsonl")
        assert tracemalloc.get_traced_memory()[1] < path.stat().st_size / 10
    finally:
        tracemalloc.stop()
