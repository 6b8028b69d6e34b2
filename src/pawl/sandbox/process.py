"""Starts a run at a level, waits for it, and tells what came of it."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path, PurePosixPath

import msgspec
import orjson

from pawl.qe.item import CannotGrade
from pawl.sandbox import bubblewrap, python_files, system_calls
from pawl.sandbox.levels import Level, best
from pawl.sandbox.outcome import Limits, Outcome

_LAUNCHER = ("inside_launcher.py", "inside_kernel.py", "inside_guard.py")
_GRACE_S = 1.0  # for what ends a run and is no part of it
_CHUNK = 64 * 1024


def run(
    files: Mapping[str, str | bytes],
    argv: Sequence[str],
    *,
    limits: Limits | None = None,
    packages: Sequence[str] = (),
    hash_seed: int = 0,
    level: Level | None = None,
) -> Outcome:
    """Runs the Python program `argv[0]`, one of `files`, with the arguments that follow, apart from everything else.

    `files`: paths relative to the working folder, with their content. `packages`: importable names of installed
    packages that the program may import besides the standard library. `level`: the best that works, if not given.
    What the program does (fails, hangs, is killed) is told in the outcome, never raised.

    Raises:
        CannotGrade: nothing could be started at that level.
        ValueError: a path leaves the working folder, or the program is not among the files.
    """
    limits = limits or Limits()
    level = level or best()
    for name in files:
        if not name or PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\0" in name:
            raise ValueError(f"not a path within the sandbox: {name!r}")
    if not argv or argv[0] not in files:
        raise ValueError("the sandbox runs one of the files that it is given")
    content = {n: c.encode(errors="replace") if isinstance(c, str) else c for n, c in files.items()}
    places = python_files.granted(tuple(packages))
    with ExitStack() as stack:
        ready, said = os.pipe()
        stack.callback(os.close, ready)
        said_open = stack.enter_context(os.fdopen(said, "wb"))
        settings = {
            "argv": list(argv),
            "level": level,
            "ready": said,
            "user": None,
            "refused": system_calls.program().hex(),
            "limits": msgspec.to_builtins(limits),
        }
        if level == "bubblewrap":
            settings |= {"box": bubblewrap.BOX, "granted": bubblewrap.GRANTED, "user": bubblewrap.user()}
            line, passed = _bubblewrapped(stack, content, settings, places, limits)
            cwd, environment = "/", _environment(bubblewrap.BOX, hash_seed)
        else:
            line, cwd = _in_folder(stack, content, settings, places)
            passed, environment = [], _environment(cwd, hash_seed)
        began = time.monotonic()
        try:
            process = subprocess.Popen(
                line, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, pass_fds=[said, *passed], start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise CannotGrade(f"the sandbox does not start: {error}") from error
        said_open.close()
        with process:
            outcome = _waited_for(process, limits, began)
        if os.read(ready, 16) != b"ready":
            raise CannotGrade(f"the sandbox does not start at level {level}: {outcome.stderr[-400:].strip()}")
    return outcome


def _environment(home: str, hash_seed: int) -> dict[str, str]:
    # Everything that the program finds in its environment.
    fixed = {"PATH": "/nonexistent", "LANG": "C.UTF-8", "PYTHONUTF8": "1"}
    return {**fixed, "HOME": home, "TMPDIR": home, "PYTHONHASHSEED": str(hash_seed)}


def _python(own: str) -> list[str]:
    # No site-packages, nothing of the user's, nothing of the working folder before the standard library.
    return [str(python_files.interpreter()), "-s", "-S", "-P", "-B", f"{own}/{_LAUNCHER[0]}", f"{own}/settings.json"]


def _own(settings: dict[str, object]) -> dict[str, bytes]:
    folder = Path(__file__).parent
    return {**{n: (folder / n).read_bytes() for n in _LAUNCHER}, "settings.json": orjson.dumps(settings)}


def _bubblewrapped(
    stack: ExitStack, content: dict[str, bytes], settings: dict[str, object], places: Sequence[Path], limits: Limits
) -> tuple[list[str], list[int]]:
    def kept(data: bytes) -> int:
        descriptor = os.memfd_create("pawl")
        stack.callback(os.close, descriptor)
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(data)
            file.flush()
            file.seek(0)
        return descriptor

    files = {n: kept(c) for n, c in content.items()}
    own = {n: kept(c) for n, c in _own(settings).items()}
    refused = [kept(program)] if (program := system_calls.program()) else []
    line = bubblewrap.command(files, own, places, limits, _python(bubblewrap.OWN), *refused)
    return line, [*files.values(), *own.values(), *refused]


def _in_folder(
    stack: ExitStack, content: dict[str, bytes], settings: dict[str, object], places: Sequence[Path]
) -> tuple[list[str], str]:
    # Real, not through a link: the guard compares real paths.
    top = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pawl-", ignore_cleanup_errors=True))).resolve()
    box, own, granted = top / "box", top / "own", top / "granted"
    for folder in (box, own, granted):
        folder.mkdir()
    for inside, path in python_files.search_path(places, str(granted)).items():
        Path(inside).symlink_to(path)
    parts, apart = python_files.without_hidden()
    readable = [*parts, *places, own, granted, *map(Path, ("/dev/null", "/dev/urandom"))]
    settings |= {
        "box": str(box),
        "granted": str(granted),
        "readable": sorted({str(p.resolve()) for p in readable}),
        "listable": [str(p) for p in apart],
        "writable": [str(box), "/dev/null"],
    }
    for name, data in content.items():
        (box / name).parent.mkdir(parents=True, exist_ok=True)
        (box / name).write_bytes(data)
    for name, data in _own(settings).items():
        (own / name).write_bytes(data)
    return _python(str(own)), str(box)


def _waited_for(process: subprocess.Popen[bytes], limits: Limits, began: float) -> Outcome:
    streams = {process.stdout: bytearray(), process.stderr: bytearray()}
    killed_by, over = "", None  # over: when it ended, or was ended
    with selectors.DefaultSelector() as waiting:
        for stream in streams:
            assert stream is not None
            waiting.register(stream, selectors.EVENT_READ)
        while waiting.get_map():
            now = time.monotonic()
            if over is None and not killed_by and now - began > limits.wall_s:
                killed_by = "wall"
                _end(process)
            if over is None and process.poll() is not None:
                over = now
            if over is not None and now - over > _GRACE_S:
                break  # something that outlived the run holds a stream open
            for key, _ in waiting.select(timeout=0.05):
                found = os.read(key.fd, _CHUNK)
                if not found:
                    waiting.unregister(key.fileobj)
                    continue
                kept = streams[key.fileobj]  # type: ignore[index]
                kept += found[: limits.output - len(kept)]
                if len(kept) >= limits.output and not killed_by and process.poll() is None:
                    killed_by = "output"
                    _end(process)
    if not killed_by:
        try:
            process.wait(max(0.0, limits.wall_s - (time.monotonic() - began)))
        except subprocess.TimeoutExpired:  # it closed its streams and goes on
            killed_by = "wall"
            _end(process)
    code = process.wait()
    number = -code if code < 0 else code - 128
    number = number if number in set(signal.Signals) else 0
    if number and not killed_by:
        killed_by = "cpu" if number == signal.SIGXCPU else f"signal {number}"
    out, err = (bytes(b).decode(errors="replace") for b in streams.values())
    status = None if killed_by else code
    return Outcome(status=status, stdout=out, stderr=err, seconds=time.monotonic() - began, killed_by=killed_by)


def _end(process: subprocess.Popen[bytes]) -> None:
    # The supervisor of a run without namespaces ends what it adopted; all others die with the first process.
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE_S)
    with suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
