# SPDX-License-Identifier: GPL-2.0
"""What the programs here that boot guests have in common."""

import os
import sys
import threading
import time

TOOLS = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
REPO = os.path.dirname(os.path.dirname(TOOLS))
BUILD = os.environ.get("CDM_BUILD") or os.path.join(REPO, "build")
CACHE = os.environ.get("CDM_CACHE") or os.path.join(
    os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "cdm")
# For those who import this: how a guest is made, and its kernel's log read
sys.path.append(os.path.join(TOOLS, "guest"))
START = int(os.environ.setdefault("CDM_START", str(int(time.time()))))

# So many guests run at a time: an emulated one keeps one or two CPUs busy, mostly one.
GUESTS = int(os.environ.get("CDM_GUESTS") or max(2, os.cpu_count() or 1))


def stage(message):
    t = int(time.time()) - START
    # In one piece: two lanes of guests may say something at once.
    print(f"[{t // 60:3}:{t % 60:02}] {message}\n", end="", file=sys.stderr, flush=True)


def kselftest_programs(installed):
    """The programs of installed kselftests."""
    with open(os.path.join(installed, "kselftest-list.txt"), encoding="ascii") as f:
        return [line.strip().partition(":")[2] for line in f]


def guest_options(programs):
    """The options of tools/cdm/vm for each of these kselftest programs."""
    options = {}
    for directory in ("tools/testing/selftests/cdm", "tools/cdm/cli"):
        with open(os.path.join(REPO, directory, "guests"), encoding="ascii") as f:
            for line in f:
                words = line.partition("#")[0].split()
                if words:
                    options[words[0]] = tuple(words[1:])
    return {program: options.get(program, options["*"]) for program in programs}


def in_groups(programs, options, most):
    """(options, programs) of guests: even shares of what runs in the same, at most so many."""
    groups = {}
    for program in programs:
        groups.setdefault(options[program], []).append(program)
    for vm_options, group in groups.items():
        shares = -(-len(group) // most)
        yield from ((vm_options, group[i::shares]) for i in range(shares))


def in_lanes(work, run):
    """run(item) for each item of work, some at a time; it may add to work."""
    def lane():
        while True:
            try:
                item = work.pop(0)
            except IndexError:
                return
            run(item)

    lanes = [threading.Thread(target=lane) for _ in range(GUESTS)]
    for thread in lanes:
        thread.start()
    for thread in lanes:
        thread.join()
