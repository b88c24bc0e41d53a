#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Says where the processor's time of a query goes, by what the functions do that perf finds at work.

    benchmarks/profile.py --bin build/release/bin [--suite SUITE] [--batch N] [--queries N] [NETWORK ...]

Prints a Markdown table: milliseconds of processor time an image, of all three parties together and with their setup,
and last what an image takes by the clock without it. NETWORK is a file in nets; a compiled model beside it is used, else
random weights. Each is run with TLS and without: what libcrypto does without are the pseudorandom functions. Needs perf
(Debian: linux-perf), and leave to use it (root, or a kernel.perf_event_paranoid of at most 1).
"""
import argparse
import collections
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PARTY = "tercet-party"

# Copies, allocation, and wiping what was secret, whoever asks for it.
COPIES = r"memmove|memcpy|memset|malloc|free|calloc|chunk|page_fault|clear_page|cleanse|memzero|madvise|mmap|munmap|brk"
# What a function of ours does: the first row whose pattern is found in its name.
WORK = [
    ("packing", r"\b(Pack|Unpack|PackRows|UnpackRows)\b"),
    ("products", r"Product|linear::|GatherWindows"),
    ("pseudorandom functions", r"Prf|FixedKey|DrawB|DrawRho"),
    ("activations", r"(lut|fss|aby3|cbnn|dealer|ot3)::|Select|GreaterRows|Boolean|Adder|Rows"),
    ("messages", r"asio|net::"),
]
ROWS = ["products", "activations", "packing", "pseudorandom functions", "TLS", "messages", "copies", "else"]


def profile(arguments, network, transport):
    """Milliseconds an image by what is done, and by the clock."""
    base = ROOT / "nets" / f"{network}.json"
    model = base.with_suffix(".compiled.safetensors")
    with tempfile.TemporaryDirectory() as directory:
        data, report = Path(directory) / "perf.data", Path(directory) / "report.json"
        command = ["perf", "record", "-e", "cpu-clock", "-F", str(arguments.frequency), "-o", data, "--",
                   arguments.bin / "tercet", "run", base, "--model", model if model.exists() else "random",
                   "--batch", arguments.batch, "--limit", arguments.batch * arguments.queries, "--suite", arguments.suite,
                   "--transport", transport, "--no-check", "--json", report]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{network}: {done.stderr.strip()[-2000:]}")
        script = subprocess.run(["perf", "script", "-i", data, "--comm", PARTY, "-F", "ip,sym,dso"], check=True,
                                capture_output=True, text=True).stdout
        found = json.loads(report.read_text())
    images = arguments.batch * arguments.queries
    spent = collections.Counter()
    for line in script.splitlines():
        match = re.match(r"\s*[0-9a-f]+ (.*) \(([^()]*)\)$", line)
        if match:
            spent[work_of(*match.groups())] += 1000 / arguments.frequency / images
    return spent, 1000 * found["time"]["total_s"] / images


def work_of(symbol, library):
    if re.search(COPIES, symbol):
        return "copies"
    if "libcrypto" in library:
        return "libcrypto"
    if "libssl" in library:
        return "TLS"
    if "kernel" in library or "vdso" in library:
        return "messages"
    if "libsodium" in library:
        return "pseudorandom functions"
    for work, pattern in WORK:
        if re.search(pattern, symbol):
            return work
    return "else"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=Path, default=ROOT / "build/release/bin", help="where tercet is")
    parser.add_argument("--suite", default="lut")
    parser.add_argument("--batch", type=int, default=1, help="images a query")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--frequency", type=int, default=1997, help="samples a second and processor")
    parser.add_argument("networks", nargs="*", default=["mnistnet3"], metavar="NETWORK")
    arguments = parser.parse_args()
    print("| network | suite | batch | " + " | ".join(ROWS) + " | by the clock |")
    print("|" + "---|" * (len(ROWS) + 4))
    for network in arguments.networks:
        with_tls, clock = profile(arguments, network, "tls")
        without, _ = profile(arguments, network, "tcp-insecure")
        with_tls["pseudorandom functions"] += without["libcrypto"]
        with_tls["TLS"] += max(0, with_tls["libcrypto"] - without["libcrypto"])
        print(f"| {network} | `{arguments.suite}` | {arguments.batch} | "
              + " | ".join(f"{with_tls[row]:.3g}" for row in ROWS) + f" | {clock:.3g} |", flush=True)


if __name__ == "__main__":
    main()
