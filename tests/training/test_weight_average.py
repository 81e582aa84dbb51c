from pathlib import Path

import pytest
import torch

from reid_tune.checkpoints.checkpoint import load_checkpoint
from reid_tune.modeling.network import build_seeded_network
from reid_tune.training import loop
from reid_tune.training.weight_average import WeightAverage

from .conftest import Build, Recorder


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.999])
def test_the_average_is_that_of_the_formula(build: Build, decay: float) -> None:
    network = build_seeded_network(build().model, 2, seed=0).train()
    average = WeightAverage(network, decay)
    expected = {name: value.double() for name, value in network.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    for number in range(1, 5):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator))
            network(torch.randn(4, 3, 32, 16, generator=generator))
        average.update(number)
        kept = min(decay, (1 + number) / (10 + number))
        for name, value in network.state_dict().items():
            is_count = name.endswith("num_batches_tracked")
            expected[name] = value if is_count else kept * expected[name] + (1 - kept) * value.double()
    state = average.network.state_dict()
    assert state.keys() == expected.keys() and not average.network.training and network.training
    for name, value in expected.items():
        torch.testing.assert_close(state[name].double(), value.double(), atol=1e-5, rtol=1e-5, msg=name)


def test_the_average_is_validated_and_saved_as_the_model(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    validated = []
    original = loop.make_embed_function
    monkeypatch.setattr(
        loop, "make_embed_function", lambda network, spec: validated.append(network) or original(network, spec)
    )
    values = {"dataset__validation": "holdout", "train__num_epochs": 1, "train__optim__warmup_iters": 0}
    plain = load_checkpoint(loop.train(build(**values), Recorder(), tmp_path / "plain").checkpoint)
    averaged = load_checkpoint(
        loop.train(build(**values, train__ema_decay=0.9), Recorder(), tmp_path / "averaged").checkpoint
    )
    state = validated[-1].state_dict()
    assert all(torch.equal(averaged.model[name], value) for name, value in state.items())
    assert all(torch.equal(averaged.trained_model[name], value) for name, value in plain.model.items())
    assert not torch.equal(averaged.model["classifier.weight"], plain.model["classifier.weight"])
    assert plain.trained_model == {} and averaged.history[0]["loss"] == plain.history[0]["loss"]


def test_a_run_can_start_and_stop_to_average(build: Build, tmp_path: Path) -> None:
    """The steps continue with the trained weights, and an average begins with the model."""
    last = load_checkpoint(loop.train(build(train__ema_decay=0.9), Recorder(), tmp_path / "a").checkpoint)
    without = build(train__num_epochs=4)
    network = loop.create_or_resume(without, tmp_path / "a", loop.CPU, None).final_network
    assert all(torch.equal(network.state_dict()[name], value) for name, value in last.trained_model.items())
    loop.train(build(), Recorder(), tmp_path / "b")
    state = loop.create_or_resume(build(train__ema_decay=0.9), tmp_path / "b", loop.CPU, None)
    assert state.average is not None and state.final_network is state.average.network is not state.network
    for one, other in zip(state.network.parameters(), state.final_network.parameters(), strict=True):
        assert torch.equal(one, other)
