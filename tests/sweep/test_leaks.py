import base64
from pathlib import Path

import pytest

from ..helpers.leaks import leaks

SECRET = "a+passphrase/that-is-nowhere-4711"


@pytest.mark.parametrize(
    "content",
    [
        SECRET.encode(),
        SECRET.encode("utf-16-le"),
        SECRET.encode().hex().encode(),
        SECRET.encode().hex().upper().encode(),
        *(base64.b64encode(b"key"[:before] + SECRET.encode() + b"\n") for before in range(3)),
        base64.urlsafe_b64encode(SECRET.encode()),
    ],
)
def test_a_secret_is_found_in_every_spelling(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file").write_bytes(b"\0before" + content + b"after\xff")
    (tmp_path / "other").write_bytes(content[:-16] + content[-15:])
    found = leaks(SECRET, tmp_path)
    assert found == [str(tmp_path / "deep" / "file")]


def test_a_secret_is_found_in_a_name(tmp_path: Path) -> None:
    (tmp_path / "hunter2hunter2.pth").touch()
    assert leaks("hunter2hunter2", tmp_path) == [str(tmp_path / "hunter2hunter2.pth")]
