"""System calls that generated code may not make, and functions that no audit hook hears of."""

from __future__ import annotations

import errno
import os
import platform
import struct
from pathlib import Path

import pytest

from pawl.sandbox import Level, system_calls
from tests.unit.test_sandbox import LEVELS, every_level, tried, with_kernel

# (load, jump where equal, jump where at least, jump where any bit is set, return)
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOWED, _REFUSED, _ABSENT = "allowed", errno.EPERM, errno.ENOSYS
_BY_HAND = pytest.mark.skipif(platform.machine() != "x86_64", reason="skipped: the numbers below are those of x86-64")


def judged(program: bytes, audit: int, number: int, first: int = 0) -> str | int:
    """What the kernel would make of a call: a machine for these few instructions."""
    data = struct.pack("<IIQQQQQQQ", number, audit, 0, first, 0, 0, 0, 0, 0)
    lines = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    at, held = 0, 0
    while True:
        code, yes, no, k = lines[at]
        at += 1
        if code == _LOAD:
            held = struct.unpack_from("<I", data, k)[0]
        elif code == _RETURN:
            return _ALLOWED if k == 0x7FFF0000 else k & 0xFFFF
        else:
            at += yes if {_EQUAL: held == k, _AT_LEAST: held >= k, _ANY_BIT: bool(held & k)}[code] else no


@pytest.mark.parametrize(("machine", "audit", "clone"), [("x86_64", 0xC000003E, 56), ("aarch64", 0xC00000B7, 220)])
def test_the_filter_refuses_what_it_names_and_nothing_else(machine: str, audit: int, clone: int) -> None:
    program = system_calls.program(machine)
    named = set(system_calls._MACHINES[machine].refused.values())
    said = {n: judged(program, audit, n) for n in range(500)}
    assert {n for n, word in said.items() if word == _REFUSED} == named
    assert {n for n, word in said.items() if word == _ABSENT} == {435}
    assert judged(program, audit, clone, first=0x01200011) == _ALLOWED  # a fork
    assert judged(program, audit, clone, first=0x003D0F00) == _ALLOWED  # a thread
    assert {judged(program, audit, clone, first=bit | 17) for bit in (0x10000000, 0x20000, 0x80)} == {_REFUSED}
    assert judged(program, 0x40000003, 1) == _REFUSED  # the calls of 32 bits have other numbers
    assert len(program) // 8 < 255  # jumps never reach further than a byte


def test_the_second_table_of_x86_64_is_no_way_round() -> None:
    assert judged(system_calls.program("x86_64"), 0xC000003E, 0x40000000 | 1) == _REFUSED


def test_where_no_table_is_known_nothing_is_filtered() -> None:
    assert system_calls.program("riscv64") == b""


def by_kernel(level: Level, code: str) -> str:
    """What code prints that calls the kernel without Python, as `namespaces` would see it without its guard too."""
    begin = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
    return tried(begin + code, level).stdout


@_BY_HAND
@pytest.mark.parametrize("level", LEVELS[:1])
def test_no_memory_that_belongs_to_no_process(level: Level) -> None:
    code = "print([libc.shmget(0, 1 << 20, 0o1600), libc.syscall(319, b'x', 0), libc.msgget(0, 0o1600)])"
    assert by_kernel(level, code) == "[-1, -1, -1]\n"


@_BY_HAND
@pytest.mark.parametrize("level", LEVELS[:1])
def test_no_namespaces_and_no_keyrings(level: Level) -> None:
    code = (
        "print([libc.unshare(0x10000000), libc.unshare(0x20000), libc.syscall(250, 0, -3, 0), "
        "libc.syscall(56, 0x10000011, 0, 0, 0, 0), libc.syscall(435, None, 0)])"
    )
    assert by_kernel(level, code) == "[-1, -1, -1, -1, -1]\n"


@with_kernel
def test_threads_and_processes_start_all_the_same(level: Level) -> None:
    code = (
        "import threading\nt = threading.Thread(target=print, args=('thread',), kwargs={'flush': True})\n"
        "t.start(); t.join()\npid = os.fork()\nif pid == 0: os._exit(7)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    )
    assert tried(code, level).stdout == "thread\n7\n"


@pytest.mark.parametrize("level", LEVELS[1:2])
def test_what_root_may_do_in_namespaces_is_given_up(level: Level) -> None:
    # Past the guard, so that the kernel alone answers: who may name the host of these namespaces is root there.
    code = (
        "try: open('/etc/passwd')\nexcept PermissionError as e: found = e.__traceback__\n"
        "while found.tb_next: found = found.tb_next\nfound.tb_frame.f_globals['_NEVER'] = ()\n"
        "try: socket.sethostname('x')\nexcept OSError as e: print(e.errno)"
    )
    done = tried(code, level)
    assert done.stdout == f"{errno.EPERM}\n", done


@every_level
@pytest.mark.parametrize(
    "attempt",
    [
        "os.mknod('d', 0o60600, os.makedev(7, 0))",
        "os.chroot('.')",
        "signal.pidfd_send_signal(os.pidfd_open({other}), 0)",
        "os.setpriority(os.PRIO_PROCESS, {other}, 19)",
        "os.sched_setaffinity({other}, [0])",
        "__import__('fcntl').fcntl(os.pipe()[0], 8, {other})",
    ],
)
def test_what_no_hook_hears_of_is_not_there(level: Level, attempt: str) -> None:
    done = tried(attempt.format(other=os.getpid()) + "\nprint('OUT')", level)
    assert "OUT" not in done.stdout and done.status == 1


@every_level
def test_a_path_relative_to_another_folder_leads_nowhere_else(level: Level, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sesame-4711")
    up = "../" * 14 + str(tmp_path)[1:]
    # The same path from here would stay within the working folder.
    deep = "os.makedirs('/'.join('abcdefghijklmnop')); os.chdir('/'.join('abcdefghijklmnop'))\n"
    deep += "d = os.open(os.path.dirname(json.__file__), 0)\n"
    read = tried(f"{deep}print(os.read(os.open({up + '/key'!r}, 0, dir_fd=d), 99))", level)
    written = tried(f"{deep}os.open({up + '/new'!r}, os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=d)", level)
    assert "sesame" not in read.stdout and (read.status, written.status) == (1, 1)
    assert [p.name for p in tmp_path.iterdir()] == ["key"]


@every_level
def test_a_folder_of_ones_own_can_be_opened_and_removed(level: Level) -> None:
    code = (
        "os.makedirs('a/b'); open('a/b/c', 'w').close()\nd = os.open('a', os.O_RDONLY)\n"
        "os.close(os.open('b/c', os.O_RDONLY, dir_fd=d))\nshutil.rmtree('a')\n"
        "import tempfile\nwith tempfile.TemporaryDirectory() as t: open(t + '/x', 'w').close()\nprint(os.listdir('.'))"
    )
    assert tried(code, level).stdout == "['main.py']\n"


@pytest.mark.parametrize("level", LEVELS[2:])
def test_the_guard_is_known_to_be_made_of_what_code_can_change(level: Level, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sesame-4711")
    code = f"import builtins\nbuiltins.any = lambda _: True\nprint(open({str(tmp_path / 'key')!r}).read())"
    assert "sesame" in tried(code, level).stdout
