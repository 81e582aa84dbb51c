"""Devices of tasks and of option --device."""

import pytest
import torch

from reid_tune.errors import InputError
from reid_tune.training.devices import default_device, parse_device


@pytest.mark.parametrize(("gpus", "expected"), [(0, "cpu"), (1, "cuda:0"), (4, "cuda:0")])
def test_the_default_is_the_first_gpu_or_the_cpu(monkeypatch: pytest.MonkeyPatch, gpus: int, expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert default_device() == parse_device("auto") == torch.device(expected)
    assert parse_device("cpu") == torch.device("cpu")


def test_names_choose_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [parse_device(name) for name in ("cuda", "cuda:1")] == [torch.device("cuda", index) for index in (0, 1)]
    with pytest.raises(InputError, match="--device asks for GPU 2, but this machine has 2"):
        parse_device("cuda:2")
    with pytest.raises(InputError, match="--device gpu is not one of auto, cpu, cuda and cuda:N"):
        parse_device("gpu")
