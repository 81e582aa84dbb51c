from functools import cache

import pytest
import torch
from torch import Tensor, nn

from reid_tune.errors import InputError
from reid_tune.modeling.network import build_network, build_seeded_network

from ..helpers.small_networks import SMALL_SWIN
from .conftest import MOBILE, SWIN, VIT, images, lively, model

OWN = {"resnet18": 512, "resnet_50": 2048, SMALL_SWIN: 192, VIT: 192, MOBILE: 1024}
FAMILIES = ["resnet18", SMALL_SWIN, VIT, MOBILE]


@pytest.mark.parametrize(
    ("backbone", "feat_dim", "reduce", "dimension", "projects"),
    [
        ("resnet18", 256, None, 256, True),
        ("resnet18", 512, None, 512, False),
        ("resnet18", 256, False, 512, False),
        ("resnet18", 512, True, 512, True),
        ("resnet_50", 256, None, 256, True),
        ("resnet_50", 2048, None, 2048, False),
        ("resnet_50", 256, False, 256, True),
        ("resnet_50", 2048, True, 2048, False),
        (SMALL_SWIN, 1024, None, 1024, True),
        (SMALL_SWIN, 1024, False, 192, False),
        (SMALL_SWIN, 192, None, 192, False),
        (VIT, 64, None, 64, True),
        (VIT, 64, False, 192, False),
        (MOBILE, 64, None, 64, True),
        (MOBILE, 1024, None, 1024, False),
    ],
)
def test_the_projection(backbone: str, feat_dim: int, reduce: bool | None, dimension: int, projects: bool) -> None:
    network = build_network(model(backbone, feat_dim=feat_dim, reduce_feat_dim=reduce), classes=3).eval()
    assert isinstance(network.projection, nn.Linear) is projects
    if isinstance(network.projection, nn.Linear):
        assert network.projection.in_features == OWN[backbone]
        assert (network.projection.bias is not None) is ("resnet" in backbone)
    with torch.inference_mode():
        assert network(images()).shape == (4, dimension)
    assert network.dimension == dimension and network.classifier is not None
    assert network.classifier.weight.shape == (3, dimension)


