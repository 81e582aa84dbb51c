import pytest
import torch
from torch import Tensor
from torch.nn import functional

from reid_tune.errors import InputError
from reid_tune.modeling.network import ReIDNet, build_seeded_network
from reid_tune.modeling.weights import LoadReport, load_weights

from ..helpers.small_networks import SMALL_SWIN
from .conftest import VIT, images, model


def load(network: ReIDNet, weights: dict[str, Tensor], hw_ratio: float = 1) -> LoadReport:
    return load_weights(network, weights, hw_ratio=hw_ratio)


def test_weights_of_our_own_are_copied_whole() -> None:
    source, target = build_seeded_network(model(pooling="gem"), 5, 1), build_seeded_network(model(pooling="gem"), 5, 2)
    weights = source.state_dict()
    assert load(target, weights) == LoadReport(tuple(weights), (), (), ())
    assert all(torch.equal(tensor, weights[name]) for name, tensor in target.state_dict().items())
    assert target.pooling.exponent.requires_grad and not target.pooling.exponent.is_inference()


def test_names_are_sorted_by_what_became_of_them() -> None:
    network = build_seeded_network(model(SMALL_SWIN), 5, 1)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    weights = {
        "neck.weight": torch.full((256,), 2.0, dtype=torch.float16),
        "classifier.weight": torch.zeros(7, 256),
        "backbone.head.fc.weight": torch.zeros(3),
        "backbone.layers.0.blocks.0.attn.relative_position_index": torch.zeros(49, 49),
        "backbone.layers.0.blocks.1.attn_mask": torch.zeros(64, 49, 49),
        "backbone.patch_embed.proj.weight": torch.zeros(96, 3, 8, 8),
    }
    matched = load(network, weights)
    assert matched.loaded == ("neck.weight",) and matched.resized == ()
    assert matched.unused == ("classifier.weight", "backbone.head.fc.weight", "backbone.patch_embed.proj.weight")
    assert set(matched.missing) == before.keys() - weights.keys()
    after = network.state_dict()
    assert after["neck.weight"].dtype == torch.float32 and after["neck.weight"].eq(2).all()
    assert all(torch.equal(after[name], before[name]) for name in before if name != "neck.weight")


def test_values_take_the_type_of_the_network() -> None:
    network = build_seeded_network(model(), 5, 1).double()
    value = torch.rand(512, dtype=torch.float16)
    load(network, {"backbone.layer4.1.bn2.weight": value, "backbone.bn1.num_batches_tracked": torch.tensor(7)})
    assert network.backbone.layer4[1].bn2.weight.dtype == torch.float64
    assert torch.equal(network.backbone.layer4[1].bn2.weight.detach(), value.double())
    assert network.backbone.bn1.num_batches_tracked.item() == 7


@pytest.mark.parametrize("window", [12, 5])
def test_relative_positions_of_another_window_are_resized(window: int) -> None:
    network = build_seeded_network(model(SMALL_SWIN), 0, 1)
    name = "backbone.layers.0.blocks.1.attn.relative_position_bias_table"
    side = 2 * window - 1
    table = torch.randn(side * side, 3)
    assert load(network, {name: table}).resized == (name,)
    for head in range(3):
        grid = torch.stack([table[row * side : (row + 1) * side, head] for row in range(side)])
        expected = functional.interpolate(grid[None, None], (13, 13), mode="bicubic", align_corners=False)[0, 0]
        found = network.state_dict()[name][:, head].reshape(13, 13)
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("shape", [(529, 4), (528, 3), (13, 13, 3)])
def test_relative_positions_of_other_heads_or_no_square_are_left(shape: tuple[int, ...]) -> None:
    network = build_seeded_network(model(SMALL_SWIN), 0, 1)
    name = "backbone.layers.0.blocks.1.attn.relative_position_bias_table"
    before = network.state_dict()[name].clone()
    matched = load(network, {name: torch.zeros(shape)})
    assert (matched.resized, matched.unused) == ((), (name,)) and torch.equal(network.state_dict()[name], before)


@pytest.mark.parametrize(
    ("rows", "columns", "ratio", "stride"),
    [(14, 14, 1.0, (16, 16)), (16, 8, 2.0, (16, 16)), (21, 10, 2.1, (12, 12)), (8, 16, 0.5, (16, 16))],
)
def test_positions_are_resized_from_the_grid_of_the_ratio(
    rows: int, columns: int, ratio: float, stride: tuple[int, int]
) -> None:
    network = build_seeded_network(model(VIT, stride_size=stride), 0, 1)
    height, width = {(16, 16): (4, 2), (12, 12): (5, 2)}[stride]
    table = torch.randn(1, 1 + rows * columns, 192)
    assert load(network, {"backbone.pos_embed": table}, ratio).resized == ("backbone.pos_embed",)
    found = network.state_dict()["backbone.pos_embed"]
    assert torch.equal(found[0, 0], table[0, 0])
    for channel in (0, 77, 191):
        grid = torch.empty(rows, columns)
        for row in range(rows):
            for column in range(columns):
                grid[row, column] = table[0, 1 + row * columns + column, channel]
        expected = functional.interpolate(grid[None, None], (height, width), mode="bicubic", align_corners=False)
        torch.testing.assert_close(found[0, 1:, channel].reshape(height, width), expected[0, 0])


def test_positions_of_no_such_grid_change_nothing() -> None:
    network = build_seeded_network(model(VIT), 5, 1)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    weights = {"neck.weight": torch.zeros(256), "backbone.pos_embed": torch.zeros(1, 197, 192)}
    with pytest.raises(InputError, match="^model.pretrain_hw_ratio = 2: .* has 196 patches, which are not a grid"):
        load(network, weights, hw_ratio=2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_positions_of_another_dimension_are_left() -> None:
    network = build_seeded_network(model(VIT), 0, 1)
    for shape in ((1, 197, 384), (1, 1, 192), (197, 192)):
        assert load(network, {"backbone.pos_embed": torch.zeros(shape)}).unused == ("backbone.pos_embed",)


@pytest.mark.parametrize("backbone", ["resnet18", SMALL_SWIN, VIT, "mobilenetv3_small_100"])
def test_a_network_of_grey_images_takes_the_weights_of_colour(backbone: str) -> None:
    grey = build_seeded_network(model(backbone, input_channels=1), 0, 2).eval()
    colour = build_seeded_network(model(backbone), 0, 1).eval()
    matched = load(grey, colour.state_dict())
    assert len(matched.resized) == 1 and matched.unused == () and matched.missing == ()
    pixels = images(channels=1)
    with torch.inference_mode():
        torch.testing.assert_close(grey(pixels), colour(pixels.expand(-1, 3, -1, -1)), atol=1e-4, rtol=1e-4)
        back = build_seeded_network(model(backbone), 0, 3).eval()
        assert load(back, grey.state_dict()).resized == matched.resized
        torch.testing.assert_close(back(pixels.expand(-1, 3, -1, -1)), grey(pixels), atol=1e-4, rtol=1e-4)


def test_other_numbers_of_channels_are_left() -> None:
    network = build_seeded_network(model(), 0, 1)
    for shape in ((64, 4, 7, 7), (64, 1, 3, 3), (32, 1, 7, 7)):
        assert load(network, {"backbone.conv1.weight": torch.zeros(shape)}).unused == ("backbone.conv1.weight",)
