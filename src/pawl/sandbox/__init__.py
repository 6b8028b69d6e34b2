"""Runs generated Python code apart from everything else: `run(files, argv)`.

Each run is a process of its own with an empty environment but for five harmless variables, no file descriptors but
its three streams, a temporary folder as working folder, a wall timeout, capped output, and limits on processor time,
address space, file size, processes and open files. What keeps it in differs by level. The best that works on this
machine is taken; whether it works is found out once, by running something in it. `demand` names the least that will do.

`bubblewrap` (Linux with `bwrap`; the level to have). Namespaces of its own for files, network, processes and IPC.
    The code sees Python, the shared libraries, the packages it was granted, and a folder in memory of a fixed size;
    nothing else of the machine's files exists for it, no other process, no interface but a loopback that is down.
    All its processes die with it. Where Pawl runs as root the code runs as a user that nobody else is. On x86-64 and
    arm64 a filter refuses system calls that no such program needs: namespaces and mounts of its own, memory that
    belongs to no process, keyrings, looking into other processes, and more (`system_calls`).
    Not covered: faults of the kernel in the calls that are left; memory is limited by process, so all together can
    take `processes` times `memory`; side channels.

`namespaces` (Linux with unprivileged user namespaces and Landlock, without `bwrap`). No network, no other
    processes, and Landlock lets it read Python, the libraries and its packages alone, write in its folder alone and
    execute nothing. The same filter is on, and what root may do within namespaces is given up. The guard of the next
    level is there as well.
    Not covered, beyond the above: which files exist and how large they are (Landlock hides contents, not names that
    one asks for); sockets of other programs that lie in the file system, for code that calls the kernel without
    Python's `socket`; the disk, which many files can fill until the timeout; where Pawl runs as root the number of
    processes is limited for `os.fork` alone.

`guard` (anywhere else). The limits, and an audit hook that is installed before the code and refuses sockets, files
    outside, programs, `ctypes`, signals to others and more than so many forks. Functions of `os` and `signal` that
    Python announces to no hook are taken away. Whatever outlives the run is killed where Linux tells whose child it is.
    It stops accidents and what models are known to write. It does not stop an attack: an audit hook sees what Python
    announces, and code that reaches the kernel in another way (`_posixsubprocess.fork_exec`, an extension module,
    a crafted code object) or changes what the hook itself is made of (`builtins`, `posixpath`, the names in the frame
    of its traceback) is free to do what this user may. Names of files can be asked for; many files can fill the disk.
"""

from pawl.sandbox.levels import BEST_FIRST, Level, available, best, demand, is_enough, remedy, strongest
from pawl.sandbox.outcome import Limits, Outcome
from pawl.sandbox.process import run

__all__ = [
    "BEST_FIRST", "Level", "Limits", "Outcome", "available", "best", "demand", "is_enough", "remedy", "run",
    "strongest",
]  # fmt: skip
