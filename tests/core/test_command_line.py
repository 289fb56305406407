"""The parser of all commands, and what ``env`` finds out without waiting."""

from __future__ import annotations

import importlib
import json
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from dro_core.command_line import surroundings
from dro_core.command_line.parser import FOUND, REFUSED, Parser, UsageError, refused


@pytest.fixture
def parser():
    told = Parser("robust-rlhf some")
    told.add_argument("--max-length", type=int)
    told.add_argument("--set", nargs="+", metavar="NAME=VALUE")
    told.add_output("where it goes", metavar="DIR")
    actions = told.add_subparsers(dest="action")
    inner = actions.add_parser("inner")
    inner.add_argument("--kind", choices=("plain", "robust"))
    inner.add_argument("file", nargs="*")
    return told


@pytest.mark.parametrize("flag", ["--max-length", "--max_length"])
@pytest.mark.parametrize("joined", [False, True])
def test_dashes_and_underscores_are_one_flag(parser, flag, joined):
    words = [f"{flag}=8"] if joined else [flag, "8"]
    assert parser.parse_args(words).max_length == 8
    assert "max_length" not in parser.format_help()


def test_values_are_left_as_they_are(parser):
    assert parser.parse_args(["--set", "a_b=c_d", "-o", "my_runs"]).set == ["a_b=c_d"]
    assert parser.parse_args(["--output=my_runs"]).output == "my_runs"
    assert parser.parse_args(["inner", "--", "--max_length"]).file == ["--max_length"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--max-lenght", "8"], "there is no flag --max-lenght, did you mean --max-length?"),
        (["--max_lenght=8"], "there is no flag --max_lenght, did you mean --max-length?"),
        (["inner", "--knid", "plain"], "no flag --knid, did you mean --kind? `robust-rlhf some inner --help`"),
        (["inner", "--max-length", "8"], "no flag --max-length;"),  # it is its command's, and stands before it
        (["inner", "--kind", "robsut"], "'robsut' is none of plain, robust, did you mean 'robust'?"),
        (["iner"], "did you mean 'inner'?"),
        (["--max-length", "long"], "--max-length: takes a whole number, got 'long'"),
        (["--max", "8"], "no flag --max"),  # no abbreviations: a later flag could change what they mean
        (["--max-lenght\u202e\x1b[2J"], r"--max-lenght\u202e\u001b[2J"),
    ],
)
def test_what_is_mistyped_is_answered_with_what_was_meant(parser, words, said, capsys):
    with pytest.raises(UsageError) as error:
        parser.parse_args(words)
    assert refused(error.value) == REFUSED
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("robust-rlhf: ")
    assert said in line


def test_lines_end_alike(capsys):
    for message in ("a full stop.", "none", "three ..."):
        refused(message)
    assert capsys.readouterr().err.splitlines() == [
        f"robust-rlhf: {text}" for text in ("a full stop", "none", "three ...")
    ]


# env


class Answer(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_response(int(self.path.rpartition("/")[2] or 200))
        self.end_headers()

    def log_message(self, *_):
        pass


@contextmanager
def answering():
    server = HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_hub_that_answers_answers():
    with answering() as place:
        assert surroundings.hub({"HF_ENDPOINT": place}) == f"{place}: answers"
        assert "status 401" in surroundings.hub({"HF_ENDPOINT": f"{place}/401"})
    assert "does not answer" in surroundings.hub({"HF_ENDPOINT": place})
    assert "does not answer" in surroundings.hub({"HF_ENDPOINT": "no address"})


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_a_hub_is_not_asked_offline(name, monkeypatch):
    monkeypatch.setattr(surroundings, "_answer", lambda place: pytest.fail("it was asked"))
    assert f"not asked, {name} is set" in surroundings.hub({name: "1"})


def test_a_silent_hub_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(surroundings, "_HUB_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begun = time.monotonic()
        said = surroundings.hub({"HF_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}"})
        assert time.monotonic() - begun < 10
    assert "answer" in said
    assert "answers" not in said


@pytest.mark.parametrize(
    ("code", "found", "wrong"),
    [
        ("print('[\"a card\"]')", ["a card"], ""),
        ("raise OSError('libcudart.so: cannot open')", [], "libcudart.so: cannot open"),
        ("import time; time.sleep(60)", [], "not loaded within"),
    ],
)
def test_torch_may_fail_or_hang(code, found, wrong, monkeypatch):
    monkeypatch.setattr(surroundings, "_DEVICES", code)
    monkeypatch.setattr(surroundings, "_TORCH_SECONDS", 2.0 if wrong.startswith("not") else 60.0)
    devices, fault = surroundings._devices()
    assert devices == found
    assert (wrong in fault) if wrong else not fault


def test_env_tells_what_is_wrong(monkeypatch, capsys):
    monkeypatch.setattr(surroundings, "_devices", lambda: ([], ""))
    monkeypatch.setattr(surroundings, "hub", lambda environment: "not asked")
    assert surroundings.main(["--json"]) in (0, FOUND)
    told = json.loads(capsys.readouterr().out)
    assert told["packages"]["numpy"] == importlib.import_module("numpy").__version__
    monkeypatch.setattr(surroundings, "taken", lambda: "the name is taken")
    assert surroundings.main([]) == FOUND
    assert capsys.readouterr().out.splitlines()[-1] == "wrong: the name is taken"


def test_another_package_of_our_name_is_told(tmp_path):
    """By env, which goes on, and by a command, which does not; never with a traceback."""
    (tmp_path / "llm").mkdir()
    (tmp_path / "llm" / "__init__.py").write_text("")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import robust_rlhf\n"
        "from dro_core.command_line import surroundings\n"
        "surroundings._devices, surroundings.hub = lambda: ([], ''), lambda _: 'not asked'\n"
        "print(robust_rlhf.main(['env']), robust_rlhf.main(['doctor', 'x']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == f"{FOUND} {REFUSED}", done.stderr
    assert done.stdout.count("is taken by another package") == 2  # as what it is, and as what is wrong
    assert done.stderr.startswith("robust-rlhf: the import name `llm` is taken by another package")
