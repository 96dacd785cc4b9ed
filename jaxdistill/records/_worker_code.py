"""Runs a program from standard input without network, without writing, within limits.

Started as a script by :mod:`jaxdistill.records.programs`; it imports nothing of this library. It
lays limits on itself and becomes the Python that runs the program, which cannot take them off: the
kernel lets it make only the system calls below (a seccomp filter) and gives no privileges anew.
"""

import ctypes
import errno
import os
import resource
import struct
import sys

# Calls of Linux on x86-64 by which Python reads files, has memory and threads, and tells the time.
_CALLS = (
    0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 17, 19, 20, 21, 22, 23, 24, 25, 28,
    32, 33, 35, 37, 38, 39, 59, 60, 63, 72, 78, 79, 89, 96, 97, 98, 99, 100, 102, 104, 107, 108,
    110, 131, 158, 186, 202, 204, 217, 218, 228, 229, 230, 231, 232, 233, 262, 267, 269, 270, 271,
    273, 281, 290, 291, 292, 293, 318, 324, 332, 334, 436, 439,
)  # fmt: skip
_OPEN, _OPENAT, _CLONE, _CLONE3, _PRLIMIT = 2, 257, 56, 435, 302
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_THREAD = 0x10000
_MACHINE, _OTHER_CALLS = 0xC000003E, 0x40000000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_KILL, _REFUSE, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000


def _filter():
    """Instructions ``(code, jump if true, jump if false, value)``."""
    no = (_RETURN, 0, 0, _REFUSE | errno.EACCES)
    yes = (_RETURN, 0, 0, _ALLOW)

    def argument(number):
        return (_LOAD, 0, 0, 16 + 8 * number)

    program = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, _MACHINE), (_RETURN, 0, 0, _KILL)]
    program += [(_LOAD, 0, 0, 0), (_AT_LEAST, 0, 1, _OTHER_CALLS), (_RETURN, 0, 0, _KILL)]
    for call, place in ((_OPEN, 1), (_OPENAT, 2)):
        program += [(_EQUAL, 0, 4, call), argument(place), (_ANY_BIT, 0, 1, _WRITING), no, yes]
    program += [(_EQUAL, 0, 4, _CLONE), argument(0), (_ANY_BIT, 1, 0, _THREAD), no, yes]
    # Without it the C library takes the older call, whose flags can be seen.
    program += [(_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _REFUSE | errno.ENOSYS)]
    high = (_LOAD, 0, 0, 16 + 8 * 2 + 4)
    program += [(_EQUAL, 0, 6, _PRLIMIT), argument(2), (_EQUAL, 0, 3, 0), high]
    program += [(_EQUAL, 0, 1, 0), yes, no]
    for call in _CALLS:
        program += [(_EQUAL, 0, 1, call), yes]
    return [*program, no]


def confine():
    """Lays the filter on this process and all that it becomes.

    Raises:
        OSError: if this kernel or machine cannot do so.
    """
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        raise OSError("programs can be confined on Linux on x86-64 only")
    packed = b"".join(struct.pack("HBBI", *each) for each in _filter())
    held = ctypes.create_string_buffer(packed)
    head = struct.pack("HxxxxxxQ", len(packed) // 8, ctypes.addressof(held))
    whole = ctypes.create_string_buffer(head)
    library = ctypes.CDLL(None, use_errno=True)
    word = ctypes.c_ulong
    for option, first, second in ((38, 1, 0), (22, 2, ctypes.addressof(whole))):
        if library.prctl(option, word(first), word(second), word(0), word(0)):
            raise OSError(ctypes.get_errno(), "this kernel confines no programs")


def main(seconds, memory, confined):
    """Lays all limits on this process, and becomes the program's Python."""
    limits = {
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_AS: memory * 2**20,
        resource.RLIMIT_FSIZE: 2**20,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
    }
    for limit, value in limits.items():
        resource.setrlimit(limit, (value, value))
    if confined:
        confine()
    os.execve(sys.executable, [sys.executable, "-I", "-B", "-"], {"LANG": "C.UTF-8"})


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "confined")
