"""OSNet (Zhou et al., ICCV 2019) and OSNet-AIN (Zhou et al., TPAMI 2021), by the names of torchreid's weight files.

To import this module makes `osnet_x{1_0,0_75,0_5,0_25}`, `osnet_ain_x...` and `osnet_ibn_x1_0` known to timm.
"""

from collections.abc import Iterable
from functools import reduce
from typing import Any, Literal

import torch
from timm.models import register_model
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["OSNETS", "OSNet"]

# Channels of the stem and of the three stages.
_CHANNELS = {
    "x1_0": (64, 256, 384, 512),
    "x0_75": (48, 192, 288, 384),
    "x0_5": (32, 128, 192, 256),
    "x0_25": (16, 64, 96, 128),
}
OSNETS = (*(f"osnet_{width}" for width in _CHANNELS), *(f"osnet_ain_{width}" for width in _CHANNELS), "osnet_ibn_x1_0")
_FEATURES = 512
_SCALES = 4  # streams of a block, of 1 to 4 convolutions of 3 x 3

# Place of an instance norm: none, instead of the branch's last batch norm (AIN), or after the sum (IBN).
_Norm = Literal["", "branch", "sum"]
_PLAIN: tuple[_Norm, ...] = ("",) * 6
_AIN: tuple[_Norm, ...] = ("branch", "branch", "", "branch", "branch", "")  # found by the authors' architecture search
_IBN: tuple[_Norm, ...] = ("sum", "sum", "", "", "", "")


class _Conv(nn.Module):
    """Convolution, norm and, if `active`, ReLU."""

    def __init__(
        self, channels: int, output: int, size: int = 1, *, norm: nn.Module | None = None, active: bool = True
    ) -> None:
        super().__init__()
        stride = 2 if size > 1 else 1  # only the stem is larger than 1 x 1
        self.conv = nn.Conv2d(channels, output, size, stride=stride, padding=size // 2, bias=False)
        self.bn = nn.BatchNorm2d(output) if norm is None else norm
        self.active = active

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        return functional.relu(x) if self.active else x


class _LightConv(nn.Module):
    """Convolution of 1 x 1, one of 3 x 3 for each channel alone, batch norm and ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv2(self.conv1(x))))


class _Gate(nn.Module):
    """Factor of 0..1 for each channel, from the channels' means; all streams of a block share it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // 16, 1)
        self.fc2 = nn.Conv2d(channels // 16, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc2(functional.relu(self.fc1(x.mean((2, 3), keepdim=True)))).sigmoid()


class _Stream(nn.Module):
    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class _Block(nn.Module):
    """Sum of the shortcut and of gated streams with receptive fields of 3, 5, 7 and 9 pixels.

    Args:
        channels: Channels of the input.
        output: Channels of the output.
        norm: Place of an instance norm.
        is_listed: Whether the streams have the names of OSNet-AIN's files, a list, or those of OSNet's.
    """

    def __init__(self, channels: int, output: int, norm: _Norm, is_listed: bool) -> None:
        super().__init__()
        middle = output // 4
        self.conv1 = _Conv(channels, middle)
        chains = [nn.Sequential(*(_LightConv(middle) for _ in range(depth + 1))) for depth in range(_SCALES)]
        if is_listed:
            self.conv2 = nn.ModuleList(map(_Stream, chains))
        else:
            self.conv2a, self.conv2b, self.conv2c, self.conv2d = chains[0][0], *chains[1:]
        self.is_listed = is_listed
        self.gate = _Gate(middle)
        self.conv3 = _Conv(middle, output, norm=nn.Identity() if norm == "branch" else None, active=False)
        self.downsample = nn.Identity() if channels == output else _Conv(channels, output, active=False)
        self.norm = norm
        if norm:
            self.IN = nn.InstanceNorm2d(output, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        middle = self.conv1(x)
        streams: Iterable[nn.Module] = (
            self.conv2 if self.is_listed else (self.conv2a, self.conv2b, self.conv2c, self.conv2d)
        )
        branch = self.conv3(reduce(torch.add, [self.gate(stream(middle)) for stream in streams]))
        if self.norm == "branch":
            branch = self.IN(branch)
        total = branch + self.downsample(x)
        return functional.relu(self.IN(total) if self.norm == "sum" else total)


class OSNet(nn.Module):
    """Stem, three stages of two blocks each, and the fully connected layer to 512 features of the published files.

    Args:
        channels: Channels of the stem and of the three stages.
        norms: Places of the instance norms in the six blocks.
        is_listed: Whether names are those of OSNet-AIN's files.
        in_chans: Channels of the images.
        is_pooled: Whether the output is the features [batch, 512]; otherwise it is the last map, and there is no fully
            connected layer.
    """

    def __init__(
        self, channels: tuple[int, ...], norms: tuple[_Norm, ...], is_listed: bool, in_chans: int, is_pooled: bool
    ) -> None:
        super().__init__()
        stem_norm = nn.InstanceNorm2d(channels[0], affine=True) if norms[0] else None
        self.conv1 = _Conv(in_chans, channels[0], 7, norm=stem_norm)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.pool2, self.pool3 = nn.Identity(), nn.Identity()
        stages = []
        for stage in range(3):
            inner, outer = channels[stage : stage + 2]
            blocks: list[nn.Module] = [
                _Block(inner, outer, norms[2 * stage], is_listed),
                _Block(outer, outer, norms[2 * stage + 1], is_listed),
            ]
            if stage < 2:
                transition = nn.Sequential(_Conv(outer, outer), nn.AvgPool2d(2))
                if is_listed:
                    setattr(self, f"pool{stage + 2}", transition)
                else:
                    blocks.append(transition)
            stages.append(nn.Sequential(*blocks))
        self.conv2, self.conv3, self.conv4 = stages
        self.conv5 = _Conv(channels[3], channels[3])
        self.num_features = channels[3]
        self.fc: nn.Module | None = None
        if is_pooled:
            self.fc = nn.Sequential(nn.Linear(channels[3], _FEATURES), nn.BatchNorm1d(_FEATURES), nn.ReLU())
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
            if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward_features(self, images: Tensor) -> Tensor:
        """Return the last map [batch, C, H / 16, W / 16] of images [batch, channels, H, W]."""
        maps = self.pool2(self.conv2(self.maxpool(self.conv1(images))))
        return self.conv5(self.conv4(self.pool3(self.conv3(maps))))

    def forward(self, images: Tensor) -> Tensor:
        """Return features [batch, 512], or the last map without the fully connected layer."""
        maps = self.forward_features(images)
        return maps if self.fc is None else self.fc(maps.mean((2, 3)))


def _register(name: str) -> None:
    _, *variant, width, number = name.split("_")
    norms = {"ain": _AIN, "ibn": _IBN}[variant[0]] if variant else _PLAIN

    def build(
        pretrained: bool = False, num_classes: int = 0, in_chans: int = 3, global_pool: str = "avg", **timms: Any
    ) -> OSNet:
        # timm passes where pretrained weights would come from, to every network.
        if unknown := timms.keys() - {"pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"}:
            raise TypeError(f"OSNet has no {', '.join(sorted(unknown))}")
        if num_classes or pretrained:
            raise ValueError("OSNet has no classifier and no weights to download")
        return OSNet(_CHANNELS[f"{width}_{number}"], norms, norms is _AIN, in_chans, global_pool == "avg")

    build.__name__ = name
    globals()[name] = register_model(build)


for _name in OSNETS:
    _register(_name)
