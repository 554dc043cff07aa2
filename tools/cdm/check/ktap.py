# SPDX-License-Identifier: GPL-2.0
"""Reads KTAP, as KUnit and the kselftests print it."""

import re
from dataclasses import dataclass

RESULT = re.compile(r"^(\s*)(not )?ok\b\s*(\d+)?\s*(?:-\s*)?(.*)$")
PLAN = re.compile(r"^(\s*)1\.\.(\d+)")
CONTEXT = 60    # lines of diagnostics kept for a failure


@dataclass
class Case:
    name: str
    result: str     # passed, failed, skipped
    diagnostics: list[str]


def parse(lines, prefix):
    """The test cases in lines; PREFIX goes before their names.

    A result line is one case, unless it closes a block of indented results:
    then those are the cases. A block that promised more results than came is
    a failed case, and so is a block that failed though no case in it did.
    """
    cases = []
    levels = {}     # indentation: [cases so far, failed so far, plan]
    since = []      # the lines since the last result

    def level(indent):
        return levels.setdefault(indent, [0, 0, None])

    def close(indent):
        count, failed, plan = levels.pop(indent)
        if plan is not None and count < plan:
            cases.append(Case(f"{prefix}: {count} of {plan} tests ran", "failed", list(since)))
            failed += 1
        return count, failed

    for line in lines:
        plan = PLAN.match(line)
        if plan:
            level(len(plan[1]))[2] = int(plan[2])
            continue
        match = RESULT.match(line)
        if not match:
            since.append(line)
            continue
        indent = len(match[1])
        inner = [close(i) for i in sorted(levels, reverse=True) if i > indent]
        name, directive = re.match(r"(.*?)(?:(?:^|\s)#\s+(.*))?$", match[4]).groups(default="")
        directive = directive.upper()
        failed = bool(match[2])
        here = level(indent)
        here[0] += 1
        here[1] += failed
        if failed and not any(f for _, f in inner) or not sum(c for c, _ in inner):
            result = "failed" if failed else \
                "skipped" if directive.startswith(("SKIP", "XFAIL")) else "passed"
            cases.append(Case(f"{prefix}: {name.strip() or match[3] or '?'}", result,
                              since[-CONTEXT:] if result != "passed" else []))
        since = []
    for indent in sorted(levels, reverse=True):
        close(indent)
    return cases
