#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes each C++ source that a page has its readers type to a file.

  page_sources.py PAGE DIRECTORY    writes DIRECTORY/step1.cpp and so on, and leaves what has not changed
"""
import pathlib
import re
import sys

page, directory = map(pathlib.Path, sys.argv[1:])
sources = re.findall(r"<<'CPP'\n(.*?)^CPP$", page.read_text(encoding="utf-8"), re.M | re.S)
if not sources:
    sys.exit(f"{page}: no C++ source found")
directory.mkdir(parents=True, exist_ok=True)
for number, source in enumerate(sources, 1):
    file = directory / f"step{number}.cpp"
    if not file.exists() or file.read_text(encoding="utf-8") != source:
        file.write_text(source, encoding="utf-8")
