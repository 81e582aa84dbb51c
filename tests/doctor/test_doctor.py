"""What a file needs, the archive for a bug report, and the command."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from reid_tune.doctor.bundle import Redaction, write_bundle
from reid_tune.doctor.check import Check
from reid_tune.doctor.file_needs import check_file, check_storage, check_weights
from reid_tune.errors import InputError

from ..conftest import Command
from ..helpers.finished_sweep import simulate

SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "aws/secret+4711",
    "MLFLOW_TRACKING_PASSWORD": "pass word",
    "RAY_AUTH_TOKEN": "0123456789abcdef",
    "REID_TUNE_ENCRYPTION_KEY": "open sesame",
    "HF_TOKEN": "hf_abcdef",
}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a search-space file whose data exist."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    for folder in ("train", "query", "gallery"):
        for number in (1, 2):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / f"000{number}_c{number}s1_000001_00.jpg").write_bytes(b"image")
    folders = {
        f"{key}_dataset_dir": str(tmp_path / name)
        for key, name in {"train": "train", "query": "query", "test": "gallery"}.items()
    }
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump({"dataset": folders, "encryption_key": "hush hush"}))
    tree = {
        "name": "simulated",
        "spec": "spec.yaml",
        "space": {"train.optim.base_lr": {"loguniform": [1e-4, 1e-2]}},
        "budget": {"trials": 3},
        "storage": "runs",
        "registry": {"model": "m"},
    }
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(tree))
    return tmp_path


def findings(checks: Any) -> dict[str, str]:
    return {check.subject: str(check) for check in checks if not check.is_ok}


def test_a_file_with_all_that_it_needs(data: Path) -> None:
    before = sorted(data.iterdir())
    for file in ("sweep.yaml", "spec.yaml"):
        checks = list(check_file(data / file))
        assert findings(checks) == {} and len(checks) == 6
    assert sorted(data.iterdir()) == before, "nothing is written"


@pytest.mark.parametrize(
    ("changes", "subject", "part"),
    [
        ({"dataset": {"train_dataset_dir": "/nowhere"}}, "training data 1", "there is no folder /nowhere"),
        ({"dataset": {"train_dataset_dir": "/dev/null"}}, "training data 1", "/dev/null"),
        (
            {"dataset": {"train_dataset_dir": "train", "query_dataset_dir": "none"}},
            "queries",
            "there is no folder none",
        ),
        ({"dataset": {"train_dataset_dir": "train", "test_dataset_dir": "."}}, "gallery", "no usable image"),
        ({"model": {"pretrained_model_path": "none.pth"}}, "pretrained weights", "there is no file none.pth"),
        ({"model": {"pretrained_model_path": "spec.yaml"}}, "pretrained weights", "spec.yaml"),
        ({"model": {"pretrained_model_path": "models:/x@champion"}}, "pretrained weights", "there is no MLflow store"),
        ({"model": {"neck": "bn"}}, "file", "model.neck"),
        ({"results_dir": "/dev/null/x"}, "results", "cannot be written"),
    ],
)
def test_what_is_missing_is_a_finding(data: Path, changes: dict[str, Any], subject: str, part: str) -> None:
    (data / "bad.yaml").write_text(yaml.safe_dump(changes))
    assert part in findings(check_file(data / "bad.yaml"))[subject]


def test_files_that_cannot_be_read(data: Path) -> None:
    (data / "bad.yaml").write_text("name: [")
    for name, part in {"none.yaml": "cannot read", "bad.yaml": "not valid YAML"}.items():
        assert part in findings(check_file(data / name))["file"]


@pytest.mark.parametrize(
    ("uri", "part"),
    [("http://me:hush@127.0.0.1:9", "http://127.0.0.1:9 does not answer"), ("htp://x", "is not of a kind")],
)
def test_a_tracking_server_that_cannot_be_used(
    data: Path, monkeypatch: pytest.MonkeyPatch, uri: str, part: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    line = findings(check_file(data / "sweep.yaml"))["tracking server"]
    assert part in line and "hush" not in line


def test_a_storage_in_a_bucket(url: str, server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.items():
        monkeypatch.setenv(name, value)
    assert check_storage(url).is_ok
    assert "there is no bucket" in str(check_storage("s3://no-such-bucket/x"))
    assert not check_weights(f"{url}/none.pth").is_ok


@pytest.mark.parametrize(
    "text",
    [
        "key aws/secret+4711 in a sentence",
        '{"a": "open sesame"}',
        "http://me:hush@host/path",
        "postgresql://user:pa@ss@host/db",
        "--token=abc",
        "token: 'abc'",
        'encryption_key="another one"',
        "https://host/x?signature=abc&b=c",
        "MLFLOW_TRACKING_PASSWORD=pass word",
        "Authorization: Bearer abc",
    ],
)
def test_no_secret_stays_in_a_text(text: str) -> None:
    redacted = Redaction(SECRETS).text(text)
    for secret in (*SECRETS.values(), "hush", "pa@ss", "abc", "another"):
        assert secret not in redacted
    assert Redaction(SECRETS).text("train.optim.base_lr = 0.001 at epoch 7") == "train.optim.base_lr = 0.001 at epoch 7"


def test_a_line_of_json_ends_where_it_did() -> None:
    line = '{"uri": "https://host/x?token=abc", "n": 1}'
    assert json.loads(Redaction({}).text(line)) == {"uri": "https://host/x?token=", "n": 1}


def test_settings_lose_only_their_secrets() -> None:
    tree = {"encryption_key": "x", "a": {"token": ["y"], "b": "z", "n": 1}, "dataset.api_key": None}
    assert Redaction({}).tree(tree) == {
        "encryption_key": "REMOVED",
        "a": {"token": ["REMOVED"], "b": "z", "n": 1},
        "dataset.api_key": None,
    }


def test_the_archive_has_no_secrets_and_no_images(data: Path) -> None:
    sweep = simulate(data, trials=3, until="search")
    run = sweep.folder / "trials" / "0000"
    run.mkdir(parents=True, exist_ok=True)
    (run / "log.txt").write_text("".join(f"line {number}\n" for number in range(1000)) + " ".join(SECRETS.values()))
    (run / "picture.png").write_bytes(b"image")
    spec = yaml.safe_load((data / "spec.yaml").read_text()) | {"encryption_key": "hush hush"}
    (data / "spec.yaml").write_text(yaml.safe_dump(spec))
    (sweep.folder / "confirm").mkdir(exist_ok=True)
    (sweep.folder / "confirm" / "log.txt").write_text("hush hush, said the key")
    names = write_bundle(data / "b.zip", [Check("a", "aws/secret+4711")], data / "sweep.yaml", SECRETS | {"HOME": "/x"})
    with zipfile.ZipFile(data / "b.zip") as archive:
        contents = {name: archive.read(name).decode() for name in archive.namelist()}
    assert list(contents) == names
    assert {"checks.json", "packages.txt", "file.yaml", "spec.yaml", "logs/events.jsonl"} <= contents.keys()
    assert contents["environment.txt"].split() == sorted([*SECRETS, "HOME"])
    log = contents["logs/trials/0000/log.txt"].splitlines()
    assert log[:2] == ["line 0", "... 801 lines ..."] and log[-2] == "line 999" and len(log) == 201
    for secret in (*SECRETS.values(), "hush"):
        assert secret not in "".join(contents.values()), secret
    assert not any(name.endswith((".png", ".jpg")) for name in contents)


def test_an_archive_that_cannot_be_written_leaves_nothing(data: Path) -> None:
    (data / "file").touch()
    with pytest.raises(InputError, match="cannot make the folder"):
        write_bundle(data / "file" / "b.zip", [], None, {})
    write_bundle(data / "b.zip", [], data / "none.yaml", {})
    assert "cannot read" in zipfile.ZipFile(data / "b.zip").read("file.yaml.error").decode()


def test_the_command(data: Path, command: Command) -> None:
    status, out, err = command("doctor", "sweep.yaml")
    lines = out.splitlines()
    assert err == "" and all(line.startswith(("ok      ", "finding ")) for line in lines)
    assert status == any(line.startswith("finding") for line in lines)
    (data / "spec.yaml").write_text("dataset: {train_dataset_dir: /nowhere}")
    status, out, err = command("doctor", "sweep.yaml", "--format", "json", "--bundle", "b.zip")
    content = json.loads(out)
    assert status == 1 and content["findings"] >= 1 and "b.zip: checks.json" in err
    assert any("there is no folder /nowhere" in check["detail"] for check in content["checks"])
    assert command("doctor", "--bundle", "b.txt")[:2] == (2, "")
