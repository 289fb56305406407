"""Calls on a cluster: refused in a sentence where there is none, an answer for every item where there is one."""

import os
import pickle
import socket
import sys
import time
from contextlib import closing, suppress
from importlib.machinery import ModuleSpec
from threading import Thread
from types import ModuleType

import pytest
import threadpoolctl
from nearby import bring_near

from dro_core.clusters import joining, worker
from dro_core.clusters.joining import ClusterError
from dro_core.clusters.pool import Pool
from dro_core.clusters.worker import Request, carry_out
from dro_core.command_line.parser import Parser, UsageError
from dro_core.command_line.pools import add_pool, pool_of
from dro_core.workers import WorkerDied, packed

_BEGAN = []


def begin(*words):
    _BEGAN.append(words)


def fate(item):
    """What an item asks for."""
    if item == "leaves":
        sys.exit(3)
    if item == "raises":
        raise KeyError("a planted fault")
    return item, list(_BEGAN)


@pytest.fixture
def near(monkeypatch):
    bring_near(monkeypatch)
    monkeypatch.setattr(worker, "_begun", [])
    _BEGAN.clear()
    return Pool("dask", jobs=2)


def asked(*words, **environment):
    parser = Parser("test")
    add_pool(parser, jobs="how many")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("RAY_ADDRESS", "DASK_SCHEDULER_ADDRESS"):
            patch.setenv(name, environment.get(name, ""))
        return pool_of(parser.parse_args(words), alone=1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--address", "tcp://h:1"], "--address: tcp://h:1 would be a cluster, and the backend is loky"),
        (["--backend", "dask", "--address", "ray://h:1"], "Dask is at tcp://HOST:8786, got ray://h:1"),
        (["--backend", "ray", "--address", "tcp://h:1"], "Ray is at ray://HOST:10001, HOST:6379 or auto, got tcp"),
        (["--backend", "ray", "--address", "h"], "HOST:6379 or auto, got h"),
        (["--backend", "spark"], "'spark' is none of loky, ray, dask"),
        (["--jobs", "0"], "--jobs: must be a whole number in [1, 10000], got 0"),
        (["--jobs", "many"], "--jobs: must be a whole number in [1, 10000], got many"),
    ],
)
def test_flags_that_make_no_sense_are_refused(words, said):
    with pytest.raises(UsageError) as refusal:
        asked(*words)
    assert said in str(refusal.value)


def test_a_variable_that_names_no_cluster_is_refused_by_its_name():
    with pytest.raises(UsageError, match=r"^DASK_SCHEDULER_ADDRESS: "):
        asked("--backend", "dask", DASK_SCHEDULER_ADDRESS="nowhere")
    assert asked(DASK_SCHEDULER_ADDRESS="nowhere") == Pool("loky", 1)


@pytest.mark.parametrize(("backend", "module"), [("ray", "ray"), ("dask", "distributed")])
def test_a_backend_that_is_not_installed_says_what_to_install(monkeypatch, backend, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ClusterError, match=rf"pip install 'robust-rlhf\[{backend}\]'"):
        Pool(backend).check()