def test_a_linear_projection_of_pooled_features_is_the_references_projection_of_the_map() -> None:
    """The reference: a 1 x 1 convolution with bias on the map, then the mean over the map."""
    network = build_network(model(feat_dim=32)).eval()
    assert isinstance(network.projection, nn.Linear)
    convolution = nn.Conv2d(512, 32, 1)
    with torch.inference_mode():
        convolution.weight.copy_(network.projection.weight[:, :, None, None])
        nn.init.normal_(network.projection.bias)
        convolution.bias.copy_(network.projection.bias)
        expected = convolution(network.backbone.forward_features(images())).mean((2, 3))
        torch.testing.assert_close(network.features(images()), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backbone", FAMILIES)
def test_the_neck_and_its_classifier(backbone: str) -> None:
    network = build_network(model(backbone), classes=5)
    assert isinstance(network.neck, nn.BatchNorm1d) and not network.neck.bias.requires_grad
    assert network.neck.weight.requires_grad and network.neck.bias.eq(0).all()
    assert network.classifier is not None and network.classifier.bias is None
    assert 0.0005 < network.classifier.weight.std() < 0.002
    bare = build_network(model(backbone, neck=""), classes=5)
    assert isinstance(bare.neck, nn.Identity)
    assert bare.classifier is not None and bare.classifier.bias is not None
    assert build_network(model(backbone)).classifier is None


@pytest.mark.parametrize("backbone", FAMILIES)
def test_the_embedding_before_and_after_the_neck(backbone: str) -> None:
    after, before = (
        lively(build_seeded_network(model(backbone, neck_feat=side), 0, 3)) for side in ("after", "before")
    )
    before.load_state_dict(after.state_dict())
    with torch.inference_mode():
        features = before(images())
        torch.testing.assert_close(features, before.features(images()))
        scale = after.neck.weight / (after.neck.running_var + after.neck.eps).sqrt()
        expected = (features - after.neck.running_mean) * scale
        torch.testing.assert_close(after(images()), expected, atol=1e-5, rtol=1e-5)
    assert (features - expected).abs().max() > 0.1


@pytest.mark.parametrize("backbone", FAMILIES)
def test_the_flip_feature_is_the_sum_over_both_images(backbone: str) -> None:
    plain, flip = (
        lively(build_seeded_network(model(backbone, with_flip_feature=flip), 0, 3)) for flip in (False, True)
    )
    flip.load_state_dict(plain.state_dict())
    with torch.inference_mode():
        one, other = plain(images()), plain(images().flip(3))
        torch.testing.assert_close(flip(images()), one + other)
    assert (one - other).abs().max() > 1e-3


@pytest.mark.parametrize("backbone", [VIT, MOBILE, "convnext_atto"])
def test_other_timm_models_embed(backbone: str) -> None:
    network = build_network(model(backbone)).eval()
    with torch.inference_mode():
        assert network(images()).shape == (4, 256)


@pytest.mark.parametrize("reduce_feat_dim", [False, True, None])
@pytest.mark.parametrize("layers", [18, 34, 101, 152])
def test_the_references_name_of_a_resnet_is_refused_with_all_that_is_to_be_changed(
    layers: int, reduce_feat_dim: bool | None
) -> None:
    with pytest.raises(InputError, match=f"similar names are .*resnet{layers}") as caught:
        build_network(model(f"resnet_{layers}", reduce_feat_dim=reduce_feat_dim))
    advice = "remove model.reduce_feat_dim, too: the embedding of a ResNet of the reference has feat_dim values."
    assert str(caught.value).endswith(advice) == (reduce_feat_dim is False)


@pytest.mark.parametrize(
    ("name", "similar"), [("resnt50", "resnet50"), ("resnet_51", "resnet_50"), (SWIN + "0", SWIN), ("zzz", "similar")]
)
def test_an_unknown_backbone_names_similar_ones(name: str, similar: str) -> None:
    with pytest.raises(InputError, match=f"model.backbone = '{name}' is not a timm model; .*{similar}"):
        build_network(model(name))


@pytest.mark.parametrize(
    ("name", "height", "width", "reason"),
    [(VIT, 8, 8, "Kernel size"), ("crossvit_tiny_240", 64, 30, "must match")],
)
def test_a_size_that_the_backbone_cannot_take_is_explained(name: str, height: int, width: int, reason: str) -> None:
    expected = rf"'{name}' does not support images of {height} x {width} \(height x width\): .*{reason}"
    with pytest.raises(InputError, match=expected):
        build_network(model(name, height, width))


def test_untrained_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(11)
    state = torch.random.get_rng_state()
    first = build_seeded_network(model(), 5, seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(12)
    second, third = (
        build_seeded_network(model(), 5, seed=1).state_dict(),
        build_seeded_network(model(), 5, seed=2).state_dict(),
    )
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.state_dict().items())
    assert not torch.equal(first.state_dict()["backbone.conv1.weight"], third["backbone.conv1.weight"])


@pytest.mark.parametrize("backbone", FAMILIES)
def test_dropout_acts_before_the_classifier_in_training_alone(backbone: str) -> None:
    network = build_seeded_network(model(backbone, dropout_rate=0.75, neck="", feat_dim=64), 64, 1)
    assert network.classifier is not None
    nn.init.eye_(network.classifier.weight)
    nn.init.zeros_(network.classifier.bias)
    features = torch.rand(4, 64) + 1
    with torch.inference_mode():
        torch.testing.assert_close(network.eval().logits(features), features)
        shares = network.train().logits(features) / features
    kept = shares > 0
    assert 0.1 < kept.float().mean() < 0.4
    torch.testing.assert_close(shares[kept], torch.full_like(shares[kept], 4.0))


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_logits_are_the_classifier_of_the_neck(rate: float) -> None:
    network = lively(build_seeded_network(model(dropout_rate=rate), 5, 1))
    features = torch.randn(4, 256)
    with torch.inference_mode():
        torch.testing.assert_close(network.logits(features), network.neck(features) @ network.classifier.weight.T)
        expected = network.train().neck(features) @ network.classifier.weight.T
        assert torch.allclose(network.logits(features), expected) is (rate == 0)


@pytest.mark.parametrize("backbone", FAMILIES)
def test_grey_images_change_the_first_convolution_alone(backbone: str) -> None:
    colour, grey = (build_network(model(backbone, input_channels=channels), 5) for channels in (3, 1))
    shapes = {name: tensor.shape for name, tensor in colour.state_dict().items()}
    other = {name: tensor.shape for name, tensor in grey.state_dict().items()}
    assert shapes.keys() == other.keys()
    (first,) = (name for name in shapes if shapes[name] != other[name])
    assert first == next(name for name, shape in shapes.items() if len(shape) == 4)
    assert (shapes[first][1], other[first][1]) == (3, 1)
    with torch.inference_mode():
        assert grey.eval()(images(channels=1)).shape == (4, 256)


@cache
def plain_weights(backbone: str) -> dict[str, Tensor]:
    return build_seeded_network(model(backbone), 5, 1).state_dict()


SEMANTIC = {
    f"backbone.layers.{stage}.downsample.semantic_{table}.{part}"
    for stage in (1, 2, 3)
    for table in ("scale", "shift")
    for part in ("weight", "bias")
}


@pytest.mark.parametrize(
    ("backbone", "values", "changed"),
    [
        ("resnet18", {"last_stride": 2}, set()),
        ("resnet18", {"dropout_rate": 0.5}, set()),
        ("resnet18", {"drop_path": 0.5, "drop_out": 0.5, "att_drop_rate": 0.5, "semantic_weight": -1}, set()),
        ("resnet18", {"stride_size": (8, 8), "pretrain_hw_ratio": 1}, set()),
        ("resnet18", {"neck_feat": "before", "with_flip_feature": True}, set()),
        ("resnet18", {"pooling": "gem"}, {"pooling.exponent"}),
        (SMALL_SWIN, {"last_stride": 2, "stride_size": (8, 8), "pretrain_hw_ratio": 1}, set()),
        (SMALL_SWIN, {"drop_path": 0.5, "drop_out": 0.5, "att_drop_rate": 0.5, "dropout_rate": 0.5}, set()),
        (SMALL_SWIN, {"semantic_weight": 0.2}, set()),
        (SMALL_SWIN, {"semantic_weight": -1}, SEMANTIC),
        (SMALL_SWIN, {"pooling": "gem"}, {"pooling.exponent"}),
        (VIT, {"last_stride": 2, "semantic_weight": -1, "pretrain_hw_ratio": 1}, set()),
        (VIT, {"drop_path": 0.5, "drop_out": 0.5, "att_drop_rate": 0.5, "dropout_rate": 0.5}, set()),
    ],
)
def test_a_field_changes_no_other_weights(backbone: str, values: dict[str, object], changed: set[str]) -> None:
    before = plain_weights(backbone)
    after = build_seeded_network(model(backbone, **values), 5, 1).state_dict()
    assert before.keys() ^ after.keys() == changed
    assert all(torch.equal(before[name], after[name]) for name in before.keys() & after.keys())
