# SPDX-License-Identifier: Apache-2.0
"""The client of a prediction service."""
from __future__ import annotations

from pathlib import Path

import numpy
from numpy.typing import ArrayLike, NDArray

from . import _tercet
from ._settings import FilePath, source, words


class Client:
    """A client of the three servers of a deployment, none of which sees an image or an answer.

    deployment: the file that describes them. token_file: the client's token (default: client.token beside the
    deployment, where there is one); or in its place certificate and key. May be used by several threads, whose
    queries are asked one after the other.
    """

    def __init__(self, deployment: FilePath, *, token_file: FilePath | None = None,
                 certificate: FilePath | None = None,
                 key: FilePath | None = None):
        beside = Path(deployment).with_name("client.token")
        if token_file is None and certificate is None and key is None and beside.is_file():
            token_file = beside
        self._inner = _tercet.Client(deployment, words(Client.__init__, locals()))

    def logits(self, model: str, images: ArrayLike | FilePath, *, model_version: str | None = None, batch: int = 1,
               tries: int = 8) -> NDArray[numpy.int64]:
        """Logits (N x classes) of a model that the servers have; of one that gives only the class 1 for it and 0 for
        the others.

        images: uint8, N x C x H x W. model_version: the last one by default. batch: images a query. tries: how often
        one query is tried, each time as a new one, and the model looked up.
        """
        return self._inner.logits(model, source(images, "images"), words(Client.logits, locals()))

    def predict(self, model: str, images: ArrayLike | FilePath, *, model_version: str | None = None, batch: int = 1,
                tries: int = 8) -> NDArray[numpy.int64]:
        """The classes (N) of images; the arguments are those of logits."""
        return self.logits(model, images, model_version=model_version, batch=batch, tries=tries).argmax(axis=1)
