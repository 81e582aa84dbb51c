"""Section `model`: the network."""

from typing import Annotated, Literal

from pydantic import Field

from reid_tune.config.base import Section

__all__ = ["Model"]

Stride = Annotated[int, Field(ge=1)]


class Model(Section):
    backbone: str = Field(
        "resnet_50",
        min_length=1,
        description="resnet_50, swin_{tiny,small,base}_patch4_window7_224, or any other name of a timm model.",
    )
    last_stride: int = Field(1, ge=1, le=2, description="Stride of a ResNet's last stage; 1 keeps a finer map.")
    pretrain_choice: Literal["imagenet", "self", ""] = Field(
        "imagenet",
        description="What is taken from pretrained_model_path: a backbone's ImageNet weights, all that fits of a ReID "
        "model (neck and projection too, the classifier where the identities are the same), or nothing.",
    )
    pretrained_model_path: str | None = Field(
        None, description="A file with pretrained weights, .pth, .ckpt, .tlt or .safetensors; null trains from scratch."
    )
    input_channels: Literal[1, 3] = Field(
        3, description="Channels of an input image: 3 is RGB, 1 is grey, normalised by the first mean and deviation."
    )
    input_width: int = Field(128, ge=8, description="Width of the input in pixels.")
    input_height: int = Field(256, ge=8, description="Height of the input in pixels.")
    neck: Literal["bnneck", ""] = Field("bnneck", description="Batch norm between feature and classifier, or none.")
    stride_size: tuple[Stride, Stride] = Field((16, 16), description="Stride of a ViT's patch embedding in pixels.")
    feat_dim: int = Field(256, ge=1, description="Dimension of the embedding.")
    reduce_feat_dim: bool | None = Field(
        None,
        description="Project to feat_dim: null where it differs from the backbone's own dimension, false never.",
    )
    pooling: Literal["avg", "gem"] = Field(
        "avg", description="Average, or generalised mean with a learned exponent, of the backbone's last map."
    )
    no_margin: bool = Field(False, description="Triplet loss with a soft margin in place of triplet_loss_margin.")
    neck_feat: Literal["before", "after"] = Field("after", description="Embedding before or after the neck.")
    metric_loss_type: Literal["triplet", "center", "triplet_center"] = Field(
        "triplet", description="The metric loss; the two with center need with_center_loss."
    )
    with_center_loss: bool = Field(False, description="Add center loss.")
    with_flip_feature: bool = Field(False, description="Embedding = feature(image) + feature(mirrored image).")
    label_smooth: bool = Field(True, description="Identity loss with label smoothing of 0.1.")
    pretrain_hw_ratio: float = Field(
        2.0, gt=0, description="Height over width of the images that a ViT was pretrained on; ImageNet's are square."
    )
    dropout_rate: float = Field(0.0, ge=0, lt=1, description="Dropout before the classifier.")
    drop_path: float = Field(0.1, ge=0, lt=1, description="Stochastic depth of a transformer, from 0 to this by depth.")
    drop_out: float = Field(0.0, ge=0, lt=1, description="Dropout in the blocks of a transformer.")
    att_drop_rate: float = Field(0.0, ge=0, lt=1, description="Dropout of a transformer's attention.")
    semantic_weight: float = Field(
        1.0,
        le=1,
        description="Weight of a Swin's semantic modulation, which does nothing unless pretrained weights hold its "
        "tables; negative removes it.",
    )
