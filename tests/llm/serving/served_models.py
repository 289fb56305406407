"""A server in a thread, and clients that say what they like to it."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import threading
import time

from scored_models import Lengths

from llm.serving.connection import ServerLimits
from llm.serving.server import Server, Service

QUICK = ServerLimits(read_seconds=0.5, idle_seconds=30, grace_seconds=20)


class Waits(Lengths):
    """Answers nothing until it may, and remembers how much it was asked."""

    def __init__(self):
        self.may, self.asked, self.came = threading.Event(), [], threading.Event()

    def rewards(self, items, wanted=None):
        self.came.set()
        self.may.wait(20)
        self.asked.append([place for place in range(len(items)) if wanted is None or wanted(place)])
        return super().rewards(items)


class Running:
    """A server in a thread, on a free port."""

    def __init__(self, reader, limits):
        self.service, found = Service(reader, {"model": "m"}, limits), threading.Event()
        self.server, self.address = None, ()

        async def run():
            self.loop = asyncio.get_running_loop()
            self.server = Server(self.service, limits)
            await self.server.run(
                "127.0.0.1", 0, lambda *place: (setattr(self, "address", place), found.set()), signals=False
            )

        self.thread = threading.Thread(target=lambda: asyncio.run(run(), debug=False))
        self.thread.start()
        assert found.wait(20)

    def stop(self):
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self.server.stop)

    @property
    def held(self):
        return self.server._held.bytes

    @property
    def clients(self):
        return len(self.server._connections)

    def raw(self, data=b""):
        client = socket.create_connection(self.address, timeout=20)
        client.sendall(data)
        return client


@contextlib.contextmanager
def running(reader, limits=QUICK):
    server = Running(reader, limits)
    try:
        yield server
    finally:
        getattr(reader, "may", threading.Event()).set()
        server.stop()
        server.stop()
        server.thread.join(20)
        server.service.batcher.close(20)
        assert not server.thread.is_alive()
        assert (server.held, server.clients) == (0, 0)


def ask(address, path, content, method="POST"):
    client = http.client.HTTPConnection(*address, timeout=30)
    body = content if isinstance(content, bytes) else json.dumps(content)
    client.request(method, path, body)
    answer = client.getresponse()
    found = answer.status, json.loads(answer.read() or b"null")
    client.close()
    return found


def request_of(content, *more, path="/score"):
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *more, "", ""]
    return "\r\n".join(lines).encode() + body


def status_of(client):
    """Of the first response on a socket."""
    first = client.makefile("rb").readline()
    return int(first.split()[1]) if first else None


def until(condition):
    for _ in range(400):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it never came about")
