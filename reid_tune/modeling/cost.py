"""Cost of a deployed model, computed from its spec alone."""

from functools import lru_cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from reid_tune.config.experiment import Experiment
from reid_tune.config.model import Model
from reid_tune.modeling.network import build_seeded_network

__all__ = ["COST_FIELDS", "model_cost", "network_cost"]

# Fields of the section `model` that the cost depends on; the others set losses, dropout and what is loaded.
COST_FIELDS = tuple(
    sorted(
        Model.model_fields.keys()
        - {
            "pretrain_choice",
            "pretrained_model_path",
            "pretrain_hw_ratio",
            "no_margin",
            "metric_loss_type",
            "with_center_loss",
            "label_smooth",
            "label_smoothing",
            "id_loss_type",
            "sub_centers",
            "dropout_rate",
            "drop_path",
            "drop_out",
            "att_drop_rate",
        }
    )
)


def model_cost(experiment: Experiment) -> dict[str, float]:
    """Return the cost of the network as it is deployed, without classifier, for one image of the spec's size.

    The network is built on PyTorch's meta device, without weights; results are cached by the fields of the section
    `model` that they depend on.

    Returns:
        `gflops`, 1e9 floating point operations of convolutions, linear layers and attention, a multiplication and its
        addition being two (papers often count them as one); `parameters`, all weights, trained or not, without the
        statistics of batch norms; `embedding_dim`.

    Raises:
        InputError: The backbone's name is wrong, or it does not support the size or another value of the spec.
    """
    return network_cost(experiment.model)


def network_cost(model: Model) -> dict[str, float]:
    """Return the cost of the network of a section `model`, see `model_cost`."""
    return dict(_cost(Model(**{name: getattr(model, name) for name in COST_FIELDS})))


@lru_cache(maxsize=16_384)
def _cost(model: Model) -> dict[str, float]:
    with torch.device("meta"):
        # Without gradients, which the counter would otherwise follow.
        network = build_seeded_network(model, 0, 0).eval().requires_grad_(False)
        image = torch.empty(1, model.input_channels, model.input_height, model.input_width)
    with FlopCounterMode(display=False) as counter:
        network(image)
    return {
        "gflops": counter.get_total_flops() / 1e9,
        "parameters": float(sum(weights.numel() for weights in network.parameters())),
        "embedding_dim": float(network.dimension),
    }
