#!/usr/bin/env python3
"""Stops one thread of another process and lets the rest of it run: `stall.py PID THREAD-NAME`.

Prints `{"event": "stalled"}` once the thread stands, and lets it go on at the end of standard input or after 60 s. With `stop`
and `go` in the arguments (seconds), it stands and goes by turns. It is
ptrace(2) PTRACE_SEIZE and PTRACE_INTERRUPT, which stop a single thread where a signal would stop them all.
"""

import ctypes
import json
import os
import select
import sys
import time

PTRACE_CONT, PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT = 7, 17, 0x4206, 0x4207
WALL = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
LIBC.ptrace.restype = ctypes.c_long


def ptrace(request, thread):
    if LIBC.ptrace(request, thread, None, None) == -1:
        raise OSError(ctypes.get_errno(), f"ptrace {request:#x} of {thread}")


def thread_named(process, name):
    for thread in os.listdir(f"/proc/{process}/task"):
        with open(f"/proc/{process}/task/{thread}/comm", encoding="ascii") as comm:
            if comm.read().strip() == name:
                return int(thread)
    raise OSError(f"process {process} has no thread {name}")


def told(seconds):
    """Whether there is a word on standard input within this time."""
    return bool(select.select([sys.stdin], [], [], seconds)[0])


def main():
    # The first line on standard input belongs to the protocol of all clients.
    args = json.loads(sys.stdin.readline())
    try:
        thread = thread_named(sys.argv[1], sys.argv[2])
        ptrace(PTRACE_SEIZE, thread)
        ptrace(PTRACE_INTERRUPT, thread)
        os.waitpid(thread, WALL)
    except OSError as error:
        print(json.dumps({"error": str(error)}), flush=True)
        return
    print(json.dumps({"event": "stalled"}), flush=True)
    end = time.monotonic() + 60
    while not told(args.get("stop", 60)) and time.monotonic() < end:
        ptrace(PTRACE_CONT, thread)
        over = told(args["go"])
        ptrace(PTRACE_INTERRUPT, thread)
        os.waitpid(thread, WALL)
        if over:
            break
    ptrace(PTRACE_DETACH, thread)
    print(json.dumps({"result": {}}), flush=True)


if __name__ == "__main__":
    main()
