"""Audits against numbers that are known by construction, and against counts of real pairs made without this project."""

from __future__ import annotations

import json
import tracemalloc
from collections import Counter
from dataclasses import fields, replace

import pytest
from planted import FAULTS, LENGTH, expected, planted, tokenizer, user
from tokenizer_shapes import bytewise, shaped, wordpiece

from llm import audit_pairs
from llm.audit.audit import Audit
from llm.audit.auditor import Auditor, audit_of
from llm.audit.limits import AuditLimits
from llm.audit.verdicts import check_learnable, concerns
from llm.data.overview import overview
from llm.data.pairs import DataError, Pair, PairSet, read_pairs, stream_pairs, write_pairs
from llm.models.architectures import position_limit
from llm.models.fetching import ModelError
from llm.models.loading import tiny_reward_model
from llm.models.tokenizers import limit_of
from llm.text.encoding import encode_pairs
from robust_rlhf import main

KEYS = {  # of the JSON, and no others
    "pairs", "prompt_whole_both", "prompt_cut", "prompt_absent", "same_window", "answers_cut", "token_identical",
    "unknown_token_share", "special_token_text", "double_framing", "system_lost", "thoughts_lost", "tool_calls_lost",
    "ignored_columns", "duplicates", "contradictions", "negative_margins", "longer_wins", "sources", "prompts",
    "overlap",
}  # fmt: skip


def audited(pairs, tokenizer, max_length=LENGTH, **more):
    return audit_of(PairSet(list(pairs), "a", "", ""), tokenizer, max_length=max_length, **more)


@pytest.fixture(scope="module")
def found():
    return audited(planted(), tokenizer()).as_json()


@pytest.mark.parametrize("name", sorted(expected()))
def test_every_planted_fault_is_counted_as_often_as_it_was_planted(found, name):
    assert found[name]["count"] == expected()[name]
    if name in FAULTS and name != "special_token_text":
        assert found[name]["examples"] == [f"{name}-{i}" for i in range(min(3, FAULTS[name][0]))]


def test_the_rest_of_the_planted_file(found):
    read = expected()["pairs"] - FAULTS["thoughts_lost"][0]  # a pair that would lose the thoughts of an answer is not
    assert found.keys() == KEYS
    assert found["same_window"]["count"] == read
    assert found["prompt_whole_both"]["count"] == read - FAULTS["prompt_cut"][0]
    assert found["prompt_absent"]["count"] == 0
    assert found["token_identical"]["by_source"] == {"token_identical": {"count": 5, "pairs": 5}}
    assert found["token_identical"]["by_category"] == {
        "token_identical/0": {"count": 3, "pairs": 3},
        "token_identical/1": {"count": 2, "pairs": 2},
    }
    longer = sum(1 if len(p.chosen) > len(p.rejected) else len(p.chosen) == len(p.rejected) and 0.5 for p in planted())
    assert found["longer_wins"] == pytest.approx(longer / len(planted()))
    assert found["sources"]["pairs"] == dict(Counter(p.source for p in planted()))


def test_prompts_that_are_not_read_at_all_are_told_from_those_that_are_cut():
    """Of six tokens four are frame, and prompt and answer have one each; of five only the answer has one."""
    short = [Pair(f"s{i}", user("which colour has it"), "red", "blue") for i in range(3)]
    none = [Pair(f"n{i}", user("which colour has it"), "red red", "blue blue") for i in range(4)]
    found = audited([*short, *none], tokenizer(), 6)
    assert (found.prompt_cut.count, found.prompt_absent.count) == (7, 0)
    found = audited([*short, *none], tokenizer(), 5)
    assert (found.prompt_cut.count, found.prompt_absent.count) == (7, 7)
    assert found.prompt_absent.examples == ["s0", "s1", "s2"]


@pytest.mark.parametrize("unknown", [0, 1, 7])
def test_unknown_tokens_are_a_share_of_those_that_are_read(unknown):
    pair = Pair("a", user("which dog"), "red " + "😀 " * unknown, "blue")
    found = audited([pair], tokenizer())
    tokens = 2 * len(["[CLS]", "user", "which", "dog", "assistant", "[SEP]"]) + len(["red", "blue"]) + unknown
    assert found.unknown_token_share == pytest.approx(unknown / tokens)


def test_a_tokenizer_that_knows_every_byte_has_no_unknown_tokens():
    read = bytewise()
    read.unk_token = read.eos_token  # as GPT-2 has it
    assert audited([Pair("a", user("?"), "😀", "é")], read).unknown_token_share == 0


