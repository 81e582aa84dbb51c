"""Files of pretrained weights, without a network that they are for."""

from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor

from reid_tune.checkpoints.checkpoint import Checkpoint, is_checkpoint_content, is_encrypted_file, load_checkpoint
from reid_tune.checkpoints.third_party_file import read_third_party_weights
from reid_tune.errors import InputError
from reid_tune.storage.download_cache import ensure_local_file

__all__ = ["read_weights_file", "weights_images"]


def weights_images(file: str, passphrase: str | None) -> Tensor | None:
    """Return the fingerprints of the images that the weights in a file were trained on, see `Checkpoint`.

    None if the file does not have them, such as weights of another project. A process reads a file again only if it
    has changed.

    Raises:
        InputError: The file cannot be read.
    """
    path = ensure_local_file(file)
    try:
        state = path.stat()
    except OSError as error:
        raise InputError(f"cannot read the pretrained weights {path}: {error.strerror}.") from None
    return _images(path, passphrase, state.st_size, state.st_mtime_ns)


@cache
def _images(path: Path, passphrase: str | None, size: int, time: int) -> Tensor | None:
    _, checkpoint = read_weights_file(path, passphrase)
    return checkpoint.images if checkpoint else None


def read_weights_file(path: Path, passphrase: str | None) -> tuple[dict[str, Any], Checkpoint | None]:
    """Return a file's content, of a checkpoint of reid-tune its tensors by name, and that checkpoint."""
    if not is_encrypted_file(path):
        content = read_third_party_weights(path)
        if not is_checkpoint_content(content):
            return content, None
    checkpoint = load_checkpoint(path, passphrase)
    return dict(checkpoint.model), checkpoint
