# SPDX-License-Identifier: Apache-2.0
"""A client in Python of three real servers gets the plain logits, and is refused as `tercet predict` is."""
import sys

from package import NETS, ROOT, SKIPPED

sys.path.insert(0, str(ROOT / "tests" / "serve"))
import numpy

import service_test
import tercet


def refuses(kind, expected, function, *arguments, **settings):
    try:
        function(*arguments, **settings)
    except kind as error:
        assert expected in str(error), (expected, str(error))
    else:
        raise AssertionError(f"expected {kind.__name__}: {expected}")


def check(service, directory):
    plain = service.draw(20)
    service.put()
    plan = tercet.load(NETS / "mnistnet3.json", NETS / "mnistnet3.compiled.safetensors").compile()
    images = service_images(directory)
    assert plan.plain(images).tolist() == plain

    client = tercet.Client(service.deployment, token_file=service.token)
    for settings in ({}, {"batch": 7}, {"model_version": "1", "tries": 2}):
        assert client.logits("MnistNet3", images, **settings).tolist() == plain, settings
    assert client.predict("MnistNet3", images).tolist() == numpy.argmax(plain, axis=1).tolist()

    refuses(tercet.ConfigError, "--token-file: expected, or --certificate and --key", tercet.Client, service.deployment)
    (service.deployment.parent / "client.token").write_bytes(service.token.read_bytes())
    (service.deployment.parent / "client.token").chmod(0o600)
    assert tercet.Client(service.deployment).logits("MnistNet3", images[:2]).tolist() == plain[:2]
    refuses(tercet.ConfigError, "none.json", tercet.Client, directory / "none.json", token_file=service.token)
    refuses(tercet.ConfigError, "--batch", client.logits, "MnistNet3", images, batch=0)
    refuses(tercet.ConfigError, "images", client.logits, "MnistNet3", images[:, :, :5])
    refuses(tercet.ServiceError, "None", client.logits, "None", images)
    wrong = directory / "wrong"
    wrong.write_text("0" * 32 + "\n")
    wrong.chmod(0o600)
    refuses(tercet.ServiceError, "Unauthorized", tercet.Client(service.deployment, token_file=wrong).logits,
            "MnistNet3", images[:1])
    for n in range(3):
        service.kill(n)
    refuses(tercet.NetworkError, "server", client.logits, "MnistNet3", images[:1], tries=1)


def service_images(directory):
    """The digits that the service drew, an IDX file: 16 bytes of header, then the pixels."""
    return numpy.frombuffer((directory / "images").read_bytes()[16:], numpy.uint8).reshape(-1, 1, 28, 28)


if __name__ == "__main__":
    try:
        tercet.Client(ROOT / "README.md")
    except tercet.UnsupportedError as error:
        print(f"skipped: {error}")
        sys.exit(SKIPPED)
    except tercet.ConfigError:
        pass
    service_test.run(check)
