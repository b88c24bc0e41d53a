# SPDX-License-Identifier: Apache-2.0
"""Architectures with their weights."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any, Sequence

import numpy
from numpy.typing import ArrayLike, NDArray

from . import _tercet
from ._settings import FilePath, source, warn, words
from .plan import Plan

if TYPE_CHECKING:
    import torch


class Network:
    """An architecture with its weights, as load, from_onnx and from_torch make it."""

    def __init__(self, inner: _tercet.Network):
        self._inner = inner

    @property
    def name(self) -> str:
        return self._inner.name

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return self._inner.input_shape

    @property
    def classes(self) -> int:
        return self._inner.classes

    @property
    def architecture(self) -> str:
        """The architecture as JSON (nets/network.schema.json describes it)."""
        return self._inner.architecture

    @property
    def notes(self) -> list[str]:
        """What the importer wants to be known."""
        return self._inner.notes

    def compile(self, images: ArrayLike | FilePath | None = None, labels: ArrayLike | FilePath | None = None, *,
                max_loss: float = 0.1, max_noise: float = 10, max_bits: int = 32, min_agreement: float = 98,
                accept_loss: bool = False, activation_bits: int = 8, norm_scale: float = 0, widths: str = "proven",
                head_room: int = 2, output: str | None = None) -> Plan:
        """Turns float weights into an integer network with a width for each layer, as `tercet compile` does.

        images: training images to choose the widths with (uint8, N x C x H x W, or N x H x W of one channel); without
        any, widths keep what the weights need. labels: their classes (integers, N), to report accuracies. Both may be
        names of files or folders, as --images and --labels of the commands take them. The settings are those of
        `tercet compile --help`.

        Of a network that was loaded compiled it takes no argument, and gives that.
        """
        inner = self._inner.compile(None if images is None else source(images, "images"),
                                    None if labels is None else source(labels, "labels"),
                                    words(Network.compile, locals()))
        warn(inner.warnings)
        return Plan(inner)

    def plain(self, images: ArrayLike | FilePath) -> NDArray[numpy.int64]:
        """Logits (N x classes) of the integer network that compile() without images gives, in the clear.

        images: uint8, N x C x H x W. Of a plan see Plan.plain.
        """
        return self.compile().plain(images)

    def float_logits(self, images: ArrayLike | FilePath) -> NDArray[numpy.float32]:
        """Logits (N x classes) of the float network. images: uint8, N x C x H x W."""
        return self._inner.float_logits(source(images, "images"))

    def save(self, architecture: FilePath, weights: FilePath) -> None:
        """Writes the architecture (JSON) and the float weights (.safetensors, for their owner alone)."""
        self._inner.save(architecture, weights)

    def __repr__(self) -> str:
        channels, height, width = self.input_shape
        return f"<tercet.Network {self.name}: images {channels} x {height} x {width}, {self.classes} classes>"


def _make(inner: _tercet.Network) -> Network:
    warn(inner.remarks, stacklevel=4)
    return Network(inner)


def load(architecture: FilePath, weights: FilePath) -> Network:
    """A network of files: its architecture (nets/*.json) and its weights, as --model of the commands takes them:
    float or compiled (.safetensors), or "random" or "random:SEED"."""
    return Network(_tercet.load(architecture, weights))


def from_onnx(model: FilePath, *, name: str | None = None, shape: Sequence[int] | None = None,
              binarise: Sequence[str] = (), scale: float = 255, mean: float = 0, std: float = 1, bits: int = 8) -> Network:
    """A network of an ONNX file, as `tercet import` makes it.

    name: the network's (default: of the file's name). shape: channels, height and width of the images, where the
    model does not say. A pixel p of 0..255, rounded to `bits` bits, enters as (p / scale - mean) / std. binarise:
    layers whose weights are latent; their signs are taken.
    """
    return _make(_tercet.from_onnx(model, words(from_onnx, locals())))


def from_torch(module: "torch.nn.Module", example: Any, *, name: str | None = None,
               shape: Sequence[int] | None = None, binarise: Sequence[str] = (), scale: float = 255, mean: float = 0,
               std: float = 1, bits: int = 8) -> Network:
    """A network of a PyTorch module in evaluation mode, by way of torch.onnx.export.

    example: a batch that the module takes: a tensor or an array N x C x H x W, of which only the shape counts. The
    other arguments are those of from_onnx; without a name the network gets that of the module's class. The module is
    left as it was.
    """
    from ._torch import export
    given = dict(locals(), name=name or type(module).__name__)
    return _make(_tercet.parse_onnx(export(module, example), type(module).__name__, words(from_torch, given)))
