"""Data sets by name and from folders laid out like the hub's; nothing here needs a network."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path

import pytest
from hub_samples import HELPSTEER, HELPSTEER_PREFERENCE, HH, REWARD_BENCH, SAMPLES, UNIFIED, clone

from llm.data.hub import Address, address_of
from llm.data.pairs import DataError, read_pairs, write_pairs
from llm.data.suites import load_suites
from llm.training.config import RewardConfig
from llm.training.run import load_training_pairs
from robust_rlhf import main

datasets = pytest.importorskip("datasets")


@pytest.mark.parametrize("name", SAMPLES)
def test_every_data_set_from_a_folder_in_the_hubs_layout(tmp_path, name):
    sample = SAMPLES[name]
    address = f"{clone(sample, tmp_path / 'set')}{sample.address}"
    read = read_pairs(address)
    stem = f"set{sample.address}".replace("/", "-").replace(":", "-")
    assert (read.layout, read.path) == (sample.layout, address)
    assert read.pairs == sample.expected(stem, in_folder=True)
    assert read.dropped == sample.dropped


@pytest.mark.parametrize("sample", [HELPSTEER, REWARD_BENCH], ids=["json", "parquet"])
def test_the_only_split_need_not_be_named(tmp_path, sample):
    folder = clone(sample, tmp_path / "set")
    assert [p.chosen for p in read_pairs(folder).pairs] == [p.chosen for p in sample.pairs]


def test_a_configuration_is_found_where_a_folder_has_its_name_and_where_none_has(tmp_path):
    folder = clone(UNIFIED, tmp_path / "set")  # all/ is a folder and a configuration
    card = folder / "README.md"
    card.write_text(card.read_text().replace("config_name: all", "config_name: everything"))
    by_folder, by_name = (read_pairs(f"{folder}/{part}:train") for part in ("all", "everything"))
    assert by_folder.pairs == by_name.pairs == UNIFIED.pairs


def test_a_folder_inside_a_data_set_is_told_from_the_rest(tmp_path):
    folder = clone(HELPSTEER, tmp_path / "set")  # as on the hub: both in one data set
    clone(HELPSTEER_PREFERENCE, folder)
    assert read_pairs(f"{folder}:train").pairs == HELPSTEER.expected("set-train")
    preferences = read_pairs(f"{folder}/preference:train")
    assert preferences.pairs == HELPSTEER_PREFERENCE.expected("set-preference-train")


LINES = [json.dumps({"prompt": f"p{i}", "chosen": "a", "rejected": "b"}) + "\n" for i in range(7)]


@pytest.fixture
def seven(tmp_path):
    """Seven plain records in three files."""
    folder = tmp_path / "seven"
    folder.mkdir()
    for part, lines in enumerate((LINES[:3], LINES[3:5], LINES[5:])):
        (folder / f"train-0000{part}-of-00003.jsonl").write_text("".join(lines))
    return folder


@pytest.mark.parametrize(
    ("tail", "rows"),
    [("", slice(None)), ("[:]", slice(None)), ("[2:6]", slice(2, 6)), ("[4:]", slice(4, None)), ("[:3]", slice(3))],
)
def test_rows_can_be_sliced(seven, tail, rows):
    read = read_pairs(f"{seven}:train{tail}")
    assert [p.prompt[0]["content"] for p in read.pairs] == [f"p{i}" for i in range(7)[rows]]


def test_only_the_wanted_rows_are_read(seven):
    (seven / "train-00002-of-00003.jsonl").write_text("{oops}\n")
    assert len(read_pairs(f"{seven}:train[1:4]").pairs) == 3
    assert len(read_pairs(f"{seven}:train", max_records=4).pairs) == 4
    with pytest.raises(DataError, match=rf"{seven}:train, row 6: "):
        read_pairs(f"{seven}:train")


def test_the_fingerprint_is_that_of_the_pairs_wherever_they_lie(seven, tmp_path):
    here = read_pairs(f"{seven}:train")
    write_pairs(here.pairs, tmp_path / "pairs.jsonl")
    assert here.sha256 == hashlib.sha256((tmp_path / "pairs.jsonl").read_bytes()).hexdigest()

    moved = tmp_path / "elsewhere" / "seven"
    moved.mkdir(parents=True)
    (moved / "train.jsonl").write_text("".join(LINES))  # one file now
    assert read_pairs(f"{moved}:train").sha256 == here.sha256
    assert read_pairs(f"{moved}:train[:6]").sha256 != here.sha256
    (moved / "train.jsonl").write_text("".join(LINES).replace('"a"', '"A"', 1))
    assert read_pairs(f"{moved}:train").sha256 != here.sha256


def test_training_and_suites_take_addresses(seven):
    address = f"{seven}:train[:4]"
    train, held_out, files, *_ = load_training_pairs(RewardConfig(train_file=address))
    assert (len(train), held_out) == (4, [])
    assert files["train"]["file"] == "seven:train[:4]"  # not where it lies
    suites, records = load_suites({"x": Path(f"{seven}:train")})
    assert (len(suites["x"]), records["x"]["sha256"]) == (7, read_pairs(f"{seven}:train").sha256)


def test_the_command_shows_a_data_set(tmp_path, capsys):
    assert main(["data", "show", f"{clone(UNIFIED, tmp_path / 'set')}/all:train"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "2 pairs, unified-feedback layout" in shown
    assert "dropped: 1 tie, 1 no rating" in shown


HUB = "hf://datasets/llm-blender/Unified-Feedback"
ADDRESSES = {
    HUB: {},
    f"{HUB}:val": {"split": "val"},
    f"{HUB}/all:train[:1000]": {"part": "all", "split": "train", "stop": 1000},
    f"{HUB}@v1.0/all:train[5:]": {"part": "all", "split": "train", "start": 5, "revision": "v1.0"},
    f"{HUB}@~parquet/hh-rlhf:train": {"part": "hh-rlhf", "split": "train", "revision": "refs/convert/parquet"},
    f"{HUB}@refs%2Fpr%2F3:train": {"split": "train", "revision": "refs/pr/3"},
}


@pytest.mark.parametrize("text", ADDRESSES)
def test_addresses_are_read_as_they_are_written_and_as_paths(text):
    expected = Address(text, "llm-blender/Unified-Feedback", **ADDRESSES[text])
    assert address_of(text) == expected
    assert address_of(Path(text)) == Address(str(Path(text)), expected.place, **ADDRESSES[text])


@pytest.mark.parametrize("name", ["train.jsonl", "no-folder:train", "a/b.jsonl:train"])
def test_other_names_are_files(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert address_of(name) is None
    with pytest.raises(DataError, match="does not exist"):
        read_pairs(name)


def test_a_file_with_a_colon_in_its_name_is_a_file(seven):
    (seven.parent / "seven:train").write_text(LINES[0])
    assert address_of(seven.parent / "seven:train") is None


@pytest.mark.parametrize(
    ("tail", "message"),
    [
        ("/all:test", "there is no split 'test'; the splits are train: write .*/my:set/all:train, for instance"),
        ("/all:tes[1:2]", "there is no split 'tes'; the splits are train: write .*/my:set/all:train, for instance"),
        ("/none:train", "'none' is neither a folder nor a configuration of .*; the configurations are all"),
        ("/all:train[5:5]", r"asks for no row: in \[START:STOP\], STOP must be larger than START"),
    ],
)
def test_a_wrong_part_of_an_address_lists_the_right_ones(tmp_path, tail, message):
    folder = clone(UNIFIED, tmp_path / "my:set")
    with pytest.raises(DataError, match=message) as caught:
        read_pairs(f"{folder}{tail}")
    assert f"{folder}{tail}" in str(caught.value)


def test_several_splits_or_configurations_must_be_told_apart(tmp_path):
    folder = clone(HH, tmp_path / "set")
    shutil.copy(folder / HH.file, folder / "harmless-base" / "train.jsonl.gz")
    with pytest.raises(DataError, match="which split is meant is not said; the splits are train, test: write"):
        read_pairs(folder / "harmless-base")
    card = clone(UNIFIED, tmp_path / "two") / "README.md"
    second = "- config_name: val\n  data_files:\n  - split: val\n    path: all/*\n---\n"
    card.write_text(card.read_text().replace("---\n# A", second + "# A"))
    with pytest.raises(DataError, match=r"two:train cannot be opened: .*'all', 'val'"):
        read_pairs(f"{card.parent}:train")


def test_a_readme_next_to_the_folder_does_not_make_it_a_part(seven):
    (seven.parent / "README.md").write_text("# My project\n")
    assert address_of(f"{seven}:train") == Address(f"{seven}:train", str(seven), split="train")
    (seven.parent / "README.md").write_text("---\nlicense: mit\n---\n")
    assert address_of(f"{seven}:train") == Address(f"{seven}:train", str(seven.parent), "seven", "train")
    (seven / "README.md").write_text("---\nlicense: mit\n---\n")  # a data set of its own
    assert address_of(f"{seven}:train") == Address(f"{seven}:train", str(seven), split="train")


@pytest.mark.parametrize("text", ["hf://datasets/only-a-name", "hf://models/a/b:train", f"{HUB}:train[1]"])
def test_a_misspelt_address_shows_the_spelling(text):
    with pytest.raises(DataError, match=r"is no address of a data set; write hf://datasets/OWNER/NAME\[@REVISION\]"):
        read_pairs(text)


def test_without_the_package_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"which is not installed: pip install \"robust-rlhf\[data\]\""):
        read_pairs(f"{HUB}/all:train")


def test_without_a_network_the_remedy_is_named():
    if not datasets.config.HF_HUB_OFFLINE:
        pytest.skip("HF_HUB_OFFLINE is off: this test would reach for the hub")
    with pytest.raises(DataError, match=r"cannot be opened: .*hf download --repo-type dataset llm-blender/Unified-F"):
        read_pairs(f"{HUB}/all:train")
