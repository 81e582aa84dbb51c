"""Non-local blocks in a ResNet (Wang et al., CVPR 2018), as in AGW (Ye et al., TPAMI 2021)."""

from typing import Any

from timm.models.resnet import ResNet
from torch import Tensor, nn

from reid_tune.config.model import Model
from reid_tune.errors import InputError

__all__ = ["NonLocal", "add_non_local"]

# By stage: after how many of its last blocks there is a non-local one. The third stage of a ResNet-101 and of deeper
# ones, with 23 blocks or more, has them after nine.
_LAST_BLOCKS = {2: 2, 3: 3}
_DEEP, _DEEP_LAST_BLOCKS = 23, 9


class NonLocal(nn.Module):
    """x + W(y) with y_i = mean over j of (theta(x_i) phi(x_j)) g(x_j), for all positions i and j of a map.

    All projections have one channel, and their names are those of fast-reid's files. The norm in W starts at 0, so the
    block starts as the identity.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.g = nn.Conv2d(channels, 1, 1)
        self.theta = nn.Conv2d(channels, 1, 1)
        self.phi = nn.Conv2d(channels, 1, 1)
        norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(norm.weight)
        self.W = nn.Sequential(nn.Conv2d(1, channels, 1), norm)

    def forward(self, x: Tensor) -> Tensor:
        """Map [batch, C, H, W] to the same shape, at a cost that is linear in the number of positions."""
        # Without a softmax the sum over j does not depend on i.
        context = (self.phi(x) * self.g(x)).mean((2, 3), keepdim=True)
        return x + self.W(self.theta(x) * context)


class _NonLocalResNet(ResNet):
    """A ResNet with the blocks `NL_2` and `NL_3` after the last blocks of its second and third stage."""

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.layer1(self.maxpool(self.act1(self.bn1(self.conv1(x)))))
        for stage, non_local in ((self.layer2, self.NL_2), (self.layer3, self.NL_3)):
            first = len(stage) - len(non_local)
            for number, block in enumerate(stage):
                x = block(x)
                if number >= first:
                    x = non_local[number - first](x)
        return self.layer4(x)


def add_non_local(backbone: nn.Module, model: Model) -> None:
    """Add non-local blocks if the spec asks for them, by another class than timm's, which has no place for them.

    Raises:
        InputError: The backbone is not a ResNet as timm's class builds it.
    """
    if not model.non_local:
        return
    if type(backbone) is not ResNet:
        raise InputError(
            f"model.non_local = true: {model.backbone} has no places for non-local blocks; set it to false, or choose "
            "a ResNet such as resnet50."
        )
    network: Any = backbone
    network.__class__ = _NonLocalResNet
    for stage, count in _LAST_BLOCKS.items():
        blocks = getattr(network, f"layer{stage}")
        if len(blocks) >= _DEEP:
            count = _DEEP_LAST_BLOCKS
        channels = network.feature_info[stage]["num_chs"]
        network.add_module(f"NL_{stage}", nn.ModuleList(NonLocal(channels) for _ in blocks[-count:]))
