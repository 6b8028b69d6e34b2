"""The sandbox against programs that try to get out, at every level that this machine has.

A program prints OUT where it got out. What a level is known not to cover is tested as well: a level that covers more
than its docstring says shall say so.
"""

from __future__ import annotations

import os
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from pawl.qe.item import CannotGrade
from pawl.sandbox import BEST_FIRST, Level, Limits, Outcome, available, best, run

LEVELS = [
    pytest.param(lv, marks=pytest.mark.skipif(not available(lv), reason=f"level {lv} does not work here"))
    for lv in BEST_FIRST
]
every_level = pytest.mark.parametrize("level", LEVELS)
with_kernel = pytest.mark.parametrize("level", LEVELS[:2])
MIB = 1024 * 1024


def tried(code: str, level: Level, **limits: float) -> Outcome:
    chosen = Limits(**{"wall_s": 10.0, **limits})  # type: ignore[arg-type]
    # A program that fails since it cannot import what it tries to get out with would prove nothing.
    begin = "import importlib.util, json, os, shutil, signal, socket, subprocess, sys, time\nprint('in', flush=True)\n"
    done = run({"main.py": begin + code}, ["main.py"], limits=chosen, level=level)
    assert done.stdout.startswith("in\n"), done
    return msgspec.structs.replace(done, stdout=done.stdout.removeprefix("in\n"))


