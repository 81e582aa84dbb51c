"""Section `train`: the run and its optimizer."""

from typing import Annotated, Literal

from pydantic import Field

from reid_tune.config.base import AutoBool, Section
from reid_tune.config.gpus import GpuSelection

__all__ = ["OPTIMIZERS", "Cudnn", "Optim", "Train"]

# The classes of torch.optim that step on plain gradients of any parameter.
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

Epoch = Annotated[int, Field(ge=1)]


class Optim(Section):
    name: str = Field("Adam", min_length=1, description=f"Optimizer of torch.optim: {', '.join(OPTIMIZERS)}.")
    lr_monitor: Literal["val_loss", "train_loss"] = Field(
        "val_loss", description="What plateau_patience watches; val_loss is 1 - mAP of the validation."
    )
    plateau_patience: int | None = Field(
        None,
        ge=0,
        description="Multiply the rate by gamma after more than this many epochs in which lr_monitor did not improve, "
        "in place of lr_steps.",
    )
    lr_steps: tuple[Epoch, ...] = Field((40, 70), description="Epochs at which the rate is multiplied by gamma.")
    gamma: float = Field(0.1, gt=0, le=1, description="Factor at each of lr_steps, or at a plateau.")
    bias_lr_factor: float = Field(1.0, gt=0, description="Factor on the rate of parameters named bias.")
    weight_decay: float = Field(0.0005, ge=0, description="Weight decay.")
    weight_decay_bias: float = Field(0.0005, ge=0, description="Weight decay of parameters named bias.")
    warmup_factor: float = Field(
        0.01, gt=0, le=1, description="Rate at the start of the warm-up as a share of base_lr."
    )
    warmup_iters: int = Field(10, ge=0, description="Epochs of a linear or constant warm-up.")
    warmup_epochs: int = Field(20, ge=0, description="Epochs of warm-up before a cosine decay.")
    warmup_method: Literal["linear", "constant", "cosine"] = Field(
        "linear", description="Schedule: linear or constant warm-up, then steps; or linear warm-up, then cosine decay."
    )
    base_lr: float = Field(0.00035, gt=0, le=10, description="Learning rate after the warm-up.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of SGD.")
    center_loss_weight: float = Field(0.0005, gt=0, description="Weight of center loss.")
    center_lr: float = Field(0.5, gt=0, description="Learning rate of the centers.")
    triplet_loss_margin: float = Field(0.3, gt=0, description="Margin of the triplet loss, a Euclidean distance.")
    large_fc_lr: bool = Field(False, description="Twice the rate for the classifier.")


class Cudnn(Section):
    benchmark: bool = Field(True, description="Let cuDNN time its algorithms and take the fastest.")
    deterministic: bool = Field(False, description="Take only deterministic algorithms of cuDNN.")


class Train(GpuSelection):
    seed: int = Field(1234, ge=-1, description="Seed of weights, batches and augmentation; -1 draws one.")
    num_epochs: int = Field(10, ge=1, description="Epochs of the whole schedule.")
    checkpoint_interval: int = Field(1, ge=1, description="Epochs between two kept checkpoints.")
    validation_interval: int = Field(1, ge=1, description="Epochs between two validations; the last epoch has one.")
    resume_training_checkpoint_path: str | None = Field(None, description="A checkpoint to continue from.")
    results_dir: str | None = Field(None, description="Folder of the results; default `train` below the top one.")
    clip_grad_norm: float = Field(0.0, ge=0, description="Clip the gradient's L2 norm to this; 0 does not clip.")
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="Arithmetic of the backbone; losses, validation and evaluation are in fp32."
    )
    tf32: bool = Field(
        True,
        description="With precision fp32, let a GPU (Ampere or later) multiply and convolve in TF32: inputs rounded to "
        "10 bits of mantissa, sums in fp32. Losses, validation and evaluation are always in true fp32.",
    )
    accumulate: int = Field(
        1,
        ge=1,
        description="Chunks into which a worker divides its part of the batch to need less memory; the losses see the "
        "whole batch all the same. Costs a second forward pass; batch norm sees one chunk at a time.",
    )
    compile: AutoBool = Field(
        False,
        description="Compile the backbone with torch.compile; auto does so on a GPU in runs of 5,000 steps or more, "
        "where a C compiler is installed.",
    )
    cuda_graphs: bool = Field(
        False,
        description="Record the backbone's work once as CUDA graphs and replay it in each step; pays for small "
        "networks on one GPU, and has no effect on a CPU.",
    )
    deterministic: bool = Field(
        False, description="The same bits in every run on one device, resumed or not; slower on a GPU."
    )
    cudnn: Cudnn = Field(default_factory=Cudnn, description="Settings of cuDNN; deterministic above wins.")
    optim: Optim = Field(default_factory=Optim, description="Optimizer and schedule.")
