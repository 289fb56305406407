"""How a server ends, and begins: what is under way is finished, nobody is waited for for ever."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import time
from pathlib import Path

import pytest
from forked import Forked
from scored_models import save_judge
from served_models import Waits, request_of, running, until

from llm import score
from llm.serving.connection import ServerLimits
from robust_rlhf import main


def test_what_is_under_way_is_finished_and_nothing_new_is_begun():
    reader, content = Waits(), {"prompt": "a", "response": "bc"}
    with running(reader) as server:
        idle = server.raw()
        kept = http.client.HTTPConnection(*server.address, timeout=20)
        kept.request("GET", "/health")
        assert kept.getresponse().read()
        computing, half = server.raw(request_of(content)), server.raw(request_of(content)[:-4])
        assert reader.came.wait(20)
        until(lambda: server.clients == 4)
        server.stop()
        assert idle.recv(10) == b""
        until(lambda: server.clients == 2)
        with pytest.raises(OSError, match="refused"):
            server.raw()
        half.sendall(request_of(content)[-4:])
        reader.may.set()
        for client in (computing, half):
            said = client.makefile("rb").read().lower()
            assert b" 200 " in said
            assert b"connection: close" in said
            client.close()
        idle.close()
        kept.close()
        server.thread.join(10)
        assert not server.thread.is_alive()


@pytest.mark.parametrize("how", ["twice", "grace"])
def test_nobody_is_waited_for_for_ever(how, caplog):
    reader = Waits()
    with running(reader, ServerLimits(grace_seconds=0.2 if how == "grace" else 60)) as server:
        client = server.raw(request_of({"prompt": "a", "response": "bc"}))
        assert reader.came.wait(20)
        server.stop()
        if how == "twice":
            server.stop()
        server.thread.join(10)
        assert not server.thread.is_alive()
        assert client.recv(10) == b""
        client.close()
        reader.may.set()
    assert "1 requests were not answered in time" in caplog.text


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.exhaustive)])
def test_the_command_ends_well_in_the_middle_of_a_request(number, once):
    model = str(once("plain-judge", lambda folder: save_judge("roberta", folder)))
    server = Forked(main, ["serve", model, "--port", "0"])
    try:
        until(lambda: "answers on" in server.said())
        host, port = re.search(r"http://([0-9.]+):(\d+) ", server.said()).groups()
        assert (host, listening(int(port))) == ("127.0.0.1", {"0100007F"})
        record = {"prompt": "Hi", "responses": ["red", "blue dog"]}
        expected = [row["reward"] for row in score(model, [record]).rows]
        with socket.create_connection((host, int(port)), timeout=30) as client:
            client.sendall(request_of(record)[:-5])
            time.sleep(0.3)
            server.send_signal(number)
            until(lambda: not listening(int(port)))
            client.sendall(request_of(record)[-5:])
            said = client.makefile("rb").read()
        assert json.loads(said.partition(b"\r\n\r\n")[2])["rewards"] == pytest.approx(expected, abs=1e-5)
        out, _ = server.communicate(60)
        assert server.returncode == 0
        assert "Traceback" not in out
    finally:
        server.kill()


def listening(port):
    """Addresses, in hexadecimal, on which someone listens at this port."""
    rows = [row.split() for name in ("tcp", "tcp6") for row in Path("/proc/net", name).read_text().splitlines()[1:]]
    return {row[1].partition(":")[0] for row in rows if row[3] == "0A" and int(row[1].partition(":")[2], 16) == port}


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (["--port", "70000"], "--port is a number from 0 to 65535"),
        (["--port", "TAKEN"], "port .* cannot be opened .*: choose others with --host and --port"),
        (["--host", "203.0.113.9", "--port", "0"], "203.0.113.9, port 0 cannot be opened"),
        (["--max-items", "0"], "max_items must be at least 1"),
        (["--batch-tokens", "0"], "batch_tokens must be at least 1"),
    ],
)
def test_wrong_settings_are_a_sentence(told, said, once, capsys):
    model = str(once("plain-judge", lambda folder: save_judge("roberta", folder)))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", model, *(port if word == "TAKEN" else word for word in told)]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.search(said, last), last
