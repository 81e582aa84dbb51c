import pytest
import torch
from torch import nn
from torch.nn import functional

from reid_tune.config.experiment import Experiment
from reid_tune.errors import InputError
from reid_tune.losses.training_loss import TrainingLoss, part_labels
from reid_tune.modeling.cost import model_cost
from reid_tune.modeling.network import ReIDNet, build_seeded_network
from reid_tune.modeling.parts import PerPart

from ..helpers.small_networks import SMALL_SWIN, SMALL_VIT
from .conftest import images, lively, model
from .test_backbone import gem_by_loops

# Backbone, rows of its last map for images of 64 x 32.
MAPS = [("test_resnet", 4), (SMALL_SWIN, 2), (SMALL_VIT, 4)]


def build(backbone: str, classes: int = 3, **values: object) -> ReIDNet:
    return lively(build_seeded_network(model(backbone, feat_dim=8, **{"parts": (1, 2)} | values), classes, 3))


def stripe_features(network: ReIDNet, backbone: str, pooling: str) -> list[torch.Tensor]:
    """Features [batch, C] of the whole map and of its halves, by slices of a map [batch, C, H, W]."""
    output = network.backbone(images())
    maps = output
    if backbone == SMALL_VIT:
        maps = output[:, 1:].transpose(1, 2).reshape(4, -1, 4, 2)
    elif backbone == SMALL_SWIN:
        maps = output.permute(0, 3, 1, 2)
    half = maps.shape[2] // 2
    stripes = [maps, maps[:, :, :half], maps[:, :, half:]]
    features = [gem_by_loops(stripe, 3) if pooling == "gem" else stripe.mean((2, 3)) for stripe in stripes]
    if backbone == SMALL_VIT and pooling == "avg":
        features[0] = output[:, 0]
    return features


@pytest.mark.parametrize("pooling", ["avg", "gem"])
@pytest.mark.parametrize(("backbone", "rows"), MAPS)
def test_each_stripe_has_its_pooling_projection_neck_and_classifier(backbone: str, rows: int, pooling: str) -> None:
    network = build(backbone, pooling=pooling)
    assert isinstance(network.projection, PerPart) and isinstance(network.classifier, PerPart)
    assert network.dimension == 24 and len(network.projection) == len(network.classifier) == 3
    assert sum(name.endswith("exponent") for name in network.state_dict()) == (3 if pooling == "gem" else 0)
    with torch.no_grad():
        features, rows_of_logits, parts = network.features(images()), [], []
        for index, feature in enumerate(stripe_features(network, backbone, pooling)):
            part = network.projection[index](feature)
            place = slice(8 * index, 8 * index + 8)
            torch.testing.assert_close(features[:, place], part, atol=1e-4, rtol=1e-4)
            assert isinstance(network.neck, nn.BatchNorm1d)
            scale = network.neck.weight[place] / (network.neck.running_var[place] + network.neck.eps).sqrt()
            parts.append((part - network.neck.running_mean[place]) * scale)
            rows_of_logits.append(parts[-1] @ network.classifier[index].weight.T)
        torch.testing.assert_close(network(images()), torch.cat(parts, 1), atol=1e-4, rtol=1e-4)
        expected = torch.stack(rows_of_logits, 1).flatten(0, 1)
        torch.testing.assert_close(network.logits(features), expected, atol=1e-4, rtol=1e-4)


def test_the_whole_image_alone_is_the_network_without_parts() -> None:
    plain, named = (build_seeded_network(model("test_resnet", **values), 3, 3) for values in ({}, {"parts": [1]}))
    assert plain.state_dict().keys() == named.state_dict().keys()
    assert all(torch.equal(plain.state_dict()[name], tensor) for name, tensor in named.state_dict().items())
    wide = build_seeded_network(model("test_resnet", parts=(1, 2)), 3, 3).state_dict()
    backbone = [name for name in wide if name.startswith("backbone.")]
    assert all(torch.equal(plain.state_dict()[name], wide[name]) for name in backbone)


@pytest.mark.parametrize("kind", ["softmax", "cosface"])
def test_the_identity_loss_is_the_mean_over_parts(kind: str) -> None:
    network, labels = build("test_resnet", id_loss_type=kind), torch.tensor([0, 0, 2, 2])
    experiment = Experiment(model=model("test_resnet", parts=(1, 2), id_loss_type=kind))
    with torch.no_grad():
        features = network.features(images())
        logits = network.logits(features)
        assert part_labels(labels, logits).tolist() == [0] * 6 + [2] * 6
        losses = TrainingLoss(experiment, 3, network.dimension)
        loss = losses(features, logits, labels)["identity"]
        rows = [logits[part::3] for part in range(3)]
        if losses.margin_softmax:
            rows = [losses.margin_softmax(part, labels) for part in rows]
        expected = [functional.cross_entropy(part, labels, label_smoothing=0.1) for part in rows]
        torch.testing.assert_close(loss, torch.stack(expected).mean())


def test_costs_count_all_parts() -> None:
    values = {"parts": (1, 2, 4), "feat_dim": 16}
    assert model_cost(Experiment(model=model("test_resnet", **values)))["embedding_dim"] == 112
    values["reduce_feat_dim"] = False
    cost = model_cost(Experiment(model=model("test_resnet", **values)))
    assert (
        cost["embedding_dim"]
        == 7 * model_cost(Experiment(model=model("test_resnet", reduce_feat_dim=False)))["embedding_dim"]
    )


def test_parts_that_do_not_divide_the_map_are_refused() -> None:
    message = (
        r"^model.parts = \[1, 2, 3\]: the last map of test_resnet has 4 rows at model.input_height = 64, which cannot "
        r"be divided into 3: choose other parts, or set model.input_height to a multiple of 96.$"
    )
    with pytest.raises(InputError, match=message):
        build("test_resnet", parts=(1, 2, 3))
    assert build_seeded_network(model("test_resnet", 96, 32, parts=(1, 2, 3)), 0, 0)


def test_a_backbone_without_map_and_tokens_is_refused() -> None:
    with pytest.raises(InputError, match=r"^model.parts = \[1, 2\]: .* ends neither in a map nor in tokens"):
        build("levit_128s", parts=(1, 2))
