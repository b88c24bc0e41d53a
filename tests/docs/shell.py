# SPDX-License-Identifier: Apache-2.0
"""What the tests share that type the commands of pages: a fresh copy of the project, and a shell in it."""
import re
import shutil
import subprocess
import sys


def copy_tree(source, scratch):
    """What a clone would have, and what is not committed yet."""
    shutil.rmtree(scratch, ignore_errors=True)
    names = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=source, check=True,
                           capture_output=True, text=True).stdout.splitlines()
    for name in names:
        if not (source / name).is_file():
            continue
        target = scratch / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source / name, target)


class Shell:
    """One shell for all blocks, as a reader has one."""

    def __init__(self, directory):
        self.process = subprocess.Popen(["bash"], cwd=directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True)

    def type(self, commands):
        """Exit status of the last command, and all that they said."""
        self.process.stdin.write(commands + "\necho \"end of block $?\"\n")
        self.process.stdin.flush()
        said = []
        for line in self.process.stdout:
            if match := re.fullmatch(r"end of block (\d+)\n", line):
                return int(match[1]), "".join(said)
            print(line, end="", flush=True)
            said.append(line)
        sys.exit("the shell ended")
