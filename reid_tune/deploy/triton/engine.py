"""How a TensorRT engine is built, which only the GPU that serves it can do."""

import shlex
from pathlib import Path
from typing import Any

__all__ = ["ENGINE", "MODEL", "engine_command"]

# Files in the folder of a version.
MODEL, ENGINE = "model.onnx", "model.plan"

# The batch that TAO's guide tunes the engine for (https://docs.nvidia.com/tao/, TRTEXEC with ReIdentificationNet).
_TUNED_BATCH = 4


def engine_command(config: Any, folder: Path) -> str:
    """The shell command that builds `model.plan` from `model.onnx` in a version's folder.

    The engine computes in the precision of the file: TensorRT 11 knows no other way, and `--stronglyTyped` asks 10 for
    it (https://docs.nvidia.com/deeplearning/tensorrt/, Migrating trtexec Usage).

    Args:
        config: The model's ModelConfig message.
    """
    given, largest = config.input[0], config.max_batch_size
    batches = {"min": 1, "opt": min(_TUNED_BATCH, largest), "max": largest}
    shapes = {
        f"{key}Shapes": f"{given.name}:{'x'.join(map(str, [size, *given.dims]))}" for key, size in batches.items()
    }
    options = {"onnx": folder / MODEL, **shapes, "saveEngine": folder / ENGINE}
    return shlex.join(["trtexec", *(f"--{key}={value}" for key, value in options.items()), "--stronglyTyped"])
