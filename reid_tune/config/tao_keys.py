"""Keys of the reference (NVIDIA TAO) that are not in the schema: without effect there, or not supported here."""

from typing import Any

__all__ = ["has_wrong_values", "inactive_reason", "is_tao_key", "unsupported_message"]

_NOTHING = "as in the reference"
_JPM = "the reference reads it for JPM alone, which does not work there"
_SPLIT_TASK = "a task runs on one machine, as in the reference"

# Why a key does nothing, whatever its value.
_INACTIVE: dict[str, str] = {
    "model_name": "only the reference's launcher reads it",
    "model.cos_layer": _NOTHING,
    "model.devide_length": _JPM,
    "model.gem_pooling": f"{_NOTHING}, for GeM set model.pooling: gem",
    "model.id_loss_weight": _NOTHING,
    "model.jpm": "the reference reads it for a Swin alone",
    "model.re_arrange": _JPM,
    "model.shift_num": _JPM,
    "model.shuffle_group": _JPM,
    "model.sie_camera": _JPM,
    "model.sie_coe": _JPM,
    "model.sie_view": _JPM,
    "model.stem_conv": _NOTHING,
    "model.triplet_loss_weight": _NOTHING,
    "train.checkpoint_interval_unit": "epoch is the only one",
    "train.num_nodes": "a task runs on one machine",
    "train.optim.trp_l2": _NOTHING,
    "evaluate.batch_size": f"{_NOTHING}, dataset.val_batch_size sets it",
    "evaluate.num_nodes": _SPLIT_TASK,
    "evaluate.trt_engine": f"{_NOTHING}, evaluate.checkpoint may be an .onnx file",
    "inference.batch_size": f"{_NOTHING}, dataset.val_batch_size sets it",
    "inference.num_nodes": _SPLIT_TASK,
    "inference.trt_engine": f"{_NOTHING}, inference.checkpoint may be an .onnx file",
}
_WANDB = "runs are tracked in MLflow"

# Values that would change the result in the reference, or that it does not survive: the supported ones, and advice.
_SUPPORTED: dict[str, tuple[tuple[Any, ...], str]] = {
    "model.jpm": ((False, "false", "False"), "set it to false, as JPM does not work in the reference, or remove it"),
    "train.checkpoint_interval_unit": (
        ("epoch",),
        "set it to epoch and checkpoint_interval to a number of epochs",
    ),
    "train.num_nodes": ((1, "1"), "set it to 1; for several machines run a sweep on a Ray cluster"),
}


def is_tao_key(key: str) -> bool:
    """Whether the reference knows the key and the schema does not."""
    return key in _INACTIVE or key == "wandb" or key.startswith("wandb.")


def inactive_reason(key: str) -> str:
    """Return why a key of the reference has no effect."""
    return _INACTIVE.get(key, _WANDB)


def has_wrong_values(key: str, backbone: str) -> bool:
    """Whether some values of a key of the reference are refused; JPM is a part of the reference's Swins."""
    return key in _SUPPORTED and (key != "model.jpm" or "swin" in backbone)


def unsupported_message(key: str, value: Any, backbone: str, text: str) -> str | None:
    """Return the error message for a value that asks for something else than what would run, otherwise None.

    Args:
        key: Key of the reference.
        value: Its value.
        backbone: Backbone of the spec.
        text: Value as the message shows it.
    """
    if not has_wrong_values(key, backbone):
        return None
    supported, advice = _SUPPORTED[key]
    if value in supported:
        return None
    return f"{key} = {text} is not supported: {advice}."
