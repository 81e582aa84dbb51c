"""Pretrained weights of a search space: `model.pretrained_model_path` may be searched as any other key."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reid_tune.checkpoints.filenames import is_reference
from reid_tune.storage.object_store import is_url

__all__ = ["WEIGHTS_KEY", "absolute_path", "absolute_weights", "replace_texts"]

WEIGHTS_KEY = "model.pretrained_model_path"


def absolute_path(path: str) -> str:
    """Return an absolute path; addresses such as `s3://BUCKET/KEY` stay."""
    return path if is_url(path) else str(Path(path).absolute())


def absolute_weights(value: Any) -> Any:
    """Return a value of `model.pretrained_model_path` with an absolute path; references and other types stay."""
    return absolute_path(value) if isinstance(value, str) and value and not is_reference(value) else value


def replace_texts(tree: Any, replacements: Mapping[str, str]) -> Any:
    """Return nested lists and mappings with some texts replaced, wherever they are keys or values."""
    if isinstance(tree, Mapping):
        return {replacements.get(key, key): replace_texts(value, replacements) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [replace_texts(value, replacements) for value in tree]
    return replacements.get(tree, tree) if isinstance(tree, str) else tree
