"""The inside of ``confined``: a script that takes its limits, then runs the code and the tests that it is handed.

It is run by its path in an interpreter without site packages, and imports nothing of this project.
"""

import contextlib
import ctypes
import json
import os
import platform
import resource
import struct
import sys

# Numbers of system calls that are refused: processes, connections, signals, limits, owners and modes of files, mounts.
_REFUSED = {
    "x86_64": (57, 58, 59, 322, 41, 425, 62, 200, 234, 424, 101, 311, 160, 302, 90, 91, 92, 93, 94, 260, 268, 452, 165,
               166, 169, 109, 112),
    "aarch64": (221, 281, 198, 425, 129, 130, 131, 424, 117, 271, 164, 261, 52, 53, 54, 55, 452, 40, 39, 142, 154, 157),
}  # fmt: skip
_CLONE, _CLONE3 = {"x86_64": 56, "aarch64": 220}, 435
_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_EPERM, _ENOSYS = 1, 38
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_THREAD = 0x00010000  # of clone: threads are no processes
_WRITES = sum(1 << bit for bit in (1, 4, 5, 6, 7, 8, 9, 10, 11, 12))  # of Landlock's first version


def limit(seconds, memory):
    """Bound processor time, memory, files and processes; what the system does not know is left out."""
    for name, most in {
        "RLIMIT_CPU": max(int(seconds + 0.999), 1),
        "RLIMIT_AS": int(memory * 2**20),
        "RLIMIT_FSIZE": 2**20,
        "RLIMIT_NOFILE": 64,
        "RLIMIT_NPROC": 0,
        "RLIMIT_CORE": 0,
    }.items():
        with contextlib.suppress(AttributeError, ValueError, OSError):
            resource.setrlimit(getattr(resource, name), (most, most))


def write_only_here(libc):
    """Landlock: no file is written, made or removed outside the working folder."""
    abi = libc.syscall(444, None, 0, 1)
    if abi < 1:
        return
    handled = _WRITES | (1 << 13 if abi >= 2 else 0) | (1 << 14 if abi >= 3 else 0)
    attributes = ctypes.create_string_buffer(struct.pack("Q", handled), 8)
    rules = libc.syscall(444, attributes, 8, 0)
    for place, rights in ((".", handled), (os.devnull, 1 << 1)):
        opened = os.open(place, os.O_PATH)
        libc.syscall(445, rules, 1, ctypes.create_string_buffer(struct.pack("=Qi", rights, opened), 12), 0)
        os.close(opened)
    libc.syscall(446, rules, 0)
    os.close(rules)


def refuse_calls(libc, machine):
    """Seccomp: no new process, connection, signal or limit."""
    refused = [
        step for number in _REFUSED[machine] for step in ((_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | _EPERM))
    ]
    steps = [
        (_LOAD, 0, 0, 4), (_EQUAL, 1, 0, _ARCHITECTURE[machine]), (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0), (_AT_LEAST, 0, 1, 0x40000000), (_RETURN, 0, 0, _ERRNO | _EPERM),
        *refused,
        (_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _ERRNO | _ENOSYS),
        (_EQUAL, 0, 3, _CLONE[machine]), (_LOAD, 0, 0, 16), (_ANY_BIT, 1, 0, _THREAD), (_RETURN, 0, 0, _ERRNO | _EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]  # fmt: skip
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    libc.prctl(22, 2, ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(steps), ctypes.addressof(program))), 0, 0)


def confine(seconds, memory):
    """Take every limit that this system has."""
    if sys.platform == "linux" and platform.machine() in _REFUSED:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(1, 9, 0, 0, 0)  # killed with the process that started it
        libc.prctl(38, 1, 0, 0, 0)  # no new privileges
        write_only_here(libc)
        limit(seconds, memory)
        refuse_calls(libc, platform.machine())
    else:
        limit(seconds, memory)


def main():
    """Run code and tests in the same names; the token is handed back where both ended."""
    told = json.load(sys.stdin)
    sys.stdin = open(os.devnull)  # noqa: SIM115
    code, tests = (compile(told[part], part, "exec") for part in ("code", "tests"))
    write, verdict, token = os.write, told["verdict"], told["token"].encode()
    confine(told["seconds"], told["memory"])
    del told
    names = {"__name__": "__main__"}
    exec(code, names)
    exec(tests, names)
    write(verdict, token)


if __name__ == "__main__":
    main()