@pytest.mark.parametrize(("kind", "template"), [("bytewise", "chatml"), ("marked, always", "llama2"), ("slow", "none")])
def test_the_length_at_which_prompts_are_whole_is_the_least(kind, template):
    read = shaped(kind, template)
    pairs = [Pair(str(i), user("dog " * (i % 23 + 1)), "red " * (i % 7 + 1), f"blue {i}") for i in range(60)]
    least = audited(pairs, read, 48).length
    whole = [audited(pairs, read, length).prompt_whole_both.count / 60 for length in (least - 1, least)]
    assert whole[0] < 0.95 <= whole[1]


@pytest.mark.parametrize(("cut_at", "reads", "said", "never"), [
    (16, None, "raise max_length (at 40,", "reads"),
    (16, 64, "raise max_length (at 40,", "reads"),
    (16, 32, "this model reads 32 tokens: raise max_length to 32, or leave them out", "raise max_length ("),
    (32, 32, "this model reads 32 tokens: leave them out", "raise max_length"),
])  # fmt: skip
def test_nobody_is_sent_beyond_what_the_model_reads(cut_at, reads, said, never):
    pairs = [Pair(str(i), user("dog " * 60), "red", f"blue {i}") for i in range(20)]
    found = replace(audited(pairs, tokenizer(), cut_at), length=40)
    bare = replace(found, length=None)  # or below max_length: nothing is known of a length that would do
    assert any("raise max_length" in str(concern) for concern in concerns(bare, AuditLimits(), reads=cut_at + 1))
    check_learnable(bare, AuditLimits(most_unasked=1, most_identical=1), reads=reads)
    told = [str(concern) for concern in concerns(found, AuditLimits(), reads=reads) if "cut" in concern.subject]
    for text in told:
        assert said in text
        assert never not in text
    assert told


def test_an_audit_refuses_what_the_model_refuses(tmp_path):
    """The limit is the same of a model in memory and of its folder, where no weights are read."""
    pairs = planted()
    model, read = tiny_reward_model((p.chosen for p in pairs), max_length=64)
    limit = position_limit(model)
    for part in (model, read):
        part.save_pretrained(tmp_path)
    assert limit_of(str(tmp_path)) == limit
    for given in ((model, read), str(tmp_path)):
        with pytest.raises(ModelError, match=f"max_length is {limit + 1}, but this model reads at most {limit}"):
            audit_pairs(pairs, model=given, max_length=limit + 1)


def test_windows_are_compared_and_not_assumed():
    pairs = planted()

    def shifted(pair, seen):
        auditor.see(pair, seen if seen.item is None else seen._replace(item={**seen.item, "rejected_span": (1, 2)}))

    auditor = Auditor(tokenizer(), max_length=LENGTH)
    encode_pairs(pairs, tokenizer(), max_length=LENGTH, watch=shifted)
    assert auditor.audit(overview(pairs), file="a").same_window.count == 0


def test_what_a_run_encodes_and_what_a_stream_reads_are_audited_alike():
    auditor = Auditor(tokenizer(), max_length=LENGTH)
    encode_pairs(planted(), tokenizer(), max_length=LENGTH, watch=auditor.see)
    assert auditor.audit(overview(planted()), file="a") == audited(planted(), tokenizer())


# Real pairs.


