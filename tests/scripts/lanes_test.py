# SPDX-License-Identifier: Apache-2.0
"""benchmarks/lanes.py: one lane is what one can reckon by hand, and docs/service.md quotes what it prints."""
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks/lanes.py"

spec = importlib.util.spec_from_file_location("lanes", SCRIPT)
lanes = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lanes)
costs = SimpleNamespace(batch_ms=4, image_ms=1, max_batch=64)
# One lane's clients all wait together: batches of 5 filled to 8, of 64, and of 64 while 6 wait for the next.
for clients, expected in ((5, 5 / 12), (64, 64 / 68), (70, 64 / 68)):
    got = lanes.images_a_second(1, clients, costs) / 1000
    assert abs(got / expected - 1) < 0.01, (clients, got, expected)

printed = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, check=True).stdout.splitlines()
quoted = [line.strip() for line in (ROOT / "docs/service.md").read_text().splitlines()]
assert len(printed) == 6
at = quoted.index(printed[0])
assert quoted[at:at + 6] == printed, printed
