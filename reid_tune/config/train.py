"""Section `train`: the run and its optimizer."""

from typing import Annotated, Literal

from pydantic import Field

from reid_tune.config.base import AutoBool, GpuSelection, Section

__all__ = ["COSINE_SCHEDULES", "OPTIMIZERS", "Cudnn", "Optim", "Train"]

# Classes of torch.optim that step on plain gradients of any parameter.
OPTIMIZERS = (
    "ASGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "NAdam",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SGD",
)

# Values of `warmup_method` without steps.
COSINE_SCHEDULES = ("cosine", "flat_cosine", "one_cycle")

Epoch = Annotated[int, Field(ge=1)]


class Optim(Section):
    name: str = Field("Adam", min_length=1, description=f"Optimizer of torch.optim: {', '.join(OPTIMIZERS)}.")
    lr_monitor: Literal["val_loss", "train_loss"] = Field(
        "val_loss", description="Metric that plateau_patience monitors; val_loss is 1 - mAP of the validation."
    )
    plateau_patience: int | None = Field(
        None,
        ge=0,
        description="Multiply the learning rate by gamma when lr_monitor has not improved for more than this many "
        "epochs, instead of at lr_steps.",
    )
    lr_steps: tuple[Epoch, ...] = Field(
        (40, 70), description="Epochs at which the learning rate is multiplied by gamma."
    )
    gamma: float = Field(
        0.1, gt=0, le=1, description="Factor on the learning rate at each of lr_steps, or at a plateau."
    )
    bias_lr_factor: float = Field(1.0, gt=0, description="Factor on the learning rate of parameters named bias.")
    weight_decay: float = Field(0.0005, ge=0, description="Weight decay of all parameters that are not named bias.")
    weight_decay_bias: float = Field(0.0005, ge=0, description="Weight decay of parameters named bias.")
    warmup_factor: float = Field(
        0.01, gt=0, le=1, description="Learning rate at the start of the warm-up, as a fraction of base_lr."
    )
    warmup_iters: int = Field(10, ge=0, description="Length of a linear or constant warm-up in epochs.")
    warmup_epochs: int = Field(20, ge=0, description="Length of the warm-up before a cosine decay in epochs.")
    warmup_steps: int | None = Field(
        None, ge=0, description="Length of the warm-up in steps, instead of warmup_iters or warmup_epochs."
    )
    warmup_method: Literal["linear", "constant", "cosine", "flat_cosine", "one_cycle"] = Field(
        "linear",
        description="Schedule: linear or constant warm-up followed by steps; cosine: linear warm-up followed by cosine "
        "decay; flat_cosine: linear warm-up, base_lr, and from flat_fraction on cosine decay; one_cycle: cosine rise "
        "in the warm-up followed by cosine decay. The last two change the rate in every step.",
    )
    flat_fraction: float = Field(
        0.5, ge=0, le=1, description="Part of num_epochs after which flat_cosine decays; the warm-up counts."
    )
    min_lr_factor: float = Field(
        0.002, ge=0, le=1, description="Learning rate at the end of a cosine decay, as a fraction of base_lr."
    )
    base_lr: float = Field(0.00035, gt=0, le=10, description="Learning rate after the warm-up.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of the optimizer SGD.")
    nesterov: bool = Field(False, description="Use Nesterov's momentum in the optimizer SGD.")
    layer_decay: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Factor on the learning rate from each layer of the backbone to the one before it: the last of N "
        "layers has layer_decay, the first layer_decay^N, and the head 1. Layers are those of timm.",
    )
    backbone_lr_factor: float = Field(1.0, gt=0, description="Factor on the learning rate of the backbone.")
    freeze_epochs: int = Field(
        0,
        ge=0,
        description="Number of first epochs in which the backbone is frozen and in eval mode, also its batch norms: "
        "only the head learns.",
    )
    decay_norms: bool = Field(
        True,
        description="Decay the weights of norms, biases and position tables too; false exempts them, as well as other "
        "vectors and what timm exempts in a backbone.",
    )
    center_loss_weight: float = Field(0.0005, gt=0, description="Weight of the center loss.")
    center_lr: float = Field(0.5, gt=0, description="Learning rate of the center loss's centers.")
    triplet_loss_margin: float = Field(0.3, gt=0, description="Margin of the triplet loss, in its distance.")
    large_fc_lr: bool = Field(False, description="Double the learning rate of the classifier.")
    cosine_margin: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Margin of the identity loss; null: 0.5 for arcface, in radians, and 0.35 for cosface and circle. "
        "That of circle is below 0.5.",
    )
    cosine_scale: float | None = Field(
        None, gt=0, description="Factor on the cosines of the identity loss with a margin; null: 64."
    )
    pair_margin: float | None = Field(
        None,
        ge=0,
        description="Margin of the metric loss: circle, a cosine below 0.5, null 0.25; multi_similarity, a cosine that "
        "selects pairs, null 0.1; lifted, a Euclidean distance, null 1.",
    )
    pair_scale: float | None = Field(
        None,
        gt=0,
        description="Factor on the cosines in the metric loss: circle, null 128; multi_similarity, of the negatives, "
        "null 50; supervised_contrastive, 1 / temperature, null 10.",
    )


