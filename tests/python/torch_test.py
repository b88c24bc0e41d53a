# SPDX-License-Identifier: Apache-2.0
"""PyTorch modules become networks that compute what the modules compute."""
from package import Case, main, need, pictures

need("torch", "onnx")
import warnings

import numpy
import torch
from torch import nn

import tercet


class Residual(nn.Module):
    """Batch normalisation, a shortcut, and pools."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = nn.functional.max_pool2d(x, 2)
        x = torch.relu(x + self.bn2(self.conv2(x)))
        return self.fc(x.mean((2, 3)))


def modules():
    torch.manual_seed(3)
    lenet = nn.Sequential(nn.Conv2d(1, 4, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Flatten(),
                          nn.Linear(200, 10))
    mlp = nn.Sequential(nn.Flatten(), nn.Linear(49, 16), nn.ReLU(), nn.Linear(16, 5))
    residual = Residual()
    with torch.no_grad():  # statistics of their own, gamma of both signs
        for bn in (residual.bn1, residual.bn2):
            bn.running_mean.normal_(0, 0.1)
            bn.running_var.uniform_(0.5, 2)
            bn.weight.normal_(0.5, 1)
            bn.bias.normal_(0, 0.2)
    return {"lenet": (lenet, (1, 18, 18)), "mlp": (mlp, (1, 7, 7)), "residual": (residual, (3, 8, 8))}


def normalised(images):
    return torch.from_numpy(((images / 255 - 0.4) / 0.3).astype(numpy.float32))


class TorchTest(Case):
    def test_networks_compute_what_modules_compute(self):
        for name, (module, shape) in modules().items():
            with self.subTest(name):
                images = pictures(shape, 60)
                network = tercet.from_torch(module, torch.zeros(1, *shape), mean=0.4, std=0.3)
                self.assertEqual(network.name, type(module).__name__)
                self.assertEqual(network.input_shape, shape)
                with torch.no_grad():
                    expected = module.eval()(normalised(images)).numpy()
                numpy.testing.assert_allclose(network.float_logits(images), expected, rtol=1e-3, atol=1e-4)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", tercet.TercetWarning)
                    plan = network.compile(images, expected.argmax(1), accept_loss=True)
                self.assertGreater(plan.report["integer_accuracy"], 85)
                numpy.testing.assert_array_equal(plan.run(images[:5], batch=3), plan.plain(images[:5]))

    def test_the_module_is_left_as_it_was(self):
        module, shape = modules()["residual"]
        module.train()
        module.bn2.eval()
        before = {key: value.clone() for key, value in module.state_dict().items()}
        tercet.from_torch(module, numpy.zeros((2, *shape), numpy.uint8))
        self.assertTrue(module.training and module.bn1.training and not module.bn2.training)
        for key, value in module.state_dict().items():
            self.assertTrue(torch.equal(value, before[key]), key)

    def test_the_order_of_bits_and_latent_weights(self):
        torch.manual_seed(1)
        module = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))
        images = pictures((1, 4, 4), 30)
        network = tercet.from_torch(module, torch.zeros(1, 1, 4, 4), bits=1, binarise=["_1"], name="Latent")
        signs = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))
        signs.load_state_dict(module.state_dict())
        with torch.no_grad():
            signs[1].weight.copy_(torch.where(signs[1].weight >= 0, 1.0, -1.0))
            expected = signs(torch.from_numpy((images >= 128).astype(numpy.float32))).numpy()
        numpy.testing.assert_allclose(network.float_logits(images), expected, rtol=1e-4, atol=1e-5)
        self.assertEqual(network.name, "Latent")

    def test_what_no_network_can_say_is_refused(self):
        class Sine(nn.Module):
            def forward(self, x):
                return torch.sin(x).flatten(1)

        with self.assertRaisesRegex(tercet.ConfigError, "^module: found OrderedDict, expected a torch.nn.Module"):
            tercet.from_torch(nn.Linear(2, 2).state_dict(), torch.zeros(1, 2))
        with self.assertRaisesRegex(tercet.ConfigError, "^Sine node Sin"):
            tercet.from_torch(Sine(), torch.zeros(1, 1, 4, 4))


if __name__ == "__main__":
    main()