def alive(mark: str) -> list[int]:
    """Processes whose command line holds `mark`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


@pytest.fixture
def listening() -> Iterator[tuple[int, list[bytes]]]:
    """A TCP server of the parent on loopback: its port, and what it was told."""
    heard: list[bytes] = []

    class Hear(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            heard.append(self.request.recv(100))

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Hear) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server.server_address[1], heard
        server.shutdown()
        thread.join()


@pytest.fixture
def unix_server(tmp_path: Path) -> Iterator[Path]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()
        yield tmp_path / "s"


@every_level
def test_a_program_runs_with_its_files_arguments_and_nothing_else(level: Level) -> None:
    code = (
        "import os, sys, json, data.more\n"
        "print(json.dumps([sys.argv[1:], data.more.X, open('data/t.bin', 'rb').read().hex(), sorted(os.environ)]))\n"
        "open('new.txt', 'w').write('x'); print(open('new.txt').read(), __name__, sys.stdin.read())\n"
        "print('to stderr', file=sys.stderr); sys.exit(3)"
    )
    files = {"main.py": code, "data/more.py": "X = 'é'", "data/t.bin": b"\x00\xff"}
    done = run(files, ["main.py", "a", "b c"], level=level)
    known = '["HOME", "LANG", "PATH", "PYTHONHASHSEED", "PYTHONUTF8", "TMPDIR"]'
    first, last, *rest = done.stdout.split("\n")
    assert first.replace(', "PWD"', "").replace('"PWD", ', "") == f'[["a", "b c"], "\\u00e9", "00ff", {known}]'
    assert (last, rest, done.stderr, done.status, done.killed_by) == ("x __main__ ", [""], "to stderr\n", 3, "")
    assert not done.ok and 0 < done.seconds < 10


@every_level
def test_no_file_descriptor_of_the_parent(level: Level, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sesame-4711")
    code = (
        "found = []\nfor n in range(3, 64):\n"
        "    try: os.fstat(n); found.append(n)\n    except OSError: pass\nprint(found)"
    )
    with (tmp_path / "key").open() as secret:
        os.set_inheritable(secret.fileno(), True)
        assert tried(code, level).stdout == "[]\n"


@every_level
def test_what_the_program_does_wrong_is_told_and_not_raised(level: Level) -> None:
    assert "SyntaxError" in run({"m.py": "def ("}, ["m.py"], level=level).stderr
    assert tried("1/0", level).status == 1
    assert tried("import os; os.abort()", level).killed_by == "signal 6"
    assert tried("import sys; sys.exit(200)", level).status == 200


@every_level
def test_nothing_can_be_thrown_away_and_randomness_be_had(level: Level) -> None:
    done = tried(
        "open('/dev/null', 'w').write('x'); print(len(open('/dev/urandom', 'rb').read(9)), len(os.urandom(3)))", level
    )
    assert done.stdout == "9 3\n", done.stderr


@every_level
def test_the_hash_seed_is_the_callers(level: Level) -> None:
    shown = [run({"m.py": "print(hash('a'))"}, ["m.py"], hash_seed=s, level=level).stdout for s in (1, 1, 2)]
    assert shown[0] == shown[1] != shown[2]


@every_level
def test_no_tcp(level: Level, listening: tuple[int, list[bytes]]) -> None:
    port, heard = listening
    code = f"import socket\ns = socket.create_connection(('127.0.0.1', {port}), 2)\ns.sendall(b'secret')\nprint('OUT')"
    done = tried(code, level)
    time.sleep(0.1)
    assert "OUT" not in done.stdout and done.status == 1 and heard == []


@every_level
def test_no_udp_and_no_names(level: Level) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(0.3)
        port = server.getsockname()[1]
        tried(f"import socket\nsocket.socket(2, 2).sendto(b'x', ('127.0.0.1', {port}))", level)
        with pytest.raises(TimeoutError):
            server.recv(10)
    assert tried("import socket\nprint('OUT', socket.getaddrinfo('localhost', 80))", level).status == 1


@every_level
def test_no_unix_socket_of_others(level: Level, unix_server: Path) -> None:
    code = f"import socket\ns = socket.socket(socket.AF_UNIX)\ns.connect({str(unix_server)!r})\nprint('OUT')"
    done = tried(code, level)
    assert "OUT" not in done.stdout and done.status == 1


@every_level
def test_no_environment_of_the_parent(level: Level, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAWL_TEST_SECRET", "sesame-4711")
    code = (
        "print(dict(os.environ))\n"
        f"for p in [os.getppid(), *range(1, 40), {os.getpid()}]:\n"
        "    try: print(open(f'/proc/{p}/environ', 'rb').read())\n"
        "    except OSError: pass\n"
    )
    done = tried(code, level)
    assert done.ok and "sesame" not in done.stdout


@every_level
def test_no_files_of_the_parent(level: Level, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    secret = tmp_path / "key"
    secret.write_text("sesame-4711")
    reads = [
        f"open({str(secret)!r}).read()",
        "open('/etc/passwd').read()",
        f"__import__('os').listdir({str(tmp_path)!r})",
    ]
    reads += [f"open(__import__('os').open({str(secret)!r}, 0)).read()", "open('/proc/1/cmdline').read()"]
    reads += [f"__import__('os').symlink({str(secret)!r}, 'l') or open('l').read()"]
    for read in reads:
        done = tried(f"print('OUT', {read})", level)
        assert "OUT" not in done.stdout and done.status == 1, read


@every_level
def test_nothing_is_written_or_deleted_outside(level: Level, tmp_path: Path) -> None:
    kept = tmp_path / "kept.txt"
    kept.write_text("mine")
    there = str(kept)
    attempts = [
        f"open({there!r}, 'w')",
        f"os.remove({there!r})",
        f"os.truncate({there!r}, 0)",
        f"os.rename({there!r}, 'x')",
    ]
    attempts += [
        f"shutil.rmtree({str(tmp_path)!r})",
        f"open({str(tmp_path / 'new')!r}, 'w')",
        f"os.chmod({there!r}, 0)",
    ]
    attempts += [f"os.mkdir({str(tmp_path / 'folder')!r})", f"os.link({there!r}, 'l') or open('l', 'w')"]
    for attempt in attempts:
        assert not tried(f"import os, shutil\n{attempt}\nprint('OUT')", level).ok, attempt
    assert [p.name for p in tmp_path.iterdir()] == ["kept.txt"] and kept.read_text() == "mine"
    assert kept.stat().st_mode & 0o400


@every_level
def test_no_programs(level: Level) -> None:
    for attempt in ("os.execv('/bin/sh', ['sh', '-c', 'echo OUT'])", "subprocess.run(['/bin/sh', '-c', 'echo OUT'])"):
        assert "OUT" not in tried(f"import os, subprocess\n{attempt}", level).stdout
    assert "OUT" not in tried("import os\nos.system('/bin/echo OUT')", level).stdout


@every_level
def test_a_fork_bomb_ends(level: Level) -> None:
    began = time.monotonic()
    code = "import os, time\nmark = 'pawl-bomb'\nwhile True:\n    try: os.fork()\n    except OSError: time.sleep(0.05)"
    done = tried(code, level, wall_s=2.0, cpu_s=2, processes=12, forks=30)
    assert done.killed_by and time.monotonic() - began < 6


@every_level
def test_forks_are_counted(level: Level) -> None:
    code = (
        "import os, time\nn = 0\ntry:\n    while n < 300:\n"
        "        if os.fork() == 0:\n            time.sleep(20)\n            os._exit(0)\n        n += 1\n"
        "except OSError: pass\nprint(n, flush=True)\nos._exit(0)"
    )
    done = tried(code, level, processes=12, forks=40)
    assert 0 < int(done.stdout) <= 40


@every_level
def test_a_memory_bomb_ends(level: Level) -> None:
    done = tried("x = []\nwhile True: x.append(bytearray(1 << 22))", level, memory=200 * MIB)
    assert not done.ok and ("MemoryError" in done.stderr or done.killed_by)


@every_level
def test_a_large_file_is_not_written(level: Level) -> None:
    code = "import os\nf = open('big', 'wb', 0)\nfor _ in range(64): f.write(bytes(1 << 20))\nprint('OUT')"
    done = tried(code, level, file=4 * MIB)
    assert "OUT" not in done.stdout and not done.ok


def many_files(level: Level) -> int:
    code = (
        "n = 0\ntry:\n    for i in range(40):\n        open(f'f{i}', 'wb').write(bytes(1 << 20)); n += 1\n"
        "except OSError: pass\nprint(n)"
    )
    return int(tried(code, level, disk=8 * MIB).stdout)


@pytest.mark.parametrize("level", LEVELS[:1])
def test_the_disk_is_not_filled(level: Level) -> None:
    assert many_files(level) < 10


@pytest.mark.parametrize("level", LEVELS[1:])
def test_many_files_are_known_to_fill_the_disk_and_go_with_the_run(level: Level) -> None:
    before = set(Path("/tmp").glob("pawl-*"))
    assert many_files(level) == 40
    assert set(Path("/tmp").glob("pawl-*")) <= before


@every_level
def test_an_endless_loop_ends_by_the_wall_and_by_the_processor(level: Level) -> None:
    done = tried("while True: pass", level, wall_s=0.7)
    assert done.killed_by == "wall" and done.status is None and done.seconds < 5
    assert tried("while True: pass", level, cpu_s=1).killed_by == "cpu"


@every_level
def test_signals_that_are_ignored_and_daemons_do_not_help(level: Level) -> None:
    mark = f"pawl-daemon-{os.getpid()}-{level}"
    code = f"""
