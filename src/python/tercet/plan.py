# SPDX-License-Identifier: Apache-2.0
"""Compiled networks: what they cost, and runs of them."""
from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Sequence

import numpy
from numpy.typing import ArrayLike, NDArray

from . import _tercet
from ._settings import FilePath, option, program, source, table, warn, words

if TYPE_CHECKING:
    import pandas

    from .network import Network


class Plan:
    """An integer network with a width for each layer, as Network.compile makes it."""

    def __init__(self, inner: _tercet.Plan):
        self._inner = inner

    @property
    def network(self) -> "Network":
        from .network import Network
        return Network(self._inner.network)

    @property
    def widths(self) -> "pandas.DataFrame | list[dict[str, Any]]":
        """A row for each layer: its name, its type, the bits of its values, and whether they are proven to be enough
        (else they are measured)."""
        rows = [dict(zip(("layer", "type", "bits", "proven"), row)) for row in self._inner.widths]
        try:
            import pandas
        except ImportError:
            return rows
        return pandas.DataFrame(rows)

    @property
    def warnings(self) -> list[str]:
        """What whoever uses it should know: losses, and widths that are not proven."""
        return self._inner.warnings

    @property
    def only_class(self) -> bool:
        """Whether only the class leaves the network: logits are then 1 for it and 0 for the others."""
        return self._inner.only_class

    @property
    def report(self) -> dict[str, Any] | None:
        """What compiling has found; None of a network that was loaded compiled.

        images: how many were used. float_accuracy, integer_accuracy: in percent, 0 without labels. agreement: percent
        of the predictions that are the same. noise: in percent. logit_scale: a float logit is about an integer logit
        times this. lines: what `tercet compile` prints.
        """
        return self._inner.report

    def plain(self, images: ArrayLike | FilePath) -> NDArray[numpy.int64]:
        """Logits (N x classes) in the clear: what run gives, exactly. images: uint8, N x C x H x W."""
        return self._inner.plain(source(images, "images"))

    def costs(self, suite: str | Sequence[str] | None = None, link: str | Sequence[str] = "none",
              batch: int | Sequence[int] = 1, *, linear: str = "auto", public_weights: bool = False,
              optimise: str = "online", measured: Sequence[FilePath] = (), helper: int | None = None,
              data_owner: int | None = None, model_owner: int | None = None,
              receiver: int | None = None) -> "pandas.DataFrame | list[dict[str, Any]]":
        """What one query costs, layer by layer, without running it: the table that `tercet plan --csv` writes.

        suite: one or several ("auto", "lut", "fss", "aby3"; default: all private ones and auto). link: one or several
        of "none", "lan", "wan" or "rtt_ms=X,mbit=Y". batch: images a query, one or several. The settings are those of
        `tercet plan --help`. Columns: network, suite, batch, link, layer ("total" in the last row of each plan),
        width, choice (the layer's suite), hops, offline_bytes and online_bytes of all parties, offline_s and online_s
        as predicted. A pandas.DataFrame, or a list of dicts where there is no pandas.
        """
        given = option("suite", suite) + option("link", link) + option("batch", batch)
        return table(self._inner.costs_csv(given + words(Plan.costs, locals())))

    def run(self, images: ArrayLike | FilePath, suite: str = "lut", *, batch: int = 128, linear: str = "auto",
            public_weights: bool = False, optimise: str = "online", link: str = "none", transport: str = "memory",
            timeout: float = 30, stall_timeout: float = 600, check: bool = True, ahead: int = 0, in_flight: int = 1,
            helper_leaves: bool = False, rotate_helper: bool = False, helper: int | None = None,
            data_owner: int | None = None, model_owner: int | None = None,
            receiver: int | None = None) -> NDArray[numpy.int64]:
        """Secure inference by three parties on this machine: logits (N x classes), as the receiver learns them.

        images: uint8, N x C x H x W. transport: "memory" (three threads of this process), or "tls" or "tcp-insecure"
        (three processes, by the program `tercet`). check: compare with plain, and raise Error where logits differ.
        The other settings are those of `tercet run --help`. Only the defaults of transport and check have other forms
        there: tls, and --no-check.
        """
        return self._run(locals(), False)[0]

    def measure(self, images: ArrayLike | FilePath, suite: str = "lut", **settings: Any) -> dict[str, Any]:
        """A run, with the arguments of run, and what was measured: the report that `tercet run --json` writes, with
        bytes, hops and times of each layer, and predictions and logits."""
        unknown = set(settings) - set(Plan.run.__kwdefaults__)
        if unknown:
            raise TypeError(f"measure() got an unexpected keyword argument '{min(unknown)}'")
        given = {**Plan.run.__kwdefaults__, **settings}
        return json.loads(self._run(dict(given, images=images, suite=suite), True)[1])

    def _run(self, given: dict[str, Any], with_report: bool) -> tuple[NDArray[numpy.int64], str]:
        """Logits and report of a run with the arguments of run."""
        transport = given["transport"]
        settings = (option("suite", given["suite"]) + option("transport", transport) +
                    option("no_check", not given["check"]) + words(Plan.run, given, but=("transport", "check")))
        logits, warnings, report = self._inner.run(source(given["images"], "images"),
                                                   "" if transport == "memory" else program(), settings, with_report)
        warn(warnings, stacklevel=4)
        return logits, report

    def save(self, file: FilePath) -> None:
        """Writes the compiled model (.safetensors, for the owner alone): what --model of the commands takes."""
        self._inner.save(file)

    def __repr__(self) -> str:
        return f"<tercet.Plan {self._inner.network.name}: {len(self._inner.widths)} layers>"