@pytest.mark.slow("real pairs, tokenized twice")
@pytest.mark.parametrize("every", [40, pytest.param(1, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("length", [128, 10, 7])
def test_real_pairs_are_counted_as_plain_transformers_code_counts_them(shared_data, every, length):
    pairs = read_pairs(shared_data / "train.jsonl.gz").pairs[::every]
    pairs += [replace(pair, id=f"{pair.id} again") for pair in pairs[:17]]
    read = wordpiece()
    found, counts = audited(pairs, read, length), Counter[str]()
    frame, ends = len(read("User:")["input_ids"]) - 1, len(read("Assistant:", add_special_tokens=False)["input_ids"])
    known = set()
    for pair in pairs:
        prompt = "\n\n".join([*(f"{m['role'].capitalize()}: {m['content']}" for m in pair.prompt), "Assistant:"])
        first = len(read(prompt)["input_ids"]) - 1
        whole = [read(f"{prompt} {answer}")["input_ids"][first:] for answer in (pair.chosen, pair.rejected)]
        left, said = length - frame - ends - 1, first - frame - ends
        room = min(max(map(len, whole)), 1 + max(left // 2, left - said, 1))
        rows = [row if len(row) <= room else [*row[: room - 1], read.sep_token_id] for row in whole]
        kept = min(first, length - room)
        counts["token_identical"] += rows[0] == rows[1]
        counts["prompt_cut"] += kept < first
        counts["prompt_absent"] += kept < first and kept <= frame + ends
        counts["duplicates"] += (key := (prompt.strip(), pair.chosen.strip(), pair.rejected.strip())) in known
        known.add(key)
    assert found.same_window.count == len(pairs)
    assert counts["duplicates"] >= 17
    for name in ("prompt_cut", "prompt_absent", "duplicates"):
        assert getattr(found, name).count == counts[name], name
    assert found.token_identical.cases.count == counts["token_identical"]


# What is of concern.


def test_a_run_begins_up_to_the_limit_and_not_above():
    dead = [Pair(f"d{i}", user("which colour"), "red", "RED") for i in range(6)]
    alive = [Pair(f"a{i}", user("which colour"), "red", "blue") for i in range(6)]
    check_learnable(audited([*dead, *alive], tokenizer()), AuditLimits())
    most = audited([*dead, *alive[1:]], tokenizer())
    with pytest.raises(DataError, match=r"6 of 11 pairs have two answers with the same tokens.*--most_identical 1"):
        check_learnable(most, AuditLimits())
    check_learnable(most, AuditLimits(most_identical=1))
    unasked = audited([Pair("n", user("which colour has it"), "red red", "blue blue")], tokenizer(), 5)
    with pytest.raises(DataError, match=r"1 of 1 pairs show nothing.*raise max_length \(at 10,.*--most_unasked 1"):
        check_learnable(unasked, AuditLimits())


def test_every_planted_fault_is_of_concern_and_a_sound_file_is_not():
    subjects = {concern.subject for concern in concerns(audited(planted(), tokenizer()), AuditLimits())}
    assert subjects >= {*FAULTS, "duplicates", "contradictions"}
    sound = [pair for pair in planted() if pair.id.startswith("healthy")]
    assert [concern.subject for concern in concerns(audited(sound, tokenizer()), AuditLimits())] == []
    few = concerns(audited(planted(), tokenizer()), AuditLimits(warn_share=1))
    assert not few


@pytest.mark.parametrize("limit", [field.name for field in fields(AuditLimits)])
def test_limits_are_shares(limit):
    with pytest.raises(ValueError, match=f"{limit} is a share"):
        audit_pairs(planted(), model=tokenizer(), limits=AuditLimits(**{limit: 1.5}))


# Large files, the command, Python.


LARGE = pytest.param(20_000, marks=[pytest.mark.exhaustive, pytest.mark.slow("every allocation is traced")])


@pytest.mark.exhaustive(turns=8)
@pytest.mark.parametrize("count", [2_000, LARGE])
def test_a_large_file_is_audited_without_being_held(tmp_path, count):
    """The texts are 3 kB a pair; numbers and hashes are kept, beside the thousand pairs that are read."""
    path, read = tmp_path / "a.jsonl", tokenizer()
    write_pairs(
        (Pair(str(i), user("colour " * 300 + str(i)), "dog " * 200 + str(i), f"{i}") for i in range(count)), path
    )
    audit_of(stream_pairs(path, max_records=100), read, max_length=LENGTH)
    tracemalloc.start()
    found = audit_of(stream_pairs(path), read, max_length=LENGTH)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.pairs.count == found.same_window.count == found.prompt_cut.count == count
    assert peak < 32e6 + 800 * count


def test_the_command_prints_writes_and_spares_data(tmp_path, capsys):
    tokenizer().save_pretrained(tmp_path / "model")
    pairs = [pair for pair in planted() if "tool" not in pair.id]
    write_pairs(pairs, tmp_path / "train.jsonl")
    write_pairs(pairs[:20], tmp_path / "test.jsonl")
    argv = ["data", "audit", str(tmp_path / "train.jsonl"), str(tmp_path / "test.jsonl")]
    argv += ["--model", str(tmp_path / "model"), "--max_length", str(LENGTH)]
    assert main(argv) == 0
    screen = capsys.readouterr().out
    assert "suite test, also in training: 20 (and 0 nearly) pairs" in screen
    assert "by=source: 9 groups" in screen
    assert main([*argv, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    for _ in range(2):  # a new file, and an earlier audit
        assert main([*argv, "--json", str(tmp_path / "audit.json")]) == 0
    assert json.loads((tmp_path / "audit.json").read_text()) == printed
    assert printed["overlap"]["test"]["pairs"]["exact"]["count"] == 20
    before = (tmp_path / "test.jsonl").read_bytes()
    for data in ("test.jsonl", "model/tokenizer_config.json"):
        assert main([*argv[:3], *argv[4:], "--json", str(tmp_path / data)]) == 2
    assert (tmp_path / "test.jsonl").read_bytes() == before
    assert "earlier audit" in capsys.readouterr().err


def test_python_shows_the_same_numbers():
    shown = audit_pairs(planted(), {"own": planted()[:3]}, model=tokenizer(), max_length=LENGTH)
    rows = shown.table.set_index("what the model sees")["pairs"]
    assert rows["pairs"] == expected()["pairs"]
    assert rows["duplicates"] == expected()["duplicates"]
    assert "are labelled both ways" in shown._repr_html_()
    assert isinstance(shown.audit, Audit)
    assert not shown.refusal
