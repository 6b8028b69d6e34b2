"""Runs inside: puts on what the level asks for, says that it is ready, and becomes the generated program.

Started as `python -s -S -P -B inside_launcher.py settings.json`, where nothing of Pawl can be imported: the standard
library and the two files next to it are all there is.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, NoReturn


def limit(given: dict[str, int]) -> None:
    """Sets the limits for this process and all that it will start; hard ones, so that it cannot raise them."""
    kinds = {
        "cpu_s": resource.RLIMIT_CPU,
        "memory": resource.RLIMIT_AS,
        "file": resource.RLIMIT_FSIZE,
        "open_files": resource.RLIMIT_NOFILE,
        "processes": getattr(resource, "RLIMIT_NPROC", None),
    }
    for name, kind in kinds.items():
        if kind is not None:
            # Somewhat more for the hard limit of processor time: SIGXCPU tells what happened, SIGKILL does not.
            resource.setrlimit(kind, (given[name], given[name] + (name == "cpu_s")))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def children() -> list[int]:
    """Ids of this process's children, adopted ones included."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # The name in parentheses may hold anything, spaces too.
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue
        if parent == os.getpid():
            found.append(int(folder.name))
    return found


def end_all() -> None:
    """Kills all descendants: what a killed one leaves behind becomes a child of this process, and is next."""
    while True:
        for pid in children():
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                continue
        try:
            os.waitpid(-1, 0)
        except OSError:
            return


def supervised(adopts: bool) -> None:
    """Returns in a child; this process waits for it, ends whatever it leaves behind, and exits as it did."""
    child = os.fork()
    if child == 0:
        return

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        if adopts:
            end_all()
        os._exit(128 + signal.SIGKILL)

    signal.signal(signal.SIGTERM, stop)
    while True:
        pid, status = os.wait()
        if pid == child:
            break
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if adopts:
        end_all()
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def started(settings: dict[str, Any]) -> None:
    """Puts on everything that the level asks for."""
    level = settings["level"]
    if level != "bubblewrap":
        import inside_kernel  # type: ignore[import-not-found]
        from inside_guard import install  # type: ignore[import-not-found]

        if level == "namespaces":
            inside_kernel.unshare()
            first = os.fork()  # the first process of the namespace: all others die with it
            if first:
                code = os.waitstatus_to_exitcode(os.waitpid(first, 0)[1])
                os._exit(code if code >= 0 else 128 - code)
            inside_kernel.die_with_parent()
            supervised(adopts=False)
            limit(settings["limits"])
            inside_kernel.landlock(settings["readable"], settings["listable"], settings["writable"])
            inside_kernel.drop_capabilities()
            inside_kernel.refuse_calls(bytes.fromhex(settings["refused"]))
        else:
            supervised(adopts=inside_kernel.adopt_orphans())
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            limit(settings["limits"])
        install(settings["readable"], settings["listable"], settings["writable"], settings["limits"]["forks"])
    elif settings["user"] is not None:
        os.setgroups([])
        os.setresgid(settings["user"], settings["user"], settings["user"])
        limit(settings["limits"])
        os.setresuid(settings["user"], settings["user"], settings["user"])
    else:
        limit(settings["limits"])


def main() -> None:
    """Becomes the program that the settings name."""
    settings = json.loads(Path(sys.argv[1]).read_text())
    os.umask(0o077)
    os.chdir(settings["box"])
    sys.path.insert(0, str(Path(__file__).parent))
    started(settings)
    del sys.path[0]
    script, *arguments = settings["argv"]
    path = str(Path(settings["box"]) / script)
    sys.argv[:] = [path, *arguments]
    sys.path[:] = [settings["box"], *sys.path, settings["granted"]]
    for name in ("inside_guard", "inside_kernel", "ctypes"):
        sys.modules.pop(name, None)
    program = ModuleType("__main__")
    program.__dict__.update(__file__=path, __builtins__=__builtins__)
    sys.modules["__main__"] = program
    os.write(settings["ready"], b"ready")
    os.close(settings["ready"])
    exec(compile(Path(path).read_bytes(), path, "exec", dont_inherit=True), program.__dict__)  # noqa: S102


if __name__ == "__main__":
    main()
