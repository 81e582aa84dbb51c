"""The task `triton repository`: a model in a repository that Triton serves."""

import re
from pathlib import Path

from reid_tune.deploy.triton.config import ServingOptions
from reid_tune.deploy.triton.repository import WrittenModel, write_repository
from reid_tune.tasks.references import ONNX, is_reference, resolve

__all__ = ["run_triton_repository"]

_NAMED = re.compile(r"(?:models:/|sweep:)([^@/]+)")


def run_triton_repository(
    reference: str, folder: Path, *, name: str | None, serving: ServingOptions, version: int | None, overwrite: bool
) -> WrittenModel:
    """Put what a reference names into a repository.

    Args:
        reference: An .onnx file, or what else `resolve` takes.
        name: By default that of the registered model, the sweep or the file.

    Raises:
        InputError: see `resolve` and `write_repository`.
    """
    path = resolve(reference, ONNX)
    match = _NAMED.match(reference) if is_reference(reference) else None
    name = name or (match[1] if match else path.stem)
    return write_repository(path, folder, name=name, serving=serving, version=version, overwrite=overwrite)