class Cudnn(Section):
    benchmark: bool = Field(True, description="Let cuDNN time its algorithms and use the fastest.")
    deterministic: bool = Field(False, description="Use only deterministic algorithms of cuDNN.")


class Train(GpuSelection):
    seed: int = Field(1234, ge=-1, description="Seed of weights, batches and augmentation; -1 draws a random seed.")
    num_epochs: int = Field(10, ge=1, description="Number of epochs; the learning-rate schedule spans all of them.")
    checkpoint_interval: int = Field(1, ge=1, description="Keep a checkpoint every this many epochs.")
    validation_interval: int = Field(1, ge=1, description="Validate every this many epochs, and after the last one.")
    resume_training_checkpoint_path: str | None = Field(None, description="Checkpoint to continue from.")
    results_dir: str | None = Field(
        None, description="Folder of the results; default `train` in the top-level results_dir."
    )
    identity_weight: float = Field(
        1.0, gt=0, description="Weight of the identity loss; dataset.sampler decides whether it is used at all."
    )
    triplet_weight: float = Field(
        1.0,
        gt=0,
        description="Weight of the triplet loss or of the loss on pairs; dataset.sampler decides whether it is used "
        "at all.",
    )
    triplet_mining: Literal["hard", "weighted"] = Field(
        "hard",
        description="Pairs of an anchor in the triplet loss. hard: its farthest positive and its nearest negative; "
        "weighted: the mean of all its positives and of all its negatives, weighted by the softmax of the distance "
        "and of the negative distance, always with the soft margin (AGW).",
    )
    triplet_distance: Literal["euclidean", "cosine"] = Field(
        "euclidean",
        description="Distance of the triplet loss: Euclidean between features as they are, or 1 - cosine, 0 to 2.",
    )
    clip_grad_norm: float = Field(0.0, ge=0, description="Maximum L2 norm of the gradient; 0 disables clipping.")
    ema_decay: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Decay of an exponential moving average of the weights over the steps, which is what is validated, "
        "saved as the model and exported; 0 for none. The first steps have a smaller decay.",
    )
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="Precision of the backbone in training; losses, validation and evaluation use fp32."
    )
    tf32: bool = Field(
        True,
        description="With precision fp32, use TF32 on a GPU (Ampere or later) for matrix products and convolutions: "
        "inputs are rounded to a mantissa of 10 bits, sums are fp32. Losses, validation and evaluation always use "
        "true fp32.",
    )
    accumulate: int = Field(
        1,
        ge=1,
        description="Number of chunks into which a worker divides its part of the batch, to use less memory. The "
        "losses still see the whole batch. Costs a second forward pass; batch norm sees one chunk at a time.",
    )
    compile: AutoBool = Field(
        False,
        description="Compile the backbone with torch.compile; auto does so on a GPU in runs of 5,000 steps or more, if "
        "a C compiler is installed.",
    )
    cuda_graphs: bool = Field(
        False,
        description="Record the backbone's operations once as CUDA graphs and replay them in each step; faster for "
        "small networks on one GPU. No effect on a CPU or with several workers.",
    )
    deterministic: bool = Field(
        False, description="Make runs on one device bit-identical, also when resumed; slower on a GPU."
    )
    cudnn: Cudnn = Field(default_factory=Cudnn, description="Settings of cuDNN; train.deterministic overrides them.")
    optim: Optim = Field(default_factory=Optim, description="Optimizer and schedule.")
