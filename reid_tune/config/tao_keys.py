"""Keys of the reference (NVIDIA TAO) without effect there: accepted with values that request nothing."""

from typing import Any

__all__ = ["is_default", "is_inactive_tao_key", "unsupported_message"]

_INACTIVE: dict[str, tuple[Any, ...]] = {
    "model_name": (None, "", "re_identification"),
    "model.cos_layer": (False,),
    "model.devide_length": (4,),
    "model.gem_pooling": (False,),
    "model.id_loss_type": ("softmax",),
    "model.id_loss_weight": (1.0,),
    "model.jpm": (False,),
    "model.re_arrange": (True,),
    "model.shift_num": (5,),
    "model.shuffle_group": (2,),
    "model.sie_camera": (False,),
    "model.sie_coe": (3.0,),
    "model.sie_view": (False,),
    "model.stem_conv": (False,),
    "model.triplet_loss_weight": (1.0,),
    "train.checkpoint_interval_unit": ("epoch",),
    "train.num_nodes": (1,),
    "train.optim.cosine_margin": (0.5,),
    "train.optim.cosine_scale": (30, 30.0),
    "train.optim.trp_l2": (False,),
    "evaluate.batch_size": (-1,),
    "evaluate.num_nodes": (1,),
    "evaluate.trt_engine": (None, ""),
    "inference.batch_size": (-1,),
    "inference.num_nodes": (1,),
    "inference.trt_engine": (None, ""),
}
_ADVICE = {
    "model.gem_pooling": "set model.pooling: gem",
    "train.checkpoint_interval_unit": "checkpoints are written by epoch",
    "train.num_nodes": "this version trains on one machine",
    "evaluate.trt_engine": "give a checkpoint or an .onnx file",
    "inference.trt_engine": "give a checkpoint or an .onnx file",
}


def is_inactive_tao_key(key: str) -> bool:
    """Whether the reference accepts the key but does nothing with it."""
    return key in _INACTIVE or key == "wandb" or key.startswith("wandb.")


def is_default(key: str, value: Any) -> bool:
    """Whether ignoring the key changes nothing; logging to Weights & Biases is replaced by MLflow."""
    return key not in _INACTIVE or value in _INACTIVE[key]


def unsupported_message(key: str, value: Any) -> str:
    """Return the error message for an unsupported value."""
    advice = _ADVICE.get(key, "in the reference it has no effect or does not work")
    return f"{key} = {value!r} is not supported ({advice}): remove it."
