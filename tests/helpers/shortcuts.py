"""What replaces slow parts in the unit tier, where other tests prove the real part; see `conftest.py`."""

import base64
import copy
import hashlib
import hmac
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

__all__ = ["age_encrypt", "encrypting_cheaply", "translating_once", "without_fsync"]

_ENCRYPT = f"""
import runpy, sys
key, _, content = sys.stdin.buffer.read().partition(b"\\n")
sys.stdout.buffer.write(runpy.run_path({__file__!r})["age_encrypt"](content, key.decode()))
"""


@contextmanager
def without_fsync() -> Iterator[None]:
    """Leave out the wait for the disk; a handle that is not open still fails."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: os.fstat(handle) and None)
        yield


def age_encrypt(content: bytes, key: str) -> bytes:
    """Content in the age format, by scrypt with 2 rounds instead of about a second of them.

    The number of rounds is in the header, so the genuine library decrypts it as fast.
    """
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    file_key, salt, nonce = os.urandom(16), os.urandom(16), os.urandom(16)
    wrapping = hashlib.scrypt(key.encode(), salt=b"age-encryption.org/v1/scrypt" + salt, n=2, r=8, p=1, dklen=32)
    body = _text(ChaCha20Poly1305(wrapping).encrypt(bytes(12), file_key, None))
    header = f"age-encryption.org/v1\n-> scrypt {_text(salt)} 1\n{body}\n---".encode()
    code = _text(hmac.digest(_derive(file_key, b"", b"header"), header, "sha256"))
    stream, size = ChaCha20Poly1305(_derive(file_key, nonce, b"payload")), 64 * 1024
    chunks = [content[start : start + size] for start in range(0, len(content), size)] or [b""]
    last = len(chunks) - 1
    sealed = [stream.encrypt(n.to_bytes(11) + bytes([n == last]), chunk, None) for n, chunk in enumerate(chunks)]
    return header + f" {code}\n".encode() + nonce + b"".join(sealed)


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode().rstrip("=")


def _derive(key: bytes, salt: bytes, purpose: bytes) -> bytes:
    """HKDF-SHA256 of one block."""
    return hmac.digest(hmac.digest(salt or bytes(32), key, "sha256"), purpose + b"\1", "sha256")


@contextmanager
def encrypting_cheaply() -> Iterator[None]:
    """Encrypt with a cheap key derivation, in this process and in the one that encrypts checkpoints."""
    import pyrage  # type: ignore[import-untyped]

    from reid_tune.checkpoints import encryption

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pyrage.passphrase, "encrypt", age_encrypt)
        patch.setattr(encryption, "_ENCRYPT", _ENCRYPT)
        yield


@contextmanager
def translating_once() -> Iterator[None]:
    """Let torch's exporter translate each network once, weights and all; an equal network gets a copy of the graph."""
    from reid_tune.deploy import onnx_export

    graphs: dict[bytes, Any] = {}
    translate: Callable[[Any, Any], Any] = onnx_export._translate

    def cached(network: Any, experiment: Any) -> Any:
        key = hashlib.sha256(f"{experiment.model.model_dump_json()} {network}".encode())
        for name, tensor in network.state_dict().items():
            key.update(name.encode() + tensor.numpy().tobytes())
        if key.digest() not in graphs:
            graphs[key.digest()] = translate(network, experiment)
        return copy.deepcopy(graphs[key.digest()])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_export, "_translate", cached)
        yield
