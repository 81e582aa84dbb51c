"""Weight files of other tools, read without running any code that they may carry."""

import os
import re
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from reid_tune.errors import InputError

__all__ = ["read_third_party_weights"]

# Tools whose objects (configurations, callbacks, meters) stand beside the weights in a training checkpoint.
_TOOLS = (
    "lightning.",
    "lightning_fabric.",
    "mmengine.",
    "nvidia_tao_core.",
    "nvidia_tao_pytorch.",
    "omegaconf.",
    "pytorch_lightning.",
    "torchmetrics.",
    "yacs.",
)
_PLAIN = frozenset(
    {
        "_io.BytesIO",
        "argparse.Namespace",
        "collections.defaultdict",
        "datetime.datetime",
        "datetime.timedelta",
        "numpy._core.multiarray._reconstruct",
        "numpy._core.multiarray.scalar",
        "numpy.core.multiarray._reconstruct",
        "numpy.core.multiarray.scalar",
        "numpy.dtype",
        "numpy.ndarray",
        "pathlib.PosixPath",
        "pathlib.WindowsPath",
        "torch.torch_version.TorchVersion",
        "typing.Any",
        "typing.Union",
        *(
            f"builtins.{kind}"
            for kind in ("bool", "bytes", "dict", "float", "frozenset", "int", "list", "str", "tuple")
        ),
    }
)
_MAPPINGS = ("AttributeDict", "CfgNode", "ConfigDict", "defaultdict")


class _Inert:
    """Stands for an object of a class that is not imported: takes any construction and state, and keeps nothing."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _InertMapping:
    """Stands for a class of dictionaries: torch's reader fills none but its own."""

    def __new__(cls, *_: Any) -> OrderedDict:  # type: ignore[misc]
        return OrderedDict()


def read_third_party_weights(path: Path | str) -> dict[str, Any]:
    """Read a `.safetensors` file, or one that torch.save wrote in its present or its old form, onto the CPU.

    Objects of OmegaConf, Lightning, TAO and the like come back as empty placeholders.

    Raises:
        InputError: no such file, damaged or of another kind, with code, or with weights that TAO has encrypted.
    """
    path = Path(path)
    if not (path.is_file() and os.access(path, os.R_OK)):
        raise InputError(f"there is no file {path} with pretrained weights, or it may not be read.")
    try:
        content = load_file(path) if path.suffix == ".safetensors" else _unpickle(path)
    except InputError:
        raise
    except Exception as error:  # The readers raise whatever damaged bytes lead them to.
        if code := re.search(r"\bGLOBAL (\S+)", str(error)):
            raise _refusal(path, code[1]) from None
        raise InputError(
            f"{path} has no weights that can be read without running code, or it is damaged: give a file of "
            "torch.save or .safetensors with tensors and plain data."
        ) from None
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no weights by name, but one {type(content).__name__}: give a state_dict.")
    if content.get("state_dict_encrypted", False) is not False:
        raise InputError(f"{path} has weights that TAO has encrypted: decrypt it with TAO's own tools first.")
    return content


def _unpickle(path: Path) -> Any:
    names = set(_PLAIN)
    if zipfile.is_zipfile(path):
        for name in sorted(get_unsafe_globals_in_checkpoint(path)):
            if not name.startswith(_TOOLS) and name not in _PLAIN:
                raise _refusal(path, name)
            names.add(name)
    placeholders: list[Any] = [(_InertMapping if name.endswith(_MAPPINGS) else _Inert, name) for name in names]
    with safe_globals(placeholders), warnings.catch_warnings(action="ignore"):
        return torch.load(path, map_location="cpu", weights_only=True)


def _refusal(path: Path, name: str) -> InputError:
    shown = name if name.isprintable() else ascii(name)
    return InputError(
        f"{path} is refused: it carries {shown}, which is code: give a file with tensors and plain data only, such as "
        "a state_dict."
    )
