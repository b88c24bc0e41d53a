# SPDX-License-Identifier: Apache-2.0
"""How arrays and settings are told to the library."""
from __future__ import annotations

import csv
import inspect
import io
import os
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any, Callable, Union

import numpy

from . import _tercet

FilePath = Union[str, "os.PathLike[str]"]


class TercetWarning(UserWarning):
    """What the commands print as WARNING."""


def warn(texts: list[str], stacklevel: int = 3) -> None:
    for text in texts:
        warnings.warn(text, TercetWarning, stacklevel=stacklevel)


def source(array: Any, what: str) -> memoryview | str:
    """The name of a file or folder; what numpy.save writes of an array, or of what can become one: arrays are read as
    such files are."""
    if isinstance(array, (str, os.PathLike)):
        return os.fsdecode(array)
    file = io.BytesIO()
    try:
        numpy.lib.format.write_array(file, numpy.asarray(array), allow_pickle=False)
    except ValueError as error:
        raise _tercet.ConfigError(f"{what}: found {type(array).__name__}, expected an array of numbers") from error
    return file.getbuffer()


def words(function: Callable[..., Any], given: dict[str, Any], but: tuple[str, ...] = ()) -> list[str]:
    """The keyword-only arguments of `function` among `given`, all `but` those, as a command's options, without those
    that have their defaults."""
    result: list[str] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY and name not in but and given[name] != parameter.default:
            result += option(name, given[name])
    return result


def option(name: str, value: Any) -> list[str]:
    """max_bits=12 is --max-bits=12, True a flag, False and None nothing; numbers are a list with commas, and texts
    each an option."""
    flag = "--" + name.replace("_", "-")
    if value is None or value is False:
        return []
    if value is True:
        return [flag]
    if isinstance(value, (list, tuple)):
        if any(isinstance(each, (str, os.PathLike)) for each in value):
            return [f"{flag}={os.fspath(each)}" for each in value]
        return [f"{flag}={','.join(str(each) for each in value)}"]
    return [f"{flag}={os.fspath(value) if isinstance(value, os.PathLike) else value}"]


def table(text: str) -> Any:
    """Rows of CSV as a pandas.DataFrame or, where there is no pandas, as a list of dicts."""
    try:
        import pandas
    except ImportError:
        return [{key: number(cell) for key, cell in row.items()} for row in csv.DictReader(io.StringIO(text))]
    return pandas.read_csv(io.StringIO(text), keep_default_na=False, na_values=[""])


def number(cell: str) -> Any:
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            pass
    return cell or None


def program() -> str:
    """The program `tercet` that this package was built or installed with, else the first on the path."""
    package = Path(__file__).resolve().parent
    folders = [package.parents[3] / "bin", package.parents[1] / "bin", Path(sys.prefix) / "bin"]
    for folder in folders:
        if (folder / "tercet").is_file() and (folder / "tercet-party").is_file():
            return str(folder / "tercet")
    found = shutil.which("tercet")
    if found is None:
        raise _tercet.ConfigError(f"transport: the program tercet was not found in {folders[0]} or on the path; "
                                  "transport=\"memory\" needs none")
    return found
