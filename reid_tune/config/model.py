"""Section `model`: the network."""

from typing import Annotated, Literal

from pydantic import Field

from reid_tune.config.base import Section

__all__ = [
    "Model",
    "drop_path",
    "has_backbone_always_loaded",
    "has_parts",
    "is_swin",
    "is_transformer",
    "is_vit",
    "last_stride",
    "pretrained_choice",
]

_REFERENCE_SWINS = {f"swin_{size}_patch4_window7_224" for size in ("tiny", "small", "base")}

Stride = Annotated[int, Field(ge=1)]
Stripes = Annotated[int, Field(ge=1, le=16)]


class Model(Section):
    backbone: str = Field(
        "resnet_50",
        min_length=1,
        description="resnet_50, swin_{tiny,small,base}_patch4_window7_224, a network of docs/backbones.md, or the name "
        "of any other timm model.",
    )
    last_stride: int | None = Field(
        None,
        ge=1,
        le=2,
        description="Stride of a convolutional network's last stage; 1 gives a feature map of twice the height and "
        "width. null is 1 for a ResNet and 2 for others.",
    )
    non_local: bool = Field(
        False,
        description="Add non-local blocks, which see the whole map, after the last blocks of the second and the third "
        "stage of a ResNet, as in AGW.",
    )
    pretrain_choice: Literal["imagenet", "self", ""] = Field(
        "imagenet",
        description="What to load from pretrained_model_path: imagenet for a backbone's ImageNet weights; self for all "
        "weights of a ReID model that fit (also neck and projection, and the classifier if the identities are the "
        "same); empty for nothing, except "
        "that the backbone of swin_{tiny,small,base}_patch4_window7_224 is loaded, as in the reference.",
    )
    pretrained_model_path: str | None = Field(
        None, description="File with pretrained weights, .pth, .ckpt, .tlt or .safetensors; null trains from scratch."
    )
    input_channels: Literal[1, 3] = Field(
        3,
        description="Channels of input images: 3 for RGB; 1 for greyscale, normalised by the first mean and deviation.",
    )
    input_width: int = Field(128, ge=8, description="Width of input images in pixels.")
    input_height: int = Field(256, ge=8, description="Height of input images in pixels.")
    neck: Literal["bnneck", ""] = Field(
        "bnneck", description="bnneck: batch norm between feature and classifier; empty: none."
    )
    stride_size: tuple[Stride, Stride] = Field(
        (16, 16), description="Stride (height, width) of a ViT's patch embedding in pixels."
    )
    feat_dim: int = Field(256, ge=1, description="Dimension of the embedding.")
    reduce_feat_dim: bool | None = Field(
        None,
        description="Project features to feat_dim: true always, false never, null if the backbone's dimension differs. "
        "A resnet_50 always takes null, as in the reference.",
    )
    pooling: Literal["avg", "gem"] = Field(
        "avg", description="Pooling of the backbone's last map: average, or generalised mean with a learned exponent."
    )
    parts: tuple[Stripes, ...] = Field(
        (1,),
        description="Parts of the embedding: for each number n, n horizontal stripes of the last map, or of a "
        "transformer's tokens on their grid; 1 is the whole image. Each stripe has a separate pooling, projection to "
        "feat_dim, neck and classifier. The embedding holds all of them, sum(parts) x feat_dim values, and the metric "
        "loss compares it as a whole.",
    )
    no_margin: bool = Field(False, description="Use a soft margin in the triplet loss instead of triplet_loss_margin.")
    neck_feat: Literal["before", "after"] = Field("after", description="Take the embedding before or after the neck.")
    metric_loss_type: Literal[
        "triplet", "center", "triplet_center", "circle", "multi_similarity", "supervised_contrastive", "lifted"
    ] = Field(
        "triplet",
        description="Metric loss; center and triplet_center require with_center_loss. The last four are losses on all "
        "pairs of the batch, with pair_margin and pair_scale in train.optim.",
    )
    id_loss_type: Literal["softmax", "arcface", "cosface", "circle"] = Field(
        "softmax",
        description="Identity loss: softmax on a linear classifier; the others on cosines to learned directions, with "
        "cosine_margin and cosine_scale in train.optim.",
    )
    sub_centers: int = Field(
        1,
        ge=1,
        le=16,
        description="Learned directions of each identity in an identity loss on cosines; the nearest one counts.",
    )
    with_center_loss: bool = Field(False, description="Add the center loss.")
    with_flip_feature: bool = Field(
        False, description="Compute the embedding as feature(image) + feature(mirrored image)."
    )
    label_smooth: bool = Field(True, description="Use label smoothing in the identity loss.")
    label_smoothing: float = Field(
        0.1, gt=0, lt=1, description="Probability that label smoothing spreads evenly over all identities."
    )
    pretrain_hw_ratio: float = Field(
        2.0, gt=0, description="Height over width of the images that a ViT was pretrained on; 1 for ImageNet."
    )
    dropout_rate: float = Field(0.0, ge=0, lt=1, description="Dropout rate before the classifier.")
    drop_path: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="Stochastic depth rate, from 0 in the first block to this value in the last. null is 0.1 for a "
        "Swin or a ViT and 0 for others.",
    )
    drop_out: float = Field(0.0, ge=0, lt=1, description="Dropout rate in the blocks of a transformer.")
    att_drop_rate: float = Field(0.0, ge=0, lt=1, description="Dropout rate of a transformer's attention weights.")
    semantic_weight: float = Field(
        1.0,
        le=1,
        description="Weight of a Swin's semantic modulation, which has an effect only with pretrained weights that "
        "contain its tables; a negative value removes it.",
    )


def pretrained_choice(model: Model) -> Literal["imagenet", "self", ""]:
    """Return what is loaded from `pretrained_model_path`, as a value of `pretrain_choice`.

    The reference loads the backbones of its Swins whatever `pretrain_choice` is.
    """
    return "imagenet" if has_backbone_always_loaded(model) else model.pretrain_choice


def has_backbone_always_loaded(model: Model) -> bool:
    """Whether the weights of the backbone are loaded although `pretrain_choice` is empty."""
    return model.pretrain_choice == "" and model.backbone in _REFERENCE_SWINS


def has_parts(model: Model) -> bool:
    """Whether the embedding has other parts than the whole image alone."""
    return model.parts != (1,)


def last_stride(model: Model) -> int:
    """Return the stride of the last stage; 2 is timm's own, whatever it is."""
    if is_transformer(model.backbone):
        return 2
    if model.last_stride is None:
        return 1 if "resnet" in model.backbone else 2
    return model.last_stride


def drop_path(model: Model) -> float:
    """Return the rate of stochastic depth in the last block."""
    if model.backbone == "resnet_50":
        return 0.0
    if model.drop_path is None:
        return 0.1 if is_transformer(model.backbone) else 0.0
    return model.drop_path


def is_transformer(backbone: str) -> bool:
    """Whether fields of the spec set a backbone's dropouts."""
    return "swin" in backbone or is_vit(backbone)


def is_vit(backbone: str) -> bool:
    """Whether a backbone is a plain vision transformer."""
    return backbone.startswith(("vit_", "deit_", "deit3_"))


def is_swin(backbone: str) -> bool:
    """Whether a backbone is a Swin of the first version (Liu et al., ICCV 2021)."""
    return backbone.startswith("swin_")
