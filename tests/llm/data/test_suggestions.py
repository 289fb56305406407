"""Files that are refused with the way to read them: in no known layout, or in two."""

from __future__ import annotations

import pytest
from pair_layouts import answer, save
from raw_records import user

from llm.data.pairs import DataError, read_pairs

UNKNOWN = [
    ({"question": "Who?", "good": "I am.", "bad": "no"}, ["prompt=question,chosen=good,rejected=bad`"]),
    ({"instruction": "Who?", "preferred_output": "Me.", "non_preferred_output": "no"},
     ["prompt=instruction,chosen=preferred_output,rejected=non_preferred_output`"]),
    ({"Query": "Who?", "sys": "", "responseWin": "Me.", "responseLose": "no"},
     ["prompt=Query,chosen=responseWin,rejected=responseLose`"]),
    ({"system_prompt": "Be brief.", "question": "Who?", "answer_0": "Me.", "answer_1": "no", "preferred": "answer_0"},
     ["prompt=question,first=answer_0,second=answer_1,winner=preferred,system=system_prompt`"]),
    ({"question": "Who?", "model_a": "gpt", "model_b": "llama", "response_a": "Me.", "response_b": "no", "winner": "a"},
     ["prompt=question,first=response_a,second=response_b,winner=winner`"]),
    ({"post": "Who?", "ref_A": "Me.", "ref_B": "no", "label": 1},
     ["prompt=post,first=ref_A,second=ref_B,winner=label`", "with winner=label:1/0 where 1 means ref_A"]),
    ({"question": "Who?", "completion 1": "Me.", "completion 2": "no", "score 1": 3, "score 2": 1},
     ["first=completion 1,second=completion 2,score_chosen=score 1,score_rejected=score 2`"]),
    ({"question": "Who?", "answer_x": "Me.", "answer_y": "no"},
     ["nothing says which of answer_x and answer_y is better", "first=answer_x,second=answer_y,winner=COLUMN`"]),
    ({"question": "Who?", "query": "Whom?", "good": "Me.", "bad": "no"},
     ["prompt=question", "if the prompt is not in another column: question or query"]),
    ({"question": "Who?", "answer_a": "Me.", "answer_b": "no", "reply_a": "Us.", "reply_b": "nobody", "winner": "a"},
     ["may be answer_a and answer_b or reply_a and reply_b: say which with --columns"]),
    ({"question": "Who?", "answer": "Me.", "liked": "", "label": True},
     ["the answers stand alone, one in each record, with the label label"]),
    ({"prompt": [{"role": "user", "content": "Who?"}], "response": "Me.", "rating": 4.5}, ["the answers stand alone"]),
    ({"alpha": "x", "beta": 3}, ["say which column holds what with --columns"]),
]  # fmt: skip


@pytest.mark.parametrize(("row", "said"), UNKNOWN, ids=range(len(UNKNOWN)))
def test_a_file_in_no_known_layout_is_refused_with_the_mapping_that_reads_it(tmp_path, row, said):
    path = save([row], tmp_path / "a.jsonl")
    with pytest.raises(DataError) as caught:
        read_pairs(path)
    message = str(caught.value)
    assert all(part in message for part in said), message
    if "most likely" in message:
        mapping = message.split("--columns ")[1].split("`")[0]
        if "with winner=" in message:
            mapping = mapping.replace("winner=label", message.split(", with ")[1].split(" where")[0])
        (pair,) = read_pairs(path, columns=mapping).pairs
        assert (pair.prompt[-1]["content"], pair.chosen, pair.rejected) == ("Who?", next(
            text for text in row.values() if text in ("Me.", "I am.")), "no")  # fmt: skip


# Mixed layouts.

MIXED = [
    ({"prompt": "p", "chosen": "a", "rejected": "b"}, {"chosen": [*user("p"), answer("a")], "rejected": [answer("b")]},
     "trl-implicit", "trl"),
    ({"chosen": [*user("p"), answer("a")], "rejected": [*user("p"), answer("b")]},
     {"prompt": "p", "chosen": "a", "rejected": "b"}, "trl", "trl-implicit"),
    ({"prompt": "p", "chosen": "a", "rejected": "b"},
     {"instruction": "p", "completions": [{"response": "a", "overall_score": 1}]}, "ultrafeedback", "trl"),
    ({"prompt": "p", "response": "a", "helpfulness": 3},
     {"prompt": "p", "chosen": "a", "rejected": "b"}, "trl", "helpsteer2"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other", "found", "begins"), MIXED, ids=range(len(MIXED)))
def test_a_record_in_another_layout_stops_with_its_line_and_both_names(tmp_path, one, other, found, begins):
    with pytest.raises(DataError, match=f"line 3: this record is in the layout {found}, the file begins in {begins};"):
        read_pairs(save([one, one, other, one], tmp_path / "a.jsonl"))


def test_texts_and_messages_may_alternate_where_they_are_read_alike(tmp_path):
    rows = [{"prompt": p, "chosen": "a", "rejected": "b"} for p in ("p", list(user("p")), "p")]
    assert [pair.prompt for pair in read_pairs(save(rows, tmp_path / "a.jsonl")).pairs] == [user("p")] * 3
