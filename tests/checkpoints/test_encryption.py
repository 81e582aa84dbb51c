import base64
import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyrage  # type: ignore[import-untyped]
import pytest
import torch
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from reid_tune.checkpoints.checkpoint import (
    Checkpoint,
    is_encrypted,
    load_checkpoint,
    save_checkpoint,
    strip_checkpoint,
)
from reid_tune.checkpoints.encryption import decrypt, encrypt, encrypt_in_subprocess
from reid_tune.config.encryption_key import KEY_FILE_VARIABLE, KEY_VARIABLE, find_passphrase
from reid_tune.config.experiment import Experiment
from reid_tune.errors import InfrastructureError, InputError

SECRET = "correct horse, battery 4711 ü"
CHUNK = 64 * 1024 + 16  # of the payload: content and authentication tag


def make() -> Checkpoint:
    """More than one chunk."""
    return Checkpoint(
        spec={"model": {"backbone": "resnet18"}},
        epoch=1,
        identities=[7, 9],
        history=[{"epoch": 1, "loss": 0.5}],
        model={"w": torch.randn(200, 100, generator=torch.Generator().manual_seed(0))},
        optimizer={"state": {0: {"exp_avg": torch.ones(200, 100)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        centers=torch.arange(6.0).reshape(2, 3),
    )


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("encrypted") / "a.pth"
    save_checkpoint(path, make(), SECRET)
    return path


@pytest.fixture
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (KEY_VARIABLE, KEY_FILE_VARIABLE):
        monkeypatch.delenv(name, raising=False)


def refused(path: Path, key: str | None) -> str:
    with pytest.raises(InputError) as caught:
        load_checkpoint(path, key)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message and SECRET not in message
    return message


def test_another_process_encrypts_and_its_failure_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytes(range(256)) * 1000
    assert decrypt(encrypt_in_subprocess(content, SECRET), SECRET, "it") == content
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(InfrastructureError, match=r"failed with status 1 \(no message\): free memory"):
        encrypt_in_subprocess(content, SECRET)


def test_what_is_encrypted_is_read_with_its_key(encrypted: Path) -> None:
    made, loaded = make(), load_checkpoint(encrypted, SECRET)
    assert torch.equal(loaded.model["w"], made.model["w"])
    assert made.centers is not None and loaded.centers is not None and torch.equal(loaded.centers, made.centers)
    assert torch.equal(loaded.optimizer["state"][0]["exp_avg"], made.optimizer["state"][0]["exp_avg"])
    for part in ("spec", "epoch", "identities", "history"):
        assert getattr(loaded, part) == getattr(made, part)


def test_nothing_of_a_checkpoint_is_in_clear(encrypted: Path, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "plain.pth", make())
    plain, content = (tmp_path / "plain.pth").read_bytes(), encrypted.read_bytes()
    for part in (
        make().model["w"].numpy().tobytes()[:64],
        b"reid-tune checkpoint",
        b"resnet18",
        b"exp_avg",
        b"data.pkl",
    ):
        assert part in plain
        assert part not in content
    assert is_encrypted(content[:32]) and not is_encrypted(plain[:32])


def test_plain_weights_never_touch_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Just before the file gets its name, the folder contains the encrypted file alone."""
    seen: list[bytes] = []
    replace = os.replace

    def look(source: Any, target: Any) -> None:
        seen.extend(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
        replace(source, target)

    monkeypatch.setattr(os, "replace", look)
    save_checkpoint(tmp_path / "deep" / "a.pth", make(), SECRET)
    assert len(seen) == 1 and seen[0] == (tmp_path / "deep" / "a.pth").read_bytes() and is_encrypted(seen[0])


def test_a_missing_key_is_one_sentence(encrypted: Path) -> None:
    message = refused(encrypted, None)
    assert "is encrypted: give its key as encryption_key, " in message
    assert KEY_VARIABLE in message and KEY_FILE_VARIABLE in message


@pytest.mark.parametrize("wrong", ["correct horse, battery 4712 ü", ""])
def test_a_wrong_key_is_one_sentence(encrypted: Path, wrong: str) -> None:
    message = refused(encrypted, wrong)
    assert "the encryption key does not open" in message and KEY_VARIABLE in message and KEY_FILE_VARIABLE in message
    assert not wrong or wrong not in message


def test_a_key_changes_nothing_for_a_plain_file(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pth", make())
    assert torch.equal(load_checkpoint(tmp_path / "a.pth", SECRET).model["w"], make().model["w"])


def test_truncated_and_damaged_files_are_refused(encrypted: Path, tmp_path: Path) -> None:
    content, path = encrypted.read_bytes(), tmp_path / "b.pth"
    payload = content.index(b"\n", content.index(b"\n---") + 1) + 1 + 16  # after the header's last line and a nonce
    for length in (30, payload - 20, payload + CHUNK):
        path.write_bytes(content[:length])
        assert "is encrypted, but damaged" in refused(path, SECRET)
    path.write_bytes(content[: payload + 5] + bytes([content[payload + 5] ^ 1]) + content[payload + 6 :])
    assert "is encrypted, but damaged" in refused(path, SECRET)
    path.write_bytes(content[:10])
    assert "is not a checkpoint" in refused(path, SECRET)


def test_flipped_bits_of_an_encrypted_file_are_refused(encrypted: Path, tmp_path: Path) -> None:
    """The format authenticates every byte; a few are enough, as each try takes about a second by design."""
    content, path = encrypted.read_bytes(), tmp_path / "b.pth"
    for position in (30, content.index(b"\n---") + 8, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :])
        assert str(path) in refused(path, SECRET)


def test_files_that_others_encrypted_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(pyrage.encrypt(b"x", [pyrage.x25519.Identity.generate().to_public()]))
    assert "damaged or not with a passphrase (No matching keys found)" in refused(path, SECRET)
    path.write_bytes(encrypt(b"no checkpoint", SECRET))
    assert "is not a checkpoint: it is not a file written by torch.save" in refused(path, SECRET)


def test_a_stripped_copy_stays_encrypted(encrypted: Path, tmp_path: Path) -> None:
    strip_checkpoint(encrypted, tmp_path / "slim.pth", SECRET)
    assert is_encrypted((tmp_path / "slim.pth").read_bytes())
    slim = load_checkpoint(tmp_path / "slim.pth", SECRET)
    assert slim.optimizer == {} and slim.centers is None and torch.equal(slim.model["w"], make().model["w"])
    with pytest.raises(InputError, match="is encrypted: give its key"):
        strip_checkpoint(encrypted, tmp_path / "other.pth")
    assert os.listdir(tmp_path) == ["slim.pth"]


@pytest.mark.parametrize("key", ["two\nlines", "null\0", "\udc80"])
def test_a_key_that_is_not_one_line_of_text_is_refused(key: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the encryption key has an unprintable character"):
        save_checkpoint(tmp_path / "a.pth", make(), key)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("no_key")
def test_the_key_may_be_in_a_file(encrypted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "key.txt"
    file.write_text(f"{SECRET}\n", encoding="utf-8")
    monkeypatch.setenv(KEY_FILE_VARIABLE, str(file))
    assert load_checkpoint(encrypted, find_passphrase()).epoch == 1
    monkeypatch.setenv(KEY_VARIABLE, "from the environment")
    assert find_passphrase() == find_passphrase(Experiment()) == "from the environment"
    assert find_passphrase(Experiment(encryption_key="from the spec")) == "from the environment"
    monkeypatch.delenv(KEY_VARIABLE)
    assert find_passphrase(Experiment(encryption_key="from the spec")) == SECRET, "the file's"
    monkeypatch.delenv(KEY_FILE_VARIABLE)
    assert find_passphrase(Experiment(encryption_key="from the spec")) == "from the spec"
    with pytest.raises(InputError, match="the encryption key has an unprintable character"):
        find_passphrase(Experiment(encryption_key="null\0"))


@pytest.mark.usefixtures("no_key")
def test_a_file_without_a_key_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_passphrase(Experiment()) is None
    monkeypatch.setenv(KEY_FILE_VARIABLE, str(tmp_path / "key.txt"))
    with pytest.raises(InputError, match=r"cannot read .*key\.txt of REID_TUNE_ENCRYPTION_KEY_FILE"):
        find_passphrase()
    (tmp_path / "key.txt").write_text(" \n")
    with pytest.raises(InputError, match=r"key\.txt .* is empty: write the key into it"):
        find_passphrase()


@pytest.mark.integration
@pytest.mark.parametrize("encrypting", [encrypt, encrypt_in_subprocess])
def test_the_format_is_that_of_the_age_specification(encrypting: Callable[[bytes, str], bytes]) -> None:
    """C2SP age v1, from its primitives: scrypt wraps the file key, ChaCha20-Poly1305 the chunks."""
    content = os.urandom(70_000)
    header, _, payload = encrypting(content, SECRET).partition(b"\n--- ")
    payload = payload.partition(b"\n")[2]
    version, stanza, body = header.decode().splitlines()
    arrow, kind, salt, logarithm = stanza.split()
    assert (version, arrow, kind) == ("age-encryption.org/v1", "->", "scrypt")
    assert int(logarithm) > 10, "a guess is expensive"
    wrapping = hashlib.scrypt(
        SECRET.encode(),
        salt=b"age-encryption.org/v1/scrypt" + base64.b64decode(salt + "=="),
        n=2 ** int(logarithm),
        r=8,
        p=1,
        maxmem=2**31 - 1,
        dklen=32,
    )
    file_key = ChaCha20Poly1305(wrapping).decrypt(bytes(12), base64.b64decode(body + "=="), None)
    stream = ChaCha20Poly1305(HKDF(SHA256(), 32, payload[:16], b"payload").derive(file_key))
    chunks = [payload[16 + start : 16 + start + CHUNK] for start in range(0, len(payload) - 16, CHUNK)]
    last = len(chunks) - 1
    read = [stream.decrypt(n.to_bytes(11) + bytes([n == last]), chunk, None) for n, chunk in enumerate(chunks)]
    assert last == 1 and b"".join(read) == content
