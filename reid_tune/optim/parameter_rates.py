"""Learning-rate factor of each parameter, for fine-tuning, and the parameters without weight decay."""

from timm.models import group_parameters
from torch import nn

from reid_tune.config.train import Optim
from reid_tune.errors import InputError

__all__ = ["decays_weights", "rate_factors"]

_BACKBONE = "backbone."


def rate_factors(network: nn.Module, optim: Optim) -> dict[str, float]:
    """Return the factor on the learning rate of each parameter of the backbone by name, of the others nothing.

    With N layers in timm's order, of which the first has number 0, layer i has backbone_lr_factor layer_decay^(N - i).

    Raises:
        InputError: `layer_decay` is below 1, and the backbone has no layer order.
    """
    backbone = getattr(network, "backbone", None)
    if backbone is None:
        return {}
    names = [name for name, _ in backbone.named_parameters()]
    layers = _number_layers(backbone) if optim.layer_decay < 1 else dict.fromkeys(names, 0)
    count = max(layers.values(), default=0) + 1
    return {_BACKBONE + name: optim.backbone_lr_factor * optim.layer_decay ** (count - layers[name]) for name in names}


def decays_weights(network: nn.Module, name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter has a weight decay with `decay_norms: false`.

    Norms, other vectors, biases, and what timm leaves out for this backbone, such as position tables, have none.
    """
    if parameter.ndim <= 1 or "bias" in name:
        return False
    exempt: set[str] = getattr(getattr(network, "backbone", None), "no_weight_decay", set)()
    return name.removeprefix(_BACKBONE) not in exempt


def _number_layers(backbone: nn.Module) -> dict[str, int]:
    """Return the number of the layer of each parameter by name, from 0 at the input."""
    matcher = getattr(backbone, "group_matcher", None)
    layers: dict[str, int] = {}
    if matcher is not None:
        try:
            layers = group_parameters(backbone, matcher(coarse=False), reverse=True)
        except (AssertionError, NotImplementedError):  # of timm's families without an order
            layers = {}
    if not any(layers.values()):
        raise InputError(
            f"train.optim.layer_decay needs a layer order, and timm has none for a {type(backbone).__name__}: set "
            "train.optim.layer_decay to 1, or use train.optim.backbone_lr_factor."
        )
    return layers
