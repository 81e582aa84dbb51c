import pytest
import torch
from torch import nn

from reid_tune.config.model import Model
from reid_tune.config.train import Optim
from reid_tune.errors import InputError
from reid_tune.modeling.network import ReIDNet, build_network
from reid_tune.optim.optimizer import make_optimizer
from reid_tune.optim.parameter_rates import rate_factors
from reid_tune.optim.schedule import set_learning_rate

from ..helpers.small_networks import SMALL_SWIN, SMALL_VIT


def network(backbone: str = "resnet18", size: int = 32) -> ReIDNet:
    return build_network(Model(backbone=backbone, input_height=size, input_width=size), classes=5)


def test_the_rate_falls_from_layer_to_layer() -> None:
    """A ResNet-18 has a stem and eight blocks: the order is read off the names."""
    made = network()
    factors = rate_factors(made, Optim(layer_decay=0.5, backbone_lr_factor=0.2))
    blocks = [f"layer{stage}.{block}." for stage in range(1, 5) for block in range(2)]
    for name, factor in factors.items():
        number = next((i for i, block in enumerate(blocks, 1) if f"backbone.{block}" in name), 0)
        assert factor == pytest.approx(0.2 * 0.5 ** (len(blocks) + 1 - number)), name
    assert set(factors) == {name for name, _ in made.named_parameters() if name.startswith("backbone.")}


@pytest.mark.parametrize("backbone", [SMALL_VIT, SMALL_SWIN])
def test_a_transformer_has_a_layer_order(backbone: str) -> None:
    made = network(backbone)
    factors = rate_factors(made, Optim(layer_decay=0.5))
    assert max(factors.values()) == 0.5 and factors["backbone.norm.weight"] == 0.5
    first = next(value for name, value in factors.items() if "patch_embed" in name)
    assert first == min(factors.values()) < 0.25


def test_without_a_factor_all_rates_and_groups_are_as_before() -> None:
    made = network()
    groups = make_optimizer(made, Optim(bias_lr_factor=2.0)).param_groups
    assert {group["lr_factor"] for group in groups} == {1.0} and len(groups) == 2


@pytest.mark.parametrize("method", ["linear", "cosine"])
def test_every_rate_of_the_schedule_has_the_factor(method: str) -> None:
    plain, tuned = Optim(warmup_method=method), Optim(warmup_method=method, layer_decay=0.7, backbone_lr_factor=0.3)
    made = network()
    for epoch in (0, 5, 25, 80):
        rates = []
        for optim in (plain, tuned):
            optimizer = make_optimizer(made, optim)
            set_learning_rate(optimizer, optim, epoch, 90, [])
            rates.append({id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]})
        factors = rate_factors(made, tuned)
        for name, parameter in made.named_parameters():
            if parameter.requires_grad:
                expected = rates[0][id(parameter)] * factors.get(name, 1.0)
                assert rates[1][id(parameter)] == pytest.approx(expected), name


def test_norms_biases_and_tables_can_be_without_decay() -> None:
    for backbone in ("resnet18", SMALL_VIT, SMALL_SWIN):
        made = network(backbone)
        optim = Optim(weight_decay=0.1, weight_decay_bias=0.2, decay_norms=False)
        exempt = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm)
        norms = {id(p) for module in made.modules() if isinstance(module, exempt) for p in module.parameters()}
        decays = {
            id(p): group["weight_decay"] for group in make_optimizer(made, optim).param_groups for p in group["params"]
        }
        for name, parameter in made.named_parameters():
            if parameter.requires_grad:
                is_exempt = id(parameter) in norms or name.endswith(("bias", "bias_table", "pos_embed", "cls_token"))
                assert decays[id(parameter)] == (0 if is_exempt else 0.1), name


def test_nesterov_steps_by_its_rule() -> None:
    holder = nn.Linear(1, 1, bias=False)
    nn.init.constant_(holder.weight, 2.0)
    optimizer = make_optimizer(holder, Optim(name="SGD", base_lr=0.1, weight_decay=0, momentum=0.5, nesterov=True))
    expected, momentum = 2.0, 0.0
    for gradient in (1.0, 3.0, -2.0):
        holder.weight.grad = torch.full_like(holder.weight, gradient)
        optimizer.step()
        momentum = 0.5 * momentum + gradient
        expected -= 0.1 * (gradient + 0.5 * momentum)
    assert float(holder.weight.detach()) == pytest.approx(expected, abs=1e-6)


def test_a_network_without_a_layer_order_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    made = network()
    monkeypatch.setattr(type(made.backbone), "group_matcher", None)
    with pytest.raises(InputError, match="layer_decay needs a layer order, and timm has none for a ResNet"):
        make_optimizer(made, Optim(layer_decay=0.9))
