"""Compares answers with references by math-verify, a JSON line at a time; started as a script.

It imports nothing of this library. Each comparison has a time of its own on the processor, so that
what times out depends little on what else the machine does.
"""

import json
import logging
import os
import resource
import signal
import sys


class _Timeout(BaseException):
    pass


def _stop(*_):
    raise _Timeout


def _verdict(gold, target):
    from math_verify import parse, verify

    # The limits are main's own: math-verify's would use the clock.
    known = parse(gold, parsing_timeout=None)  # type: ignore[arg-type]
    if not known:
        return "reference cannot be read"
    said = parse(target, parsing_timeout=None)  # type: ignore[arg-type]
    if not said:
        return "answer cannot be read"
    return "right" if verify(known, said, timeout_seconds=None) else "wrong answer"


def main(seconds, memory):
    """Reads ``[reference, answer]`` from each line, writes what it found."""
    resource.setrlimit(resource.RLIMIT_AS, (memory * 2**20, memory * 2**20))
    logging.disable(logging.CRITICAL)
    import math_verify  # noqa: F401

    signal.signal(signal.SIGPROF, _stop)
    print(json.dumps("ready"), flush=True)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # nobody reads what packages say there
    for line in sys.stdin:
        gold, target = json.loads(line)
        try:
            # It fires again, should something swallow it.
            signal.setitimer(signal.ITIMER_PROF, seconds, 0.5)
            try:
                found = _verdict(gold, target)
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
        except _Timeout:
            found = "timed out"
        except MemoryError:
            found = "out of memory"
        except Exception:
            found = "answer cannot be compared"
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
