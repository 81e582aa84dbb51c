import pytest
import timm
import torch
from torch import Tensor, nn

from reid_tune.errors import InputError
from reid_tune.modeling.backbone import make_backbone
from reid_tune.modeling.network import ReIDNet, build_network, count_parameters, untrained
from reid_tune.spec.model import Model

SWIN = "swin_tiny_patch4_window7_224"
OWN = {"resnet18": 512, "resnet_50": 2048, SWIN: 768}


def model(backbone: str = "resnet18", height: int = 64, width: int = 32, **values: object) -> Model:
    return Model(backbone=backbone, input_height=height, input_width=width, **values)


def images(height: int = 64, width: int = 32) -> Tensor:
    return torch.randn(4, 3, height, width, generator=torch.Generator().manual_seed(0))


def lively(network: ReIDNet) -> ReIDNet:
    """The network in eval mode, its neck with weights and statistics of a trained one."""
    if isinstance(network.neck, nn.BatchNorm1d):
        nn.init.uniform_(network.neck.weight, 0.5, 1.5)
        nn.init.normal_(network.neck.running_mean)
    return network.eval()


@pytest.mark.parametrize("backbone", ["resnet18", "resnet_50"])
def test_the_last_stride_sets_the_size_of_the_map(backbone: str) -> None:
    sizes = {}
    for stride in (1, 2):
        network, _ = make_backbone(model(backbone, last_stride=stride))
        with torch.inference_mode():
            sizes[stride] = tuple(network.eval().forward_features(images()).shape[2:])
    assert sizes == {1: (4, 2), 2: (2, 1)}


def test_a_last_stride_of_two_is_timms_network() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ours, _ = make_backbone(model("resnet50", last_stride=2))
        torch.manual_seed(0)
        theirs = timm.create_model("resnet50", num_classes=0)
    with torch.inference_mode():
        torch.testing.assert_close(ours.eval()(images()), theirs.eval()(images()))


@pytest.mark.parametrize(("backbone", "negative"), [("resnet_50", True), ("resnet50", False)])
def test_the_references_resnet_has_no_relu_behind_its_first_batch_norm(backbone: str, negative: bool) -> None:
    network, own = make_backbone(model(backbone))
    seen: list[Tensor] = []
    network.maxpool.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        network(images())
    assert own == 2048 and len(seen) == 1
    assert bool((seen[0] < 0).any()) is negative


@pytest.mark.parametrize(
    ("backbone", "feat_dim", "reduce", "dimension", "projects"),
    [
        ("resnet18", 256, None, 256, True),
        ("resnet18", 512, None, 512, False),
        ("resnet18", 256, False, 512, False),
        ("resnet18", 512, True, 512, True),
        ("resnet_50", 256, None, 256, True),
        ("resnet_50", 2048, None, 2048, False),
        (SWIN, 1024, None, 1024, True),
        (SWIN, 1024, False, 768, False),
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


def test_the_neck_and_its_classifier() -> None:
    network = build_network(model(), classes=5)
    assert isinstance(network.neck, nn.BatchNorm1d) and not network.neck.bias.requires_grad
    assert network.neck.weight.requires_grad and network.neck.bias.eq(0).all()
    assert network.classifier is not None and network.classifier.bias is None
    assert 0.0005 < network.classifier.weight.std() < 0.002
    bare = build_network(model(neck=""), classes=5)
    assert isinstance(bare.neck, nn.Identity)
    assert bare.classifier is not None and bare.classifier.bias is not None
    assert build_network(model()).classifier is None


def test_the_embedding_before_and_after_the_neck() -> None:
    after, before = (lively(untrained(model(neck_feat=side), 0, 3)) for side in ("after", "before"))
    before.load_state_dict(after.state_dict())
    with torch.inference_mode():
        features = before(images())
        torch.testing.assert_close(features, before.features(images()))
        scale = after.neck.weight / (after.neck.running_var + after.neck.eps).sqrt()
        expected = (features - after.neck.running_mean) * scale
        torch.testing.assert_close(after(images()), expected, atol=1e-5, rtol=1e-5)
    assert (features - expected).abs().max() > 0.1


def test_the_flip_feature_is_the_sum_over_both_images() -> None:
    plain, flip = (lively(untrained(model(with_flip_feature=flip), 0, 3)) for flip in (False, True))
    flip.load_state_dict(plain.state_dict())
    with torch.inference_mode():
        one, other = plain(images()), plain(images().flip(3))
        torch.testing.assert_close(flip(images()), one + other)
    assert (one - other).abs().max() > 0.01


@pytest.mark.parametrize(("height", "width"), [(64, 32), (60, 36), (96, 32)])
def test_a_swin_takes_other_sizes_than_its_own(height: int, width: int) -> None:
    network = build_network(model(SWIN, height, width, feat_dim=64)).eval()
    with torch.inference_mode():
        assert network(images(height, width)).isfinite().all()


@pytest.mark.parametrize("backbone", ["vit_tiny_patch16_224", "mobilenetv3_small_100"])
def test_other_timm_models_embed(backbone: str) -> None:
    network = build_network(model(backbone)).eval()
    with torch.inference_mode():
        assert network(images()).shape == (4, 256)


@pytest.mark.parametrize(
    ("name", "near"), [("resnt50", "resnet50"), ("resnet_51", "resnet_50"), (SWIN + "0", SWIN), ("zzz", "near ones")]
)
def test_an_unknown_backbone_names_near_ones(name: str, near: str) -> None:
    with pytest.raises(InputError, match=f"model.backbone = '{name}': not a timm model; .*{near}"):
        build_network(model(name))


@pytest.mark.parametrize(
    ("name", "height", "width", "reason"),
    [("vit_tiny_patch16_224", 8, 8, "Kernel size"), ("crossvit_tiny_240", 64, 30, "must match")],
)
def test_a_size_that_the_backbone_cannot_take_is_explained(name: str, height: int, width: int, reason: str) -> None:
    expected = rf"'{name}' cannot take images of {height} x {width} \(height x width\): .*{reason}"
    with pytest.raises(InputError, match=expected):
        build_network(model(name, height, width))


def test_untrained_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(11)
    state = torch.random.get_rng_state()
    first = untrained(model(), 5, seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(12)
    second, third = untrained(model(), 5, seed=1).state_dict(), untrained(model(), 5, seed=2).state_dict()
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.state_dict().items())
    assert not torch.equal(first.state_dict()["backbone.conv1.weight"], third["backbone.conv1.weight"])


def test_parameters_are_counted() -> None:
    network = build_network(model(), classes=5)
    assert count_parameters(network) - count_parameters(network.backbone) == (512 * 256 + 256) + 2 * 256 + 5 * 256
