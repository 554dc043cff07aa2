# SPDX-License-Identifier: GPL-2.0
"""Finds in a kernel's log what the kernel complains about."""

import re

# Any of these in the kernel's log means that something is wrong with it.
# "WARNING:" is what WARN() and lockdep begin a line with.
COMPLAINT = re.compile(r"""
    ^(?:\[[^]]*\]\s*)*                  # time stamp, caller
    (?: WARNING:\s
      | INFO:\stask\s.*\sblocked
      | INFO:\s.*\bstall
      | INFO:\strying\sto\sregister\snon-static\skey
      | INFO:\slockdep\sis\sturned\soff
      | Oops\b
      | general\sprotection\sfault
      | UBSAN:
      | rust_kernel:\spanicked
    )
  | \bBUG:\s
  | \bkernel\sBUG\sat\b
  | \bKernel\spanic\b
  | \brcu:\sINFO:
  | \bkmemleak:\s\d+\snew\ssuspected
  | \bsuspicious\sRCU\susage
  | \bunable\sto\shandle\s.*\bfault
""", re.VERBOSE)


def complaints(log):
    """Yields (line number, line) of what the kernel complained about."""
    with open(log, encoding="utf-8", errors="replace") as f:
        for number, line in enumerate(f, 1):
            if COMPLAINT.search(line):
                yield number, line.rstrip()
