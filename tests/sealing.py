"""A process that can neither open a socket nor start another process, as in a sealed container.

    python tests/sealing.py predict -i images -o out

runs a command of AutoSpine so, on Linux with an x86-64 processor. The rules are a seccomp filter, by the
numbers of the system calls in Linux's `arch/x86/entry/syscalls/syscall_64.tbl`; they hold for all threads
that are started after it, and cannot be taken back.
"""

import ctypes
import errno
import struct
import subprocess
import sys

SOCKET, CLONE, FORK, VFORK, EXECVE, EXECVEAT, CLONE3 = 41, 56, 57, 58, 59, 322, 435
CLONE_THREAD = 0x10000
"""Flag of `clone` that makes a thread of the same process."""

ARCHITECTURE = 0xC000003E
"""`AUDIT_ARCH_X86_64`."""

LOAD, EQUAL, ANY_BIT, RETURN = 0x20, 0x15, 0x45, 0x06
"""Instructions of the Berkeley packet filter: load a word, jump where it is equal or shares a bit, return."""

NUMBER_AT, ARCHITECTURE_AT, FIRST_ARGUMENT_AT = 0, 4, 16
"""Offsets in `struct seccomp_data`."""

ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050000, 0x80000000

NO_NEW_PRIVILEGES, SET_SECCOMP, FILTER = 38, 22, 2
"""Arguments of `prctl`."""


class Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def seal() -> None:
    """Forbid sockets and new processes to this process for good; threads stay allowed.

    Raises:
        OSError: If the system does not take the filter.
    """
    refused = REFUSE | errno.EPERM
    rules = [
        (LOAD, 0, 0, ARCHITECTURE_AT),
        (EQUAL, 1, 0, ARCHITECTURE),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER_AT),
    ]
    for call in (SOCKET, FORK, VFORK, EXECVE, EXECVEAT):
        rules += [(EQUAL, 0, 1, call), (RETURN, 0, 0, refused)]
    # Its flags lie behind a pointer, which a filter cannot read; without it, libraries take `clone`.
    rules += [(EQUAL, 0, 1, CLONE3), (RETURN, 0, 0, REFUSE | errno.ENOSYS)]
    rules += [
        (EQUAL, 0, 3, CLONE),
        (LOAD, 0, 0, FIRST_ARGUMENT_AT),
        (ANY_BIT, 1, 0, CLONE_THREAD),
        (RETURN, 0, 0, refused),
        (RETURN, 0, 0, ALLOW),
    ]
    instructions = b"".join(struct.pack("=HBBI", *rule) for rule in rules)
    program = Program(len(rules), instructions)
    system = ctypes.CDLL(None, use_errno=True)
    for arguments in ((NO_NEW_PRIVILEGES, 1, 0, 0, 0), (SET_SECCOMP, FILTER, ctypes.byref(program), 0, 0)):
        if system.prctl(*arguments):
            raise OSError(ctypes.get_errno(), "prctl")


def is_sealed() -> bool:
    """Return whether neither a socket can be opened nor a process be started."""
    import socket

    for attempt in (lambda: socket.socket().close(), lambda: subprocess.run(["true"], check=False)):
        try:
            attempt()
        except PermissionError:
            continue
        return False
    return True


if __name__ == "__main__":
    seal()
    if not is_sealed():
        sys.exit("the process is not sealed")
    from autospine.cli import main

    sys.exit(main())
