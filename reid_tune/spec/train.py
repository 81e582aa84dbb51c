"""Section `train`: the run and its optimizer."""

from typing import Annotated, Literal

from pydantic import Field

from reid_tune.spec.base import Section

__all__ = ["Optim", "Train"]

Epoch = Annotated[int, Field(ge=1)]
GpuId = Annotated[int, Field(ge=0)]


class Optim(Section):
    name: str = Field("Adam", min_length=1, description="Optimizer: Adam, AdamW, SGD.")
    lr_monitor: Literal["val_loss", "train_loss"] = Field("val_loss", description="What a plateau schedule watches.")
    lr_steps: tuple[Epoch, ...] = Field((40, 70), description="Epochs at which the rate is multiplied by gamma.")
    gamma: float = Field(0.1, gt=0, le=1, description="Factor at each of lr_steps.")
    bias_lr_factor: float = Field(1.0, gt=0, description="Factor on the rate of parameters named bias.")
    weight_decay: float = Field(0.0005, ge=0, description="Weight decay.")
    weight_decay_bias: float = Field(0.0005, ge=0, description="Weight decay of parameters named bias.")
    warmup_factor: float = Field(0.01, gt=0, le=1, description="First rate as a share of base_lr.")
    warmup_iters: int = Field(10, ge=0, description="Epochs of a linear warm-up.")
    warmup_epochs: int = Field(20, ge=0, description="Epochs of warm-up before a cosine decay.")
    warmup_method: Literal["linear", "cosine"] = Field(
        "linear", description="Schedule: linear warm-up, then steps; or linear warm-up, then a cosine decay."
    )
    base_lr: float = Field(0.00035, gt=0, le=10, description="Learning rate after the warm-up.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of SGD.")
    center_loss_weight: float = Field(0.0005, gt=0, description="Weight of center loss.")
    center_lr: float = Field(0.5, gt=0, description="Learning rate of the centers.")
    triplet_loss_margin: float = Field(0.3, gt=0, description="Margin of the triplet loss, a Euclidean distance.")
    large_fc_lr: bool = Field(False, description="Twice the rate for the classifier.")


class Train(Section):
    num_gpus: int = Field(1, ge=1, description="Workers; without a GPU, processes on the CPU.")
    gpu_ids: tuple[GpuId, ...] = Field((0,), min_length=1, description="Indices of the GPUs.")
    seed: int = Field(1234, ge=-1, description="Seed of weights, batches and augmentation; -1 draws one.")
    num_epochs: int = Field(10, ge=1, description="Epochs of the whole schedule.")
    checkpoint_interval: int = Field(1, ge=1, description="Epochs between two kept checkpoints.")
    validation_interval: int = Field(1, ge=1, description="Epochs between two validations; the last epoch has one.")
    resume_training_checkpoint_path: str | None = Field(None, description="A checkpoint to continue from.")
    results_dir: str | None = Field(None, description="Folder of the results; default <results_dir>/train.")
    clip_grad_norm: float = Field(0.0, ge=0, description="Clip the gradient's L2 norm to this; 0 does not clip.")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="Arithmetic of the backbone; losses are in fp32.")
    optim: Optim = Field(default_factory=Optim, description="Optimizer and schedule.")
