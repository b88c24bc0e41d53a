#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Types the commands of docs/add-a-protocol.md, as they stand, in a copy of the tracked files.

  type_page.py SOURCE SCRATCH    builds in SCRATCH, which is made anew

Of each block of commands the test knows what its last command must say and how it must end.
"""
import pathlib
import re
import shutil
import sys

from shell import Shell, copy_tree

SUCCESS = 0
REFUSED = 2  # the exit status for what is unsupported
FAILED = 1
# By heading and number of the block below it: exit status, and patterns that must be in what it says.
EXPECTED = {
    ("Before: build once", 1): (SUCCESS, []),
    ("Step 1: a suite that can do nothing", 1): (REFUSED, ["my first protocol", "suite mine can do nothing yet"]),
    ("Step 2: the right answer", 1): (
        FAILED, ["sent a message that the plan does not have"]),
    ("Step 3: say what it costs", 1): (SUCCESS, ["mine"]),
    ("Step 3: say what it costs", 2): (SUCCESS, ["PASSED"]),
    ("Step 4: keep the secret", 1): (SUCCESS, ["mine", "fss"]),
    ("Let the tests attack it", 1): (SUCCESS, ["PASSED"]),
    ("Let the tests attack it", 2): (SUCCESS, ["PASSED"]),
}
# What the page asks readers to try at its end.
FAULT = r"""
sed -i 's/ - masks\[i\]//' protocols/common/dealer/steps.h
cmake --build --preset release --target conformance_pinned_layers_test
build/release/tests/conformance_pinned_layers_test --gtest_brief=1 --gtest_filter='Suites/PinnedLayers.*/0'
"""
FAULT_FOUND = "party 1: none has a mask of its own: offline layer 1 message 0 from party 2"


def blocks(page):
    """(heading, number below it, commands) of each block that is marked as sh."""
    heading, number, lines = "", 0, None
    for line in page.read_text(encoding="utf-8").splitlines():
        if lines is not None:
            if line == "```":
                yield heading, number, "\n".join(lines)
                lines = None
            # What it installs takes rights and a network that a test does not have.
            elif not line.startswith("scripts/install-dependencies"):
                lines.append(line)
        elif line == "```sh":
            number, lines = number + 1, []
        elif match := re.match(r"## (.*)", line):
            heading, number = match[1], 0


def main():
    source, scratch = (pathlib.Path(argument).resolve() for argument in sys.argv[1:])
    copy_tree(source, scratch)
    shell = Shell(scratch)
    left = dict(EXPECTED)
    for heading, number, commands in blocks(scratch / "docs" / "add-a-protocol.md"):
        print(f"\n== {heading}, block {number}", flush=True)
        status, patterns = left.pop((heading, number))
        found, said = shell.type(commands)
        missing = [pattern for pattern in patterns if not re.search(pattern, said)]
        if found != status or missing:
            sys.exit(f"{heading}, block {number}: exit status {found}, expected {status}; not said: {missing}")
    if left:
        sys.exit(f"not on the page: {sorted(left)}")
    status, said = shell.type(FAULT)
    if status == SUCCESS or FAULT_FOUND not in said:
        sys.exit(f"the planted fault: exit status {status}, expected the test to say: {FAULT_FOUND}")
    shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
