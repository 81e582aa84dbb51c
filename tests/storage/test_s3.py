"""Objects of a bucket over HTTP, on each of the servers that speak S3 (tests/conftest.py)."""

import os
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from moto import settings

from reid_tune.errors import InfrastructureError, InputError
from reid_tune.storage import s3
from reid_tune.storage.object_store import is_url
from reid_tune.storage.s3 import S3Store


def test_objects_are_written_listed_read_and_removed(url: str, tmp_path: Path) -> None:
    bucket = S3Store(url)
    assert bucket.objects() == {} and bucket.folders() == []
    bucket.write("a/one.txt", b"1")
    (bucket / "a").write("two.txt", b"22")
    (tmp_path / "three").write_bytes(b"")
    bucket.upload(tmp_path / "three", "three")
    assert {name: stat.size for name, stat in bucket.objects().items()} == {"a/one.txt": 1, "a/two.txt": 2, "three": 0}
    assert set(bucket.objects("a")) == {"a/one.txt", "a/two.txt"} and set(bucket.objects(recursive=False)) == {"three"}
    assert bucket.folders() == ["a"]
    assert bucket.read("a/two.txt") == b"22" and bucket.read("a/none") is None and bucket.stat("a/none") is None
    bucket.remove("three")
    bucket.remove("three")
    bucket.remove_tree("a")
    bucket.remove_tree("a")
    assert bucket.objects() == {}


def test_files_of_any_size_come_back_as_they_were(url: str, tmp_path: Path) -> None:
    content = os.urandom(12_345_678)  # more than one part of an upload
    (tmp_path / "up").write_bytes(content)
    bucket = S3Store(url)
    bucket.upload(tmp_path / "up", "big")
    assert bucket.download("big", tmp_path / "new" / "down")
    assert (tmp_path / "new" / "down").read_bytes() == content
    assert not bucket.download("none", tmp_path / "new" / "none")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["down"], "nothing half-written"


def test_an_upload_to_another_server_than_amazons_is_the_content_alone(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_REQUEST_CHECKSUM_CALCULATION", raising=False)
    s3._filesystem.cache_clear()
    S3Store(url).write("a", b"1")
    assert os.environ["AWS_REQUEST_CHECKSUM_CALCULATION"] == "when_required"
    assert S3Store(url).read("a") == b"1"


WRONG = [
    "s3://",
    "s3:/bucket/x",
    "s3:///x",
    "gs://bucket/x",
    "s3://Bucket",
    "s3://b",
    "s3://bucket/x?y=1",
    "s3://bucket//x",
]


@pytest.mark.parametrize("wrong", [*WRONG, "s3://bucket/../x"])
def test_an_address_that_is_not_valid_is_said(wrong: str) -> None:
    assert is_url(wrong) and not is_url("/runs") and not is_url("runs:7")
    with pytest.raises(InputError, match="is not the address of a bucket: write s3://BUCKET or s3://BUCKET/PREFIX"):
        S3Store(wrong)


@pytest.mark.usefixtures("server")
def test_a_bucket_that_is_not_there_is_said() -> None:
    with pytest.raises(InputError, match="s3://nothing-there/x: there is no bucket nothing-there"):
        S3Store("s3://nothing-there/x").write("a", b"")
    for asked in (S3Store.objects, S3Store.folders):
        with pytest.raises(InputError, match="there is no bucket nothing-there"):
            asked(S3Store("s3://nothing-there/x"))


def test_a_server_that_does_not_answer_is_said(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{unheard.getsockname()[1]}")
        with pytest.raises(
            InfrastructureError, match="the server does not answer, check the network and AWS_ENDPOINT_URL"
        ):
            S3Store(url).objects()


class Refusal(BaseHTTPRequestHandler):
    """Answers every request with 403 and the code of an error."""

    code = ""

    def do_GET(self) -> None:
        body = f"<Error><Code>{self.code}</Code><Message>no</Message></Error>".encode()
        self.send_response(403)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_PUT = do_GET

    def log_message(self, *words: object) -> None:
        pass


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        ("SignatureDoesNotMatch", InputError, "access is denied"),
        ("ExpiredToken", InputError, "access is denied"),
        ("RequestTimeTooSkewed", InfrastructureError, "the clock of this machine differs too much"),
    ],
)
def test_each_refusal_says_what_to_do(
    code: str, kind: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Refusal, "code", code)
    monkeypatch.setattr(s3, "_MAX_ATTEMPTS", 1)
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusal) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
                monkeypatch.setenv(name, "someone")
            monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
            store = S3Store(f"s3://{code.lower()}/x")
            for action in (store.objects, lambda: store.write("a", b"")):
                with pytest.raises(kind, match=message):
                    action()
        finally:
            server.shutdown()


def test_a_refused_access_is_said(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0.0)  # From now on moto checks who asks.
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    s3._filesystem.cache_clear()
    with pytest.raises(InputError, match="access is denied: give this machine a role"):
        S3Store(url).objects()
    with pytest.raises(InputError, match="access is denied"):
        S3Store(url).write("a", b"")
    s3._filesystem.cache_clear()