@pytest.fixture(params=["nobody", "who says something", "who says nothing"])
def wrong(request, monkeypatch):
    """An address of this machine where no cluster is, and who is there."""
    monkeypatch.setattr(joining, "_ANSWERS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        if request.param == "nobody":
            server.close()
        elif request.param == "who says something":
            Thread(target=_speak, args=(server,), daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}" if server.fileno() > 0 else "127.0.0.1:9", request.param


def _speak(server):
    with suppress(OSError):  # nobody calls any more
        while True:
            with server.accept()[0] as stream:
                stream.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def seem_installed(monkeypatch, name):
    """What is looked at before its own code is the same where it is not."""
    if name not in sys.modules:
        monkeypatch.setitem(sys.modules, name, module := ModuleType(name))
        module.__spec__ = ModuleSpec(name, None)


@pytest.mark.parametrize("form", ["ray://{}", "{}"])
def test_an_address_without_a_cluster_of_ray_is_said_within_seconds(wrong, monkeypatch, form):
    seem_installed(monkeypatch, "ray")
    address = form.format(wrong[0])
    with pytest.raises(ClusterError, match=f"no cluster of Ray answers at {address} "):
        asked("--backend", "ray", "--address", address)


def test_the_cluster_of_ray_that_ran_here_last_and_was_killed_is_said_within_seconds(wrong, tmp_path, monkeypatch):
    services = pytest.importorskip("ray._private.services", reason="Ray is not installed, and knows where it was")
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(wrong[0])
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr(services, "find_gcs_addresses", set)  # others may run here
    with pytest.raises(ClusterError, match="no cluster of Ray answers at auto "):
        asked("--backend", "ray", "--address", "auto")


def test_an_address_without_a_cluster_of_dask_is_said_within_seconds(wrong, monkeypatch):
    address, there = wrong
    if there == "nobody":
        seem_installed(monkeypatch, "distributed")
    else:
        pytest.importorskip("distributed", reason="Dask is not installed, and its own code asks who is there")
    with pytest.raises(ClusterError, match=f"no cluster of Dask answers at tcp://{address} "):
        asked("--backend", "dask", DASK_SCHEDULER_ADDRESS=f"tcp://{address}")


def test_every_item_has_an_answer_and_a_lost_worker_costs_one(near):
    items = [1, "leaves", 2, "raises", 3]
    found = {answer.item: answer for answer in near.answers(fate, items, setup=(begin, ("ready",)))}
    assert list(map(found.get, items)).count(None) == 0
    assert [found[number].value for number in (1, 2, 3)] == [(number, [("ready",)]) for number in (1, 2, 3)]
    assert isinstance(found["leaves"].error, WorkerDied)
    assert str(found["leaves"].error) == "its worker was lost (RuntimeError)"
    assert isinstance(found["raises"].error, KeyError)


def test_items_are_taken_when_a_worker_is_free(near):
    taken = []
    items = (taken.append(number) or number for number in range(9))
    with closing(near.answers(fate, items)) as answers:
        next(answers)
        assert len(taken) <= 4


def test_what_no_worker_can_begin_with_is_said_once(near):
    with pytest.raises(ClusterError, match=r"^the cluster nearby: 'a planted fault'$"):
        next(near.answers(fate, [1, 2], setup=(fate, ("raises",))))


@pytest.mark.parametrize("other", ["numpy", "Python"])
def test_a_worker_with_other_versions_is_refused(near, monkeypatch, other):
    known = dict(worker.versions())
    sent = Request(packed(None), None, {**known, other: "0.1"})
    monkeypatch.setattr(Request, "of", lambda setup, threads: sent)
    with pytest.raises(ClusterError, match=f"has {other} {known[other]}, and not {other} 0.1: install the same"):
        next(near.answers(fate, [1]))


def test_what_is_missing_on_one_side_is_not_compared(near, monkeypatch):
    sent = Request(packed(None), None, {**worker.versions(), "only-here": "1"})
    monkeypatch.setattr(Request, "of", lambda setup, threads: sent)
    assert [answer.value for answer in near.answers(abs, [-1])] == [1]


def test_a_call_has_the_threads_that_were_asked_for_and_a_worker_one_at_a_time():

    import numpy  # noqa: F401  whose library is to be limited

    found, before = [], [pool["num_threads"] for pool in threadpoolctl.threadpool_info()]
    sent = packed((_threads, None))
    calls = [Thread(target=lambda: found.append(pickle.loads(carry_out(Request.of(None, 1), sent)))) for _ in range(3)]
    for call in calls:
        call.start()
    for call in calls:
        call.join()
    assert [error for _, error in found] == [None] * 3
    for (began, ended, threads), _ in found:
        assert threads == {1}
        assert not [other for other, _ in found if began < other[0] < ended]
    assert [pool["num_threads"] for pool in threadpoolctl.threadpool_info()] == before


def _threads(_):
    began = time.monotonic()
    time.sleep(0.05)
    return began, time.monotonic(), {pool["num_threads"] for pool in threadpoolctl.threadpool_info()}


def test_here_it_is_processes_of_this_machine():
    answers = list(Pool("loky", jobs=2).answers(_process, [1, 2]))
    assert {answer.item for answer in answers} == {1, 2}
    assert os.getpid() not in {answer.value for answer in answers}


def _process(_):
    return os.getpid()
