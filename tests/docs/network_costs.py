#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares hops and bytes in the table of docs/networks.md with what `tercet plan` says of each network.

  network_costs.py SOURCE TERCET

Networks that are shipped with a compiled model have its widths, others 28 bits in every layer where they have ReLU or
square, else 14, as the page says.
"""
import json
import pathlib
import re
import subprocess
import sys
import tempfile

COLUMNS = {"lut": (5, 6), "fss": (7, 8)}  # hops and bytes


def size(count):
    """With three digits, as in 63.6 kB."""
    for factor, unit in ((10**6, "MB"), (10**3, "kB")):
        if count >= factor:
            value = count / factor
            return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {unit}"
    return f"{count} B"


def costs(tercet, architecture, suites):
    """Hops and bytes by suite, as the page writes them."""
    model = architecture.with_suffix(".compiled.safetensors")
    wide = re.search(r'"(relu|square)"', architecture.read_text(encoding="utf-8"))
    widths = ["--model", model] if model.exists() else ["--bits", "28" if wide else "14"]
    with tempfile.TemporaryDirectory() as folder:
        report = pathlib.Path(folder) / "plans.json"
        subprocess.run([tercet, "plan", architecture, *widths, "--suite", ",".join(suites), "--summary", "--json",
                        report], check=True, stdout=subprocess.DEVNULL)
        plans = json.loads(report.read_text(encoding="utf-8"))["plans"]
    return {plan["suite"]: (str(plan["hops"]["online"]),
                            " + ".join(size(sum(plan["bytes"][phase])) for phase in ("offline", "online")))
            for plan in plans}


def main():
    source, tercet = pathlib.Path(sys.argv[1]), sys.argv[2]
    networks = {}
    for file in sorted((source / "nets").glob("*.json")):
        if file.name != "network.schema.json":
            networks[json.loads(file.read_text(encoding="utf-8"))["name"]] = file
    wrong = []
    for line in (source / "docs" / "networks.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) != 9 or cells[0] not in networks:
            continue
        planned = costs(tercet, networks.pop(cells[0]), COLUMNS)
        for suite, columns in COLUMNS.items():
            said = tuple(cells[column] for column in columns)
            if said != planned[suite]:
                wrong.append(f"{cells[0]}, {suite}: {said} on the page, {planned[suite]} planned")
    wrong += [f"{name}: not on the page" for name in networks]
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
