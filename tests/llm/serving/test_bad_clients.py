"""Each kind of client that a server is better off without: told what is wrong, and no other client's problem."""

from __future__ import annotations

import contextlib
import gc
import http.client
import json
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest
from scored_models import Lengths
from served_models import Waits, ask, request_of, running, status_of, until

from llm.serving.connection import ServerLimits

BAD = {
    "no JSON": (b"nope", 400, "not JSON"),
    "deep": (b"[" * 100_000, 400, "not JSON"),
    "digits": (b'{"prompt": ' + b"9" * 5000 + b"}", 400, "not JSON"),
    "bytes": (b'{"prompt": "\xff"}', 400, "byte 13 of the body is not UTF-8"),
    "empty": (b"", 400, "not JSON"),
    "list": ([], 422, "should be a JSON object, found list"),
    "no answer": ({"prompt": "x"}, 422, "no answer to score"),
    "number": ({"prompt": "x", "response": 3}, 422, "the number 3"),
    "surrogate": (b'{"prompt": "x", "response": "\\ud83d"}', 422, "not valid Unicode"),
    "picture": ({"prompt": [{"role": "user", "content": [{"type": "image"}]}], "response": "a"}, 422, "no text"),
    "second item": ({"items": [{"prompt": "x", "response": "a"}, 7]}, 422, "item 1: an object was expected"),
    "items": ({"items": "x"}, 422, "'items' should be a list"),
    "long names": ({"n" * 10_000: 1}, 422, "found nnnn"),
    "many": ({"prompt": "x", "responses": ["a"] * 1025}, 413, "1025 answers are too many"),
    "/get_reward": ({}, 422, "there is no 'query'"),
    "/get_reward prompts": ({"query": ["a"], "prompts": ["a", "b"]}, 422, "1 texts in 'query', but 2"),
    "/get_reward surrogate": (b'{"query": ["\\ud83d"]}', 422, "item 0 of 'query' is not valid Unicode"),
    "/classify": ({"input": [3]}, 422, "item 0 of 'input' should be text"),
    "/classify squashed": ({"input": "a", "use_activation": True}, 422, "not squashed"),
    "/v1/embeddings": ({"input": {}}, 422, "should be a list"),
    "/nowhere": ({}, 404, "there is no /nowhere; there are /health, /score"),
    "/health": ({}, 405, "is asked by GET"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_requests_are_told_what_is_wrong(kind, bert):
    body, status, said = BAD[kind]
    path = kind.split()[0] if kind.startswith("/") else "/score"
    found, content = ask(bert.address, path, body)
    assert (found, content["error"]["code"]) == (status, status)
    assert said in content["error"]["message"]
    assert len(content["error"]["message"]) < 600
    assert ask(bert.address, "/health", b"", "GET")[0] == 200


def test_one_connection_goes_on_behind_a_bad_request(bert):
    client = http.client.HTTPConnection(*bert.address, timeout=20)
    for body, status in ((b"nope", 400), (b'{"prompt": "a", "response": "b"}', 200)) * 2:
        client.request("POST", "/score", body)
        answer = client.getresponse()
        assert (answer.status, bool(json.loads(answer.read()))) == (status, True)
    client.request("HEAD", "/health")
    assert client.getresponse().status == 200
    client.close()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (request_of(b"{}").replace(b": 2", b": 99999999"), 413),
        (
            b"POST /score HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            + b"8000\r\n"
            + b"a" * 0x8000
            + b"\r\n",
            413,
        ),
        (request_of({}, "Content-Encoding: gzip"), 415),
        (b"GET / HTTP/1.1\r\n" + b"X: " + b"a" * 40_000, 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
        (b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
    ],
)
def test_what_is_too_large_or_no_http_is_refused_unread(data, status):
    with running(Lengths(), ServerLimits(body=1000, read_seconds=5)) as server:
        with server.raw(data) as client:
            assert status_of(client) == status
        assert ask(server.address, "/score", {"prompt": "a", "response": "bc"})[1]["rewards"] == [2.0]


def test_a_body_that_waits_to_be_asked_for_is(bert):
    whole = request_of({"prompt": "a", "response": "b"}, "Expect: 100-continue")
    head, _, body = whole.partition(b"\r\n\r\n")
    with bert.raw(head + b"\r\n\r\n") as client:
        said = client.makefile("rb")
        assert [said.readline(), said.readline()] == [b"HTTP/1.1 100 \r\n", b"\r\n"]
        client.sendall(body)
        assert said.readline().startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("begun", [b"P", request_of({"prompt": "a"})[:-3], b"POST /score HTTP/1.1\r\n"])
def test_slow_clients_are_sent_away_and_hold_nobody_up(begun):
    with running(Lengths()) as server:
        slow = [server.raw(begun) for _ in range(20)]
        since = time.monotonic()
        assert ask(server.address, "/score", {"prompt": "a", "response": "bc"})[0] == 200
        assert time.monotonic() - since < 0.4
        for client in slow:
            assert status_of(client) == 408
            client.close()
        until(lambda: server.clients == 0)


def test_a_drip_does_not_extend_the_time():
    with running(Lengths()) as server, server.raw() as client:
        since = time.monotonic()
        client.settimeout(0.05)
        found = b""
        while not found and time.monotonic() - since < 5:
            client.sendall(b"G")
            with contextlib.suppress(TimeoutError):
                found = client.recv(100)
        assert found.startswith(b"HTTP/1.1 408")
        assert time.monotonic() - since < 2


def test_a_client_that_leaves_costs_nothing_more():
    reader = Waits()
    with running(reader) as server:
        first = server.raw(request_of({"prompt": "a", "response": "first"}))
        assert reader.came.wait(20)
        gone = [server.raw(request_of({"prompt": "a", "response": "gone"})) for _ in range(5)]
        until(lambda: server.service.batcher.waiting == 5)
        for client in gone:
            client.close()
        until(lambda: server.clients == 1)
        assert server.held == len(json.dumps({"prompt": "a", "response": "first"}))
        reader.may.set()
        assert status_of(first) == 200
        first.close()
    assert reader.asked[0] == [0]
    assert sum(map(len, reader.asked)) == 1


def test_clients_that_leave_again_and_again_leave_no_memory_behind():
    """While the model is busy: as a trainer does that gives up and tries once more."""
    reader, large = Waits(), request_of({"prompt": "a", "response": "b" * 2**20})
    with running(reader) as server:
        first = server.raw(request_of({"prompt": "a", "response": "first"}))
        assert reader.came.wait(20)
        tracemalloc.start()
        for _ in range(10):
            with server.raw(large):
                until(lambda: server.service.batcher.waiting == 1)
            until(lambda: (server.clients, server.service.batcher.waiting) == (1, 0))
        gc.collect()
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert held < 2 * len(large)
        reader.may.set()
        assert status_of(first) == 200
        first.close()


@pytest.mark.parametrize(
    ("limits", "status"),
    [
        (ServerLimits(held=60), 503),
        (ServerLimits(connections=1), 503),
        (ServerLimits(answer_seconds=0.3), None),
    ],
)
def test_there_is_an_end_to_what_waits(limits, status):
    """Bytes, clients and time; afterwards all is as before."""
    reader, content = Waits(), {"prompt": "a", "response": "b" * 20}
    with running(reader, limits) as server:
        first = server.raw(request_of(content))
        assert reader.came.wait(20)
        if status is not None:
            with server.raw(request_of(content)) as second:
                assert status_of(second) == status
                assert server.held == len(json.dumps(content))  # nothing of what was refused
            reader.may.set()
        assert status_of(first) == (200 if status else 503)
        first.close()
        reader.may.set()
        until(lambda: server.clients == 0)
        assert ask(server.address, "/score", content)[0] == 200


def test_a_broken_model_fails_one_request_and_not_its_neighbours(caplog):
    class Breaks(Waits):
        def read(self, items):
            if any("boom" in item.answers for item in items):
                raise RuntimeError("out of memory")
            return super().read(items)

        def rewards(self, items, wanted=None):
            found = super().rewards(items)
            return [[float("nan")] if reward == [3.0] else reward for reward in found]

    reader = Breaks()
    with running(reader) as server, ThreadPoolExecutor(4) as pool:
        jobs = [
            pool.submit(ask, server.address, "/score", {"prompt": "a", "response": text})
            for text in ("first", "boom", "nan", "last")
        ]
        reader.may.set()
        found = [job.result(20) for job in jobs]
    assert [status for status, _ in found] == [200, 500, 500, 200]
    assert "the model failed (RuntimeError)" in found[1][1]["error"]["message"]
    assert "nan or infinite: check the model" in found[2][1]["error"]["message"]
    assert "out of memory" in caplog.text
