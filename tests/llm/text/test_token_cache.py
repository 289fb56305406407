"""Tokens kept on disk: what is read back is what would be read anew, and nothing else is ever read back."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from forked import Forked, finished
from safetensors.numpy import load_file
from tokenizer_shapes import TEMPLATES, TOKENIZERS, bytewise, shaped, wordpiece
from whole_runs import files_of, margins, train_command

from llm.data.corpus.corpus import generate
from llm.data.pairs import DataError, Pair
from llm.run.finished import SEAL
from llm.text.encoding import PairEncoder, encode_pairs
from llm.text.token_cache import StoredTokens, TokenCache, fingerprint
from robust_rlhf import main

ASKED = ({"role": "user", "content": "Which colour has the dog number 2?"},)
WITH_SYSTEM = ({"role": "system", "content": "Be brief."}, *ASKED)
PAIRS = [
    Pair("plain", ASKED, "It is red.", "It is blue, they say."),
    Pair("long", ASKED, "It is red. " * 9, "Nobody knows. " * 40),
    Pair("system", WITH_SYSTEM, "Red.", "Blue."),
    Pair("dead", ASKED, "It is red.", "It is red."),
    Pair("special", ASKED, "It ends </s> here.", "It ends <|im_end|> there."),
    Pair("thoughts", ASKED, "<think>\nwhy\n</think>\n\nRed.", "Blue é 🙂."),
    *generate(12, seed=1),
]
READ = {"max_length": 48}


def watched(pairs, tokenizer, **told):
    seen = []
    return encode_pairs(pairs, tokenizer, watch=lambda pair, what: seen.append((pair, what)), **told), seen


def check_same(one, other):
    (fresh, first), (stored, again) = one, other
    assert first == again
    assert [tuple(map(type, seen)) for _, seen in first] == [tuple(map(type, seen)) for _, seen in again]
    assert list(stored) == list(fresh)
    assert (stored.pairs, stored.kept, stored.left_out) == (fresh.pairs, fresh.kept, fresh.left_out)
    assert stored.truncation == fresh.truncation


@pytest.fixture
def store(tmp_path):
    return TokenCache(tmp_path / "tokens", least_pairs=1)


ALWAYS = {("bytewise", "chatml"), ("marked, prepended", "llama2"), ("bytewise, both ends", "forgetful")}
SHAPES = [
    pytest.param(kind, template, marks=() if (kind, template) in ALWAYS else pytest.mark.exhaustive)
    for kind in TOKENIZERS
    if kind != "slow"
    for template in TEMPLATES
]


@pytest.mark.parametrize("too_long", ["cut", "drop"])
@pytest.mark.parametrize(("kind", "template"), SHAPES)
def test_what_is_stored_is_what_is_read(store, kind, template, too_long):
    tokenizer, told = shaped(kind, template), {"max_length": 90, "too_long": too_long}
    fresh = watched(PAIRS, tokenizer, **told)
    first = watched(PAIRS, tokenizer, cache=store, **told)
    assert len(list(store.folder.iterdir())) == 1
    check_same(fresh, first)
    check_same(fresh, watched(PAIRS, shaped(kind, template), cache=store, **told))


def test_a_hit_reads_no_text(store, monkeypatch):
    fresh = watched(PAIRS, wordpiece(), cache=store, **READ)
    monkeypatch.setattr(PairEncoder, "__init__", lambda *_: pytest.fail("the tokenizer was asked"))
    check_same(fresh, watched(PAIRS, wordpiece(), cache=store, **READ))


def file_of(store):
    (file,) = store.folder.iterdir()
    return file


@pytest.mark.parametrize("place", [0, 40, 64, 66, 100, 0.3, 0.5, 0.99, -1])
def test_a_changed_byte_is_noticed(store, place, caplog):
    fresh = watched(PAIRS, wordpiece(), **READ)  # in memory: nothing below is mapped while it changes
    encode_pairs(PAIRS, wordpiece(), cache=store, **READ)
    raw = bytearray(file_of(store).read_bytes())
    raw[int(place * len(raw)) if isinstance(place, float) else place] ^= 1
    file_of(store).write_bytes(raw)
    check_same(fresh, watched(PAIRS, wordpiece(), cache=store, **READ))
    assert "was cut off or altered: its pairs are tokenised again" in caplog.text
    assert len(StoredTokens(file_of(store))) == len(PAIRS)  # whole again


@pytest.mark.parametrize("length", [0, 10, 65, 200, -4])
def test_a_file_that_was_cut_off_is_noticed(store, length, caplog):
    fresh = watched(PAIRS, wordpiece(), **READ)  # in memory: nothing below is mapped while it changes
    encode_pairs(PAIRS, wordpiece(), cache=store, **READ)
    raw = file_of(store).read_bytes()
    file_of(store).write_bytes(raw[:length])
    check_same(fresh, watched(PAIRS, wordpiece(), cache=store, **READ))
    assert "tokenised again" in caplog.text


def other_rules():
    tokenizer = bytewise()
    tokenizer.add_tokens(["red"])
    return tokenizer


def with_template():
    return shaped("bytewise", "chatml")


def bare():
    return bytewise(None)


def other_end():
    tokenizer = bytewise()
    tokenizer.eos_token = "<|end|>"
    return tokenizer


def test_everything_that_tokens_depend_on_names_another_file_and_nothing_else_does():
    told = {"max_length": 48, "too_long": "cut"}
    known = fingerprint(PAIRS, bytewise(), **told)
    first = PAIRS[0]
    texts = [
        replace(first, chosen="It is red"), replace(first, rejected="It is blue, they say. "),
        replace(first, prompt=({"role": "system", "content": ASKED[0]["content"]},)),
        replace(first, prompt=({"role": "user", "content": "Which"},)), replace(first, prompt=WITH_SYSTEM),
        replace(first, chosen=first.rejected, rejected=first.chosen),
        replace(first, prompt=({**ASKED[0], "tool_calls": [{"function": {"name": "f"}}]},)),
    ]  # fmt: skip
    changed = [fingerprint([text, *PAIRS[1:]], bytewise(), **told) for text in texts]
    changed += [fingerprint(pairs, bytewise(), **told) for pairs in (PAIRS[1:], PAIRS[::-1], [*PAIRS, PAIRS[0]])]
    changed += [fingerprint(PAIRS, make(), **told) for make in (other_rules, with_template, bare, other_end, wordpiece)]
    changed += [fingerprint(PAIRS, bytewise(), **told | more) for more in ({"max_length": 49}, {"too_long": "drop"})]
    assert len({known, *changed}) == 1 + len(changed)
    named = [replace(pair, id=f"n{n}", source="s", category="c", margin=1.0) for n, pair in enumerate(PAIRS)]
    used = bytewise()
    used(["a b", "c"], padding=True, truncation=True, max_length=3)  # it remembers how it was called
    used.model_max_length = 7
    assert fingerprint(named, used, **told) == known == fingerprint(PAIRS, bytewise(), **told)


def test_another_version_of_the_code_reads_anew(monkeypatch):
    from llm.text import token_cache

    known = fingerprint(PAIRS, bytewise(), max_length=48, too_long="cut")
    monkeypatch.setattr(token_cache, "_code", lambda: "other")
    assert fingerprint(PAIRS, bytewise(), max_length=48, too_long="cut") != known


def test_little_and_what_nobody_can_name_is_not_stored(tmp_path):
    assert len(encode_pairs(PAIRS, wordpiece(), cache=TokenCache(tmp_path / "tokens"), **READ)) > 10
    slow = shaped("slow", "chatml")
    assert len(encode_pairs(PAIRS[:3], slow, cache=TokenCache(tmp_path / "tokens", least_pairs=1), max_length=200)) == 3
    assert not (tmp_path / "tokens").exists()


def test_what_is_refused_is_refused_every_time_and_not_stored(store):
    for _ in range(2):
        with pytest.raises(DataError, match="raise it, or say too_long=cut"):
            encode_pairs(PAIRS, wordpiece(), max_length=48, too_long="refuse", cache=store)
    assert not list(store.folder.glob("*.tokens"))
    dead = [PAIRS[3]] * 2
    for _ in range(2):
        with pytest.raises(DataError, match="None of 2 pairs can be read: of pair 'dead'"):
            encode_pairs(dead, wordpiece(), cache=store, **READ)


def test_a_folder_that_cannot_be_written_costs_the_time_and_not_the_run(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    fresh = watched(PAIRS, wordpiece(), **READ)
    check_same(fresh, watched(PAIRS, wordpiece(), cache=TokenCache(tmp_path / "file" / "below", least_pairs=1), **READ))
    assert "tokens are not kept in" in caplog.text


def test_what_was_not_used_for_longest_goes_first(tmp_path):
    size = 0
    for most in (2**30, 0):
        store = TokenCache(tmp_path / str(most), most_bytes=most or int(2.5 * size), least_pairs=1)
        files = []
        for length in (40, 41, 42):
            encode_pairs(PAIRS, wordpiece(), max_length=length, cache=store)
            (new,) = set(store.folder.iterdir()) - set(files)
            os.utime(new, (length, length))
            files.append(new)
            if length == 41:
                encode_pairs(PAIRS, wordpiece(), max_length=40, cache=store)  # used again
        size = max(file.stat().st_size for file in store.folder.iterdir())
        assert [file.exists() for file in files] == ([True] * 3 if most else [True, False, True])


def asks(folder, marks):
    """Tokenise, slowly, leaving a mark; or read what another process made."""
    read = PairEncoder.read

    def slowly(self, pairs):
        (marks / str(os.getpid())).touch()
        time.sleep(0.5)
        return read(self, pairs)

    PairEncoder.read = slowly  # in a process of its own
    found = encode_pairs(PAIRS, wordpiece(), cache=TokenCache(folder, least_pairs=1), **READ)
    print(len(found), sum(sum(item["chosen"]) + sum(item["rejected"]) for item in found))  # noqa: T201


def test_processes_that_ask_at_once_wait_for_the_first(tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir()
    said = finished([Forked(asks, tmp_path / "tokens", marks) for _ in range(3)])
    fresh = encode_pairs(PAIRS, wordpiece(), **READ)
    total = sum(sum(item["chosen"]) + sum(item["rejected"]) for item in fresh)
    assert {text.splitlines()[-1] for text in said} == {f"{len(fresh)} {total}"}
    assert len(list(marks.iterdir())) == 1
    assert [file.suffix for file in (tmp_path / "tokens").iterdir()] == [".tokens"]


def test_log_probabilities_of_a_reference_stand_beside_stored_tokens(store):
    found = [encode_pairs(PAIRS, wordpiece(), cache=store, **READ) for _ in range(2)]
    logps = np.arange(2.0 * len(found[0])).reshape(-1, 2)
    for encoded in found:
        encoded.put_reference(logps)
    assert [item.get("reference") for item in found[1]] == [tuple(row) for row in logps.tolist()]
    assert list(found[0]) == list(found[1])
    with pytest.raises(ValueError, match="have the shape"):
        found[0].put_reference(logps[1:])


@pytest.mark.parametrize("kind", ["reward", *(pytest.param(k, marks=pytest.mark.exhaustive) for k in ("sft", "dpo"))])
def test_a_run_on_stored_tokens_is_the_run_on_fresh_ones(once, tmp_path, monkeypatch, kind):
    files, reads = files_of(once), []
    monkeypatch.setenv("ROBUST_RLHF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("llm.training.run.TokenCache", partial(TokenCache, least_pairs=1))
    read = PairEncoder.read
    monkeypatch.setattr(PairEncoder, "read", lambda self, pairs: reads.append(len(pairs)) or read(self, pairs))
    kept = {"fresh": "false", "made": "true", "found": "true"}
    for name, cache in kept.items():
        argv = train_command(kind, files / "train.jsonl", tmp_path / name, max_steps=3, ambiguity="tv:0.3",
                             suites=files / "suite.jsonl", cache_tokens=cache)  # fmt: skip
        assert main(argv) == 0
        assert reads.count(64) == {"fresh": 1, "made": 2, "found": 2}[name]
        assert (tmp_path / "cache").exists() == (name != "fresh")
    weights = [load_file(tmp_path / name / "model" / "model.safetensors") for name in kept]
    assert all((weights[0][name] == other[name]).all() for other in weights[1:] for name in other)
    assert margins(tmp_path / "fresh") == margins(tmp_path / "found")
    argv = train_command(kind, files / "train.jsonl", tmp_path / "found", "--resume", "true", max_steps=3,
                         ambiguity="tv:0.3", suites=files / "suite.jsonl", cache_tokens="false")  # fmt: skip
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "found" / SEAL).unlink()  # a finished run has nothing to read
    assert main(argv) == 0
