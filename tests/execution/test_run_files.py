"""The files of a run of a sweep at s3://; the server is a stand-in for S3."""

from pathlib import Path
from typing import Any

import pytest

from reid_tune.checkpoints.filenames import LATEST
from reid_tune.errors import InfrastructureError
from reid_tune.execution.run_files import run_files
from reid_tune.storage import retry
from reid_tune.storage.s3 import S3Store

from ..helpers.s3_server import BUCKET, s3_server


def config(remote: str, **values: str) -> dict[str, Any]:
    run = "/sweeps/small/trials/0007"
    paths = {"folder": f"{run}/attempt-2", "log": f"{run}/log.txt", "resume": None, "features": f"{run}/features.npz"}
    return paths | {"sweep": "/sweeps/small", "remote": remote} | values


def test_files_in_a_folder_that_all_share_are_used_as_they_are() -> None:
    with run_files(config("")) as files:
        assert files.folder == Path("/sweeps/small/trials/0007/attempt-2") and files.resume is None
        files.push()


def test_a_node_without_the_bucket_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "RETRY_SECONDS", 0.0)
    log = "/sweeps/small/trials/0007/log.txt"
    refused = pytest.raises(InfrastructureError, match=r"node [\d.]+: s3://no-such-bucket/x: there is no bucket")
    with s3_server(), refused, run_files(config("s3://no-such-bucket/x", log=log)) as files:
        files.log.parent.mkdir(parents=True)
        files.log.write_text("printed\n")


def test_files_of_a_bucket_are_brought_and_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    (of_another_container := tmp_path / "reid-tune-run-999999999-x").mkdir()
    before = f"trials/0007/attempt-1/{LATEST}"
    with s3_server():
        bucket = S3Store(f"s3://{BUCKET}/small")
        bucket.write(before, b"epoch 3")
        bucket.write("trials/0007/log.txt", b"first\n")
        with run_files(config(bucket.url, resume=f"/sweeps/small/{before}")) as files:
            assert of_another_container.is_dir() and files.resume
            assert files.resume.read_bytes() == b"epoch 3" and files.log.read_bytes() == b"first\n"
            files.folder.mkdir(parents=True)
            (files.folder / LATEST).write_bytes(b"epoch 4")
            (files.folder / "model_epoch_003.pth").write_bytes(b"nobody reads it")
            files.push()
            assert bucket.read(f"trials/0007/attempt-2/{LATEST}") == b"epoch 4"
            with files.log.open("a") as log:
                log.write("second\n")
            assert files.features
            files.features.write_bytes(b"f")
        assert bucket.read("trials/0007/log.txt") == b"first\nsecond\n", "what was printed last, too"
        names = {before, f"trials/0007/attempt-2/{LATEST}", "trials/0007/log.txt", "trials/0007/features.npz"}
        assert set(bucket.objects()) == names
        assert list(tmp_path.iterdir()) == [of_another_container], "nothing stays on the machine"

        with run_files(config(bucket.url), rank=1) as files:
            files.folder.mkdir(parents=True)
            (files.folder / LATEST).write_bytes(b"of the second worker")
            files.push()
        assert set(bucket.objects()) == names
