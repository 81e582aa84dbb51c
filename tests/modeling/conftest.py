import pytest
import torch
from torch import Tensor, nn

from reid_tune.config.model import Model
from reid_tune.modeling.network import ReIDNet

SWIN = "swin_tiny_patch4_window7_224"
VIT = "vit_tiny_patch16_224"
MOBILE = "mobilenetv3_small_100"


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


def model(backbone: str = "resnet18", height: int = 64, width: int = 32, **values: object) -> Model:
    return Model(backbone=backbone, input_height=height, input_width=width, **values)


def images(height: int = 64, width: int = 32, channels: int = 3) -> Tensor:
    return torch.randn(4, channels, height, width, generator=torch.Generator().manual_seed(0))


def lively(network: ReIDNet) -> ReIDNet:
    """The network in eval mode, its neck with weights and statistics of a trained one."""
    if isinstance(network.neck, nn.BatchNorm1d):
        nn.init.uniform_(network.neck.weight, 0.5, 1.5)
        nn.init.normal_(network.neck.running_mean)
    return network.eval()