import os, signal, time
for s in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGXCPU): signal.signal(s, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for n in range(3): os.close(n)
        open('{mark}', 'w')
        time.sleep(30)
    os._exit(0)
time.sleep(0.3)
print('left')
"""
    done = run({mark: code}, [mark], limits=Limits(wall_s=8), level=level)
    assert done.stdout == "left\n" and alive(mark) == []
    done = run({mark: code + "time.sleep(60)"}, [mark], limits=Limits(wall_s=1), level=level)
    time.sleep(0.3)
    assert done.killed_by == "wall" and alive(mark) == []


@every_level
def test_a_daemon_that_holds_the_streams_does_not_hold_the_caller(level: Level) -> None:
    code = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(30)\nprint('left')"
    done = tried(code, level)
    assert done.stdout == "left\n" and done.seconds < 5


@every_level
def test_others_are_not_signalled(level: Level) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"]) as other:
        tried(f"import os\nos.kill({other.pid}, 9)", level)
        assert other.poll() is None
        other.kill()


@every_level
def test_output_is_capped(level: Level) -> None:
    done = tried("while True: print('x' * 10_000)", level, output=50_000)
    assert done.killed_by == "output" and len(done.stdout) == 50_000 - 3
    assert len(tried("import sys; sys.stderr.write('y' * 90_000); print('z')", level, output=50_000).stderr) == 50_000


@every_level
def test_installed_packages_are_there_only_where_granted(level: Level) -> None:
    code = (
        "import sys, importlib.util as u\nprint([n for n in ('iniconfig', 'orjson', 'pip', 'pawl') if u.find_spec(n)])"
    )
    assert run({"m.py": code}, ["m.py"], level=level).stdout == "[]\n"
    done = run({"m.py": code + "\nimport iniconfig"}, ["m.py"], packages=["iniconfig"], level=level)
    assert done.stdout == "['iniconfig']\n" and done.ok, done.stderr
    site = next(p for p in sys.path if p.endswith("site-packages"))
    assert not tried(f"import sys; sys.path.append({site!r}); import orjson", level).ok
    with pytest.raises(CannotGrade, match="no_such_package"):
        run({"m.py": ""}, ["m.py"], packages=["no_such_package"], level=level)


@with_kernel
def test_system_calls_by_ctypes_find_no_network_and_no_secret(level: Level, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sesame-4711")
    code = f"""
import _ctypes, ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
f = libc.open({str(tmp_path / "key")!r}.encode(), 0)
b = ctypes.create_string_buffer(100)
if f >= 0: libc.read(f, b, 100)
parent = {os.getpid()}
print(b.value, libc.mount(b'', b'/tmp', b'tmpfs', 0, None), libc.kill(parent, 0), libc.ptrace(16, parent, 0, 0))
"""
    done = tried(code, level)
    assert "sesame" not in done.stdout
    if level == "bubblewrap":  # there is no guard in between: the kernel itself refuses
        assert done.stdout == "b'' -1 -1 -1\n"
    else:
        assert "PermissionError" in done.stderr


@with_kernel
def test_what_the_guard_does_not_see_the_kernel_refuses(level: Level, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sesame-4711")
    assert "sesame" not in unannounced(level, tmp_path / "key").stdout


@pytest.mark.parametrize("level", LEVELS[2:])
def test_the_guard_is_known_not_to_see_what_python_does_not_announce(level: Level, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sesame-4711")
    assert "sesame" in unannounced(level, tmp_path / "key").stdout


def unannounced(level: Level, secret: Path) -> Outcome:
    code = (
        "import _posixsubprocess as p, os\nr, w = os.pipe()\n"
        f"a = [b'/bin/cat', {str(secret)!r}.encode()]\n"
        "p.fork_exec(a, [a[0]], True, (), None, None, *[-1] * 6, r, w, True, False, -1, None, None, None, -1,"
        " None, False)\nimport time; time.sleep(0.5)"
    )
    return tried(code, level)


def test_the_best_level_is_the_first_that_works() -> None:
    assert best() == next(lv for lv in BEST_FIRST if available(lv))


def test_paths_stay_within_and_the_program_is_one_of_the_files() -> None:
    for name in ("../x.py", "/x.py", "", "a/../../x"):
        with pytest.raises(ValueError, match="within"):
            run({name: ""}, [name])
    with pytest.raises(ValueError, match="one of the files"):
        run({"a.py": ""}, ["b.py"])


def test_a_level_that_cannot_start_is_told_apart_from_a_program_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(CannotGrade, match="bubblewrap"):
        run({"a.py": ""}, ["a.py"], level="bubblewrap")
    with pytest.raises(CannotGrade, match="does not start"):
        run({"a.py": ""}, ["a.py"], level="guard", limits=Limits(wall_s=0.0))
