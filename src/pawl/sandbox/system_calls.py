"""Which system calls generated code may not make, as a filter of Linux (seccomp, mode 2).

Namespaces and limits leave out what this closes: memory that belongs to no process (System V shared memory, memfd),
keyrings of whoever started Pawl, namespaces of one's own, and the parts of the kernel that have had most faults and
that no generated program needs. Numbers: the kernel's tables for x86-64 and arm64.
"""

from __future__ import annotations

import errno
import platform
import struct
import sys
from typing import NamedTuple

_SHARED = {
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428, "move_mount": 429,
    "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433, "pidfd_getfd": 438, "mount_setattr": 442,
    "memfd_secret": 447,
}  # fmt: skip
_X86_64 = {
    "shmget": 29, "semget": 64, "msgget": 68, "ptrace": 101, "syslog": 103, "personality": 135, "modify_ldt": 154,
    "pivot_root": 155, "chroot": 161, "acct": 163, "mount": 165, "umount2": 166, "swapon": 167, "swapoff": 168,
    "reboot": 169, "iopl": 172, "ioperm": 173, "init_module": 175, "delete_module": 176, "quotactl": 179,
    "mq_open": 240, "kexec_load": 246, "add_key": 248, "request_key": 249, "keyctl": 250, "migrate_pages": 256,
    "unshare": 272, "move_pages": 279, "perf_event_open": 298, "fanotify_init": 300, "open_by_handle_at": 304,
    "setns": 308, "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312, "finit_module": 313,
    "memfd_create": 319, "kexec_file_load": 320, "bpf": 321, "userfaultfd": 323,
}  # fmt: skip
_ARM64 = {
    "umount2": 39, "mount": 40, "pivot_root": 41, "chroot": 51, "quotactl": 60, "acct": 89, "personality": 92,
    "unshare": 97, "kexec_load": 104, "init_module": 105, "delete_module": 106, "syslog": 116, "ptrace": 117,
    "reboot": 142, "mq_open": 180, "msgget": 186, "semget": 190, "shmget": 194, "add_key": 217, "request_key": 218,
    "keyctl": 219, "swapon": 224, "swapoff": 225, "migrate_pages": 238, "move_pages": 239, "perf_event_open": 241,
    "fanotify_init": 262, "open_by_handle_at": 265, "setns": 268, "process_vm_readv": 270, "process_vm_writev": 271,
    "kcmp": 272, "finit_module": 273, "memfd_create": 279, "bpf": 280, "userfaultfd": 282, "kexec_file_load": 294,
}  # fmt: skip
_CLONE3 = 435  # its flags lie in memory, where a filter cannot look: said not to exist, so that `clone` is taken
_NEW_NAMESPACES = 0x7E02_0080  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET, NEWTIME
_X32 = 0x4000_0000  # x86-64's second table of calls


class Machine(NamedTuple):
    """What of a kind of processor a filter goes by."""

    audit: int  # the kernel's word for it
    refused: dict[str, int]
    clone: int
    highest: int  # numbers from here on are another table


_MACHINES = {
    "x86_64": Machine(0xC000_003E, _X86_64 | _SHARED, 56, _X32),
    "aarch64": Machine(0xC000_00B7, _ARM64 | _SHARED, 220, 1 << 31),
}
# Berkeley packet filter: load a word, jumps, return. linux/bpf_common.h
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _AUDIT, _FIRST_ARGUMENT = 0, 4, 16  # where they stand in struct seccomp_data; both machines are little-endian
_ALLOW, _ERROR = 0x7FFF_0000, 0x0005_0000


def program(machine: str = "") -> bytes:
    """The filter for a kind of processor, this one if not given: struct sock_filter, one after the other.

    Empty where no table is known for it, or where Python is of 32 bits: then nothing is filtered.
    """
    made = _MACHINES.get(machine or {"amd64": "x86_64", "arm64": "aarch64"}.get(_here(), _here()))
    if made is None or sys.maxsize < 2**32:
        return b""
    refuse = (_RETURN, 0, 0, _ERROR | errno.EPERM)
    lines = [(_LOAD, 0, 0, _AUDIT), (_EQUAL, 1, 0, made.audit), refuse, (_LOAD, 0, 0, _NUMBER)]
    lines += [(_AT_LEAST, 0, 1, made.highest), refuse]
    for number in sorted(made.refused.values()):
        lines += [(_EQUAL, 0, 1, number), refuse]
    lines += [(_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _ERROR | errno.ENOSYS)]
    lines += [(_EQUAL, 0, 3, made.clone), (_LOAD, 0, 0, _FIRST_ARGUMENT), (_ANY_BIT, 0, 1, _NEW_NAMESPACES), refuse]
    lines += [(_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


def _here() -> str:
    return platform.machine().lower() if sys.platform.startswith("linux") else ""
