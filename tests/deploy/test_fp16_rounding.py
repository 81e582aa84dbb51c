from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from reid_tune.deploy.fp16_rounding import round_to_fp16
from reid_tune.modeling.network import ReIDNet


class Small(nn.Module):
    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        random = np.random.default_rng(0)
        self.weight = nn.Parameter(torch.tensor(random.normal(size=(6, 12)), dtype=torch.float32))
        self.register_buffer("scale", torch.tensor(scale))

    def forward(self, images: Tensor) -> Tensor:
        hidden = torch.relu(images.flatten(1) @ self.weight.T) * self.scale
        return (hidden + 0.1) / self.scale


def half(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return values.astype(np.float16).astype(np.float32)


def test_weights_and_every_result_are_rounded() -> None:
    network = Small(scale=0.3)
    images = torch.tensor(np.random.default_rng(1).normal(size=(5, 3, 2, 2)), dtype=torch.float32)
    scale = half(np.float32(0.3))
    product = half(half(images.numpy()).reshape(5, 12) @ half(network.weight.detach().numpy()).T)
    hidden = half(np.maximum(product, 0) * scale)
    wanted = half(half(hidden + np.float32(0.1)) / scale)
    before = network.weight.detach().clone()
    with torch.no_grad():
        found = round_to_fp16(cast(ReIDNet, network))(images).numpy()
        assert not np.array_equal(found, network(images).numpy())
    np.testing.assert_allclose(found, wanted, rtol=1e-3)  # a sum in another order may round to the next value
    assert np.mean(found == wanted) > 0.9
    assert torch.equal(network.weight, before)


def test_a_value_beyond_the_range_is_infinite() -> None:
    network, images = Small(scale=1e5), torch.ones(1, 3, 2, 2)
    with torch.no_grad():
        assert torch.isfinite(network(images)).all()
        assert not torch.isfinite(round_to_fp16(cast(ReIDNet, network))(images)).all()
