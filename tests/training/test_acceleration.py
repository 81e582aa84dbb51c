"""Conditions under which the backbone is compiled or recorded, and the calls of PyTorch that do it."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from reid_tune.modeling.network import ReIDNet, build_seeded_network
from reid_tune.training import acceleration
from reid_tune.training.acceleration import make_feature_function

from .conftest import Build

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")


def network_on(device: torch.device, build: Build) -> ReIDNet:
    """Network that claims to be on a device and stays on the CPU."""
    network = build_seeded_network(build().model, 4, seed=0)
    network.parameters = lambda: iter([SimpleNamespace(device=device)])  # type: ignore[method-assign, assignment]
    return network


@pytest.mark.parametrize(
    ("compile", "device", "steps", "compiler", "expected"),
    [
        (False, GPU, 10**6, "gcc", False),
        (True, CPU, 1, None, True),
        ("auto", GPU, 5000, "gcc", True),
        ("auto", GPU, 4999, "gcc", False),
        ("auto", GPU, 5000, None, False),
        ("auto", CPU, 5000, "gcc", False),
    ],
)
def test_when_the_backbone_is_compiled(
    build: Build,
    monkeypatch: pytest.MonkeyPatch,
    compile: bool | str,
    device: torch.device,
    steps: int,
    compiler: str | None,
    expected: bool,
) -> None:
    monkeypatch.setattr(acceleration, "find_compiler", lambda _: compiler)
    monkeypatch.setattr(torch, "compile", lambda function, **options: ("compiled", function, options))
    network = network_on(device, build)
    function: Any = make_feature_function(network, build(train__compile=compile), steps)
    if expected:
        assert function == ("compiled", network.features, {"dynamic": False})
    else:
        assert function == network.features


def test_graphs_are_recorded_once_and_leave_the_network_as_it_was(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recording is a stand-in that runs the network a few times, as PyTorch's recording does."""
    network, recorded = network_on(GPU, build), []
    network.train()
    static = torch.zeros(8, 32)

    def record(module: torch.nn.Module, samples: tuple[torch.Tensor, ...], *, allow_unused_input: bool) -> Any:
        for _ in range(3):
            module(*samples)
        assert not torch.is_autocast_cache_enabled()
        recorded.append(samples[0].shape)

        def replay(images: torch.Tensor) -> torch.Tensor:
            static.copy_(module(images).detach())
            return static

        return replay

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", record)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda _: torch.get_rng_state())
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, _: torch.set_rng_state(state))
    images = torch.randn(8, 3, 32, 16)
    features = make_feature_function(network, build(train__cuda_graphs=True), 1)
    torch.manual_seed(0)
    first = features(images)
    assert torch.equal(torch.rand(1), torch.rand(1, generator=torch.Generator().manual_seed(0)))
    counts = {int(value) for name, value in network.named_buffers() if "num_batches" in name and "neck" not in name}
    assert counts == {1}, "the runs of the recording do not count"
    second = features(images + 1)
    assert recorded == [images.shape] and not torch.equal(first, second), "a replay does not overwrite earlier features"
