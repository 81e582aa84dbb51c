import pytest
import torch
from torch import nn

from reid_tune.config.model import Model
from reid_tune.config.train import OPTIMIZERS, Optim
from reid_tune.modeling.network import ReIDNet, build_network
from reid_tune.optim.optimizer import make_optimizer

OPTIM = Optim(base_lr=0.1, bias_lr_factor=3, weight_decay=0.01, weight_decay_bias=0.02)


def settings(network: nn.Module, optim: Optim) -> dict[str, tuple[float, float]]:
    """Rate and weight decay of every parameter by name."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return {
        names[id(parameter)]: (group["initial_lr"], group["weight_decay"])
        for group in make_optimizer(network, optim).param_groups
        for parameter in group["params"]
    }


def network(**values: object) -> ReIDNet:
    return build_network(Model(backbone="resnet18", input_height=32, input_width=16, **values), classes=5)


def test_biases_have_their_own_rate_and_decay() -> None:
    found = settings(network(), OPTIM)
    assert found["backbone.conv1.weight"] == pytest.approx((0.1, 0.01))
    assert found["backbone.bn1.weight"] == pytest.approx((0.1, 0.01)), "no exemption for norms"
    assert found["backbone.bn1.bias"] == pytest.approx((0.3, 0.02))
    assert found["projection.bias"] == pytest.approx((0.3, 0.02))
    assert found["classifier.weight"] == pytest.approx((0.1, 0.01))


def test_names_decide_what_a_bias_is() -> None:
    swin = build_network(Model(backbone="swin_tiny_patch4_window7_224", input_height=32, input_width=32))
    found = settings(swin, OPTIM)
    tables = [setting for name, setting in found.items() if "relative_position_bias_table" in name]
    assert len(tables) == 12 and all(setting == pytest.approx((0.3, 0.02)) for setting in tables)


def test_large_fc_lr_doubles_the_rate_of_the_classifier() -> None:
    large = OPTIM.model_copy(update={"large_fc_lr": True})
    found = settings(network(neck=""), large)
    assert found["classifier.weight"] == pytest.approx((0.2, 0.01))
    assert found["classifier.bias"] == pytest.approx((0.2, 0.02))
    assert found["projection.bias"] == pytest.approx((0.3, 0.02))


def test_each_parameter_that_learns_is_in_one_group() -> None:
    made = network()
    grouped = [parameter for group in make_optimizer(made, OPTIM).param_groups for parameter in group["params"]]
    learning = [parameter for name, parameter in made.named_parameters() if name != "neck.bias"]
    assert len(grouped) == len(learning) and {id(p) for p in grouped} == {id(p) for p in learning}


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD"])
def test_an_optimizer_steps_by_its_rule(name: str) -> None:
    """Two steps with the gradient 1 on a parameter of 2, by the published update rules."""
    holder = nn.Linear(1, 1, bias=False)
    nn.init.constant_(holder.weight, 2.0)
    optimizer = make_optimizer(holder, Optim(name=name, base_lr=0.1, weight_decay=0.01, momentum=0.5))
    assert type(optimizer) is getattr(torch.optim, name)
    expected, momentum, first, second = 2.0, 0.0, 0.0, 0.0
    for step in (1, 2):
        holder.weight.grad = torch.ones_like(holder.weight)
        optimizer.step()
        gradient = 1.0 if name == "AdamW" else 1.0 + 0.01 * expected
        if name == "SGD":
            momentum = gradient if step == 1 else 0.5 * momentum + gradient
            expected -= 0.1 * momentum
            continue
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        expected *= 1 - 0.1 * 0.01 if name == "AdamW" else 1
        expected -= 0.1 * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)) ** 0.5 + 1e-8)
    assert float(holder.weight.detach()) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("skipped", [0, 1])
def test_a_scaled_sgd_steps_as_one_without_scaling_does(skipped: int) -> None:
    """Two steps with other gradients; `skipped` steps before them have gradients that are not finite."""

    def stepped(scale: float | None) -> torch.Tensor:
        holder = nn.Linear(3, 2, bias=False)
        nn.init.constant_(holder.weight, 2.0)
        optim = Optim(name="SGD", base_lr=0.1, weight_decay=0.01, momentum=0.5)
        optimizer = make_optimizer(holder, optim, scaled=scale is not None)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale or 1.0, enabled=scale is not None)
        for gradient in (*[torch.inf] * (skipped if scale else 0), 1.0, 3.0):
            optimizer.zero_grad()
            scaler.scale(gradient * holder.weight.sum()).backward()
            scaler.step(optimizer)
            scaler.update(scale)
        assert optimizer.defaults["fused"]
        return holder.weight.detach()

    torch.testing.assert_close(stepped(8.0), stepped(None))


def test_the_spec_knows_every_optimizer_of_torch_that_can_train_a_network() -> None:
    """LBFGS wants a closure, SparseAdam sparse gradients, Muon matrices alone."""
    classes = {name: kind for name, kind in vars(torch.optim).items() if isinstance(kind, type)}
    there = {name for name, kind in classes.items() if issubclass(kind, torch.optim.Optimizer)}
    assert there - {"Optimizer", "LBFGS", "SparseAdam", "Muon"} == set(OPTIMIZERS)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_moves_the_weights_its_own_way(name: str) -> None:
    holder, plain = nn.Linear(3, 2), nn.Linear(3, 2)
    plain.load_state_dict(holder.state_dict())
    settings = Optim(name=name, base_lr=0.01, weight_decay=0.1, weight_decay_bias=0.1, momentum=0.9)
    extra = {} if name == "Rprop" else {"weight_decay": 0.1}
    if name == "SGD":
        extra["momentum"] = 0.9
    ours, theirs = make_optimizer(holder, settings), getattr(torch.optim, name)(plain.parameters(), lr=0.01, **extra)
    before = holder.weight.detach().clone()
    for _ in range(3):
        for network, optimizer in ((holder, ours), (plain, theirs)):
            optimizer.zero_grad()
            network(torch.ones(1, 3)).square().sum().backward()
            optimizer.step()
    assert not torch.equal(holder.weight, before)
    torch.testing.assert_close(holder.weight, plain.weight)
    torch.testing.assert_close(holder.bias, plain.bias)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_first_step_that_a_scaler_skips_leaves_no_trace(name: str) -> None:
    networks = [nn.Linear(100, 100) for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    optimizers = [make_optimizer(network, Optim(name=name, base_lr=0.01), scaled=True) for network in networks]
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale(networks[0](torch.ones(1, 100)).sum()).backward()
    networks[0].weight.grad = torch.full_like(networks[0].weight, torch.inf)
    scaler.step(optimizers[0])
    scaler.update()
    for network, optimizer in zip(networks, optimizers, strict=True):
        optimizer.zero_grad()
        network(torch.ones(1, 100)).sum().backward()
        optimizer.step()
    torch.testing.assert_close(networks[0].weight, networks[1].weight)
