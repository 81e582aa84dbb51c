import pytest
import torch

from reid_tune.modeling.classifier import CosineClassifier
from reid_tune.modeling.network import build_seeded_network

from .conftest import model


@pytest.mark.parametrize("centers", [1, 3])
def test_cosines_to_the_nearest_direction_of_each_identity(centers: int) -> None:
    torch.manual_seed(0)
    classifier, features = CosineClassifier(6, 4, centers), 5 * torch.randn(3, 6)
    assert classifier.weight.shape == (4 * centers, 6)
    expected = torch.empty(3, 4)
    for row, feature in enumerate(features):
        for identity in range(4):
            directions = classifier.weight[identity * centers : (identity + 1) * centers]
            cosines = [float((feature @ one / (feature.norm() * one.norm())).detach()) for one in directions]
            expected[row, identity] = max(cosines)
    torch.testing.assert_close(classifier(features).detach(), expected)


@pytest.mark.parametrize("kind", ["arcface", "cosface", "circle"])
def test_the_classifier_follows_the_identity_loss(kind: str) -> None:
    network = build_seeded_network(model(id_loss_type=kind, sub_centers=2, neck=""), 5, seed=1)
    assert isinstance(network.classifier, CosineClassifier)
    assert float(network.classifier.weight.detach().norm(dim=1).mean()) == pytest.approx(1, abs=0.1)
    assert network.logits(torch.randn(3, 256)).abs().max() <= 1
    linear = build_seeded_network(model(neck=""), 5, seed=1).state_dict()
    same = network.state_dict().keys() - {"classifier.weight"}
    assert same == linear.keys() - {"classifier.weight", "classifier.bias"}
    assert all(torch.equal(network.state_dict()[name], linear[name]) for name in same)
