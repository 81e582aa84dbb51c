"""Reading of other tools' weight files without executing any code that they may contain."""

import os
import re
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from reid_tune.checkpoints.damage import find_damaged_record, is_zip
from reid_tune.checkpoints.file_kind import describe_other_kind, is_safetensors
from reid_tune.errors import InputError

__all__ = ["read_third_party_weights"]

# Tools whose objects (configurations, callbacks, meters) are stored with the weights in a training checkpoint.
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
_MAX_NAME = 200  # characters of a name that a message shows; damage may make it as long as the file
_MAPPINGS = ("AttributeDict", "CfgNode", "ConfigDict", "defaultdict")


class _Placeholder:
    """Placeholder for an object of a class that is not imported: accepts any arguments and state, and ignores them."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _PlaceholderMapping:
    """Placeholder for a dictionary class: torch's reader fills only classes that it knows."""

    def __new__(cls, *_: Any) -> OrderedDict:  # type: ignore[misc]
        return OrderedDict()


def read_third_party_weights(path: Path | str) -> dict[str, Any]:
    """Read a file of safetensors, or of torch.save in its current or old format, onto the CPU, whatever its name is.

    Objects of OmegaConf, Lightning, TAO and similar tools are returned as empty placeholders. The checksums of
    torch.save's current format are verified; the other formats have none.

    Raises:
        InputError: The file is missing, damaged or of another kind, contains code, or has weights encrypted by TAO.
    """
    path = Path(path)
    if not (path.is_file() and os.access(path, os.R_OK)):
        raise InputError(f"the file {path} with pretrained weights does not exist or cannot be read.")
    try:
        content = load_file(path) if is_safetensors(path) else _load_with_placeholders(path)
    except InputError:
        raise
    except Exception as error:  # damaged bytes make the readers raise errors of any kind
        raise _read_error(path, error) from None
    if isinstance(content, list | tuple):
        content = {str(number): part for number, part in enumerate(content)}
    if not isinstance(content, dict):
        raise InputError(f"{path} contains a {type(content).__name__} instead of weights by name: give a state_dict.")
    if content.get("state_dict_encrypted", False) is not False:
        raise InputError(f"{path} has weights encrypted by TAO: decrypt it with TAO's tools first.")
    return content


def _load_with_placeholders(path: Path) -> Any:
    names = set(_PLAIN)
    with path.open("rb") as file:  # by its content: torch.load decides by the name of a path
        if is_zip(file) and describe_other_kind(path) is None:
            if record := find_damaged_record(file):
                raise InputError(
                    f"{path} is damaged: {record} in it differs from its checksum: download or copy the file again."
                )
            file.seek(0)
            for name in sorted(get_unsafe_globals_in_checkpoint(file)):
                if not name.startswith(_TOOLS) and name not in _PLAIN:
                    raise _rejection(path, name)
                names.add(name)
        placeholders: list[Any] = [
            (_PlaceholderMapping if name.endswith(_MAPPINGS) else _Placeholder, name) for name in names
        ]
        file.seek(0)
        with safe_globals(placeholders), warnings.catch_warnings(action="ignore"):
            return torch.load(file, map_location="cpu", weights_only=True)


def _read_error(path: Path, error: Exception) -> InputError:
    if kind := describe_other_kind(path):
        return InputError(f"{path} {kind}.")
    if code := re.search(r"\bGLOBAL (\S+)", str(error)):
        return _rejection(path, code[1])
    return InputError(
        f"{path} has no weights that can be read without executing code, or it is damaged: give a file of "
        "torch.save or .safetensors with tensors and plain data."
    )


def _rejection(path: Path, name: str) -> InputError:
    name = name if len(name) <= _MAX_NAME else f"{name[:_MAX_NAME]}..."
    printable_name = name if name.isprintable() else ascii(name)
    return InputError(
        f"{path} is rejected: it contains {printable_name}, which is code: give a file with tensors and plain data "
        "only, such as a state_dict."
    )
