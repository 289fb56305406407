"""Calls in processes of their own: answers for every item, whatever becomes of the process that has it."""

import os
import signal
import time
from contextlib import closing

import pytest

from dro_core import workers
from dro_core.workers import WorkerDied, side_by_side

_STATE = []


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def alive(pid):
    """Whether a process runs, with any of its threads; one that has ended but was not collected does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            ended = file.read().rpartition(")")[2].split()[0] == "Z"
        return not ended or len(os.listdir(f"/proc/{pid}/task")) > 1
    except FileNotFoundError:
        return False


def fate(item):
    """What an item asks for."""
    if item == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if item == "leaves":
        os._exit(3)
    if item == "raises":
        raise KeyError("a planted fault")
    return os.getpid(), list(_STATE), item


def note(*words):
    _STATE.extend(words)


def busy(place):
    """Say who is at work, then work on until interrupted, and say so."""
    (place / "pid.new").write_text(str(os.getpid()))
    (place / "pid.new").rename(place / "pid")
    try:
        time.sleep(300)
    except KeyboardInterrupt:
        (place / "saved").touch()
        raise


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_item_has_an_answer_and_a_death_costs_one(jobs):
    items = [1, "killed", 2, "leaves", 3, "raises", 4, 5]
    found = {answer.item: answer for answer in side_by_side(fate, items, jobs=jobs, setup=(note, ("ready",)))}
    assert set(found) == set(items)
    for name, said in {
        "killed": "its process was ended by SIGKILL; the machine may be out of memory",
        "leaves": "its process ended with status 3",
    }.items():
        assert isinstance(found[name].error, WorkerDied)
        assert str(found[name].error) == said
    assert isinstance(found["raises"].error, KeyError)
    for number in (1, 2, 3, 4, 5):
        assert found[number].error is None
        pid, state, item = found[number].value
        assert (state, item) == (["ready"], number)  # set up once in every process, and in those that follow
        assert pid != os.getpid()
    if jobs == 1:  # of two, the one that lives may have taken all
        assert len({found[number].value[0] for number in (1, 2, 3, 4, 5)}) > 1


def test_items_are_taken_when_a_process_is_free():
    taken = []

    def items():
        for number in range(6):
            taken.append(number)
            yield number

    with closing(side_by_side(fate, items(), jobs=2)) as answers:
        next(answers)
        assert len(taken) <= 4


def test_a_process_that_dies_between_two_calls_costs_none(tmp_path):
    def items():
        yield tmp_path / "first"
        os.kill(pid := int((tmp_path / "first").read_text()), signal.SIGKILL)
        wait_for(lambda: not alive(pid))
        yield tmp_path / "second"

    assert [answer.error for answer in side_by_side(sign, items(), jobs=1)] == [None, None]


def sign(place):
    place.write_text(str(os.getpid()))


@pytest.mark.parametrize(("patience", "saved"), [(0.0, False), (None, True)])
def test_an_early_end_leaves_no_process(tmp_path, patience, saved):
    (tmp_path / "quick").mkdir()
    answers = side_by_side(_quick_or_busy, [tmp_path / "quick", tmp_path], jobs=2, patience=patience)
    with closing(answers):
        next(answers)
        wait_for((tmp_path / "pid").exists)
        pid = int((tmp_path / "pid").read_text())
        assert os.getsid(pid) != os.getsid(0)  # what the terminal sends does not reach it
    wait_for(lambda: not alive(pid), 10)
    assert (tmp_path / "saved").exists() == saved


def _quick_or_busy(place):
    return None if place.name == "quick" else busy(place)


def _start(place):
    return list(side_by_side(busy, [place], jobs=1))


def test_processes_leave_when_their_starter_is_killed(tmp_path):
    from multiprocessing import get_context

    starter = get_context("spawn").Process(target=_start, args=(tmp_path,))
    starter.start()
    wait_for((tmp_path / "pid").exists)
    pid = int((tmp_path / "pid").read_text())
    assert alive(pid)
    starter.kill()
    starter.join()
    wait_for(lambda: not alive(pid), 10)


def test_a_process_whose_answer_nobody_reads_ends_without_a_word(capfd):
    hand = workers._Hand(None, None)
    assert hand.ask(fate, "unread").poll(60)
    hand.let_go()
    hand.process.join(60)
    assert hand.process.exitcode == 0
    assert capfd.readouterr().err == ""
