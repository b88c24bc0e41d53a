# SPDX-License-Identifier: Apache-2.0
"""Three-party secure inference for small neural networks.

    import tercet
    network = tercet.from_torch(module, example)     # or tercet.from_onnx(file), tercet.load(json, weights)
    plan = network.compile(images, labels)           # uint8 arrays N x C x H x W, and N
    plan.costs(suite="auto", link="wan")             # a table; nothing is run
    logits = plan.run(images, suite="lut")           # three parties on this machine
    tercet.Client("deployment.json").predict("MnistNet3", images)

Settings have the names, defaults and meanings of the options of the command `tercet`, with `_` in
place of `-`, and what they refuse is refused with the same words (ConfigError). Warnings are
TercetWarning. Python's lock is not held while the library computes, and Ctrl-C ends it.
"""
from ._settings import TercetWarning
from ._tercet import (AbortError, ConfigError, Error, NetworkError, ProtocolError, ServiceError,
                      UnsupportedError)
from ._tercet import version as __version__
from .client import Client
from .network import Network, from_onnx, from_torch, load
from .plan import Plan

for _error in (AbortError, ConfigError, Error, NetworkError, ProtocolError, ServiceError, UnsupportedError):
    _error.__module__ = __name__  # where users know them from

__all__ = ["AbortError", "Client", "ConfigError", "Error", "Network", "NetworkError", "Plan", "ProtocolError",
           "ServiceError", "TercetWarning", "UnsupportedError", "from_onnx", "from_torch", "load", "__version__"]
