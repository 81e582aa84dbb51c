"""The commands about registered models as a user meets them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from ..helpers.registered_models import comparisons, put, write_files

Command = Callable[..., tuple[int, str, str]]
Run = Callable[[str], tuple[int, str, str]]


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store: of the model `people` version 2 beats 1, and 3, the challenger, beats neither."""
    folder = tmp_path_factory.mktemp("registry")
    files = write_files(folder)
    gains = (0.1, 0.2, 0.15)
    for number, (gain, comparison) in enumerate(zip(gains, comparisons(*gains), strict=True), 1):
        tags = {"sweep": f"week-{number}", "trial": "7", "test/mAP": f"{0.5 + gain:.4f}", "test/Rank-1": "0.9000"}
        values = {"tags": tags, "description": "**numbers**", "comparison": comparison}
        put(f"sqlite:///{folder}/mlflow.db", files, "people", f"week-{number}", **values)
    return folder / "mlflow.db"


@pytest.fixture
def run(command: Command, registered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `reid-tune registry` with some words on a copy of that store: its status, stdout and stderr."""
    shutil.copy(registered, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return lambda words: command("registry", *words.split())


def test_the_list(run: Run) -> None:
    status, out, err = run("list")
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if "│" in line]
    assert (status, err) == (0, "")
    assert [line[:6] for line in lines] == [
        ["people", "3", "challenger", "65.0", "90.0", "week-3"],
        ["people", "2", "champion", "70.0", "90.0", "week-2"],
        ["people", "1", "", "60.0", "90.0", "week-1"],
    ]
    assert all(line[6].endswith((" s", " min")) for line in lines)
    content = json.loads(run("list --format json")[1])
    assert [(line["version"], line["aliases"], line["mAP"]) for line in content] == [
        (3, ["challenger"], 0.65),
        (2, ["champion"], 0.7),
        (1, [], 0.6),
    ]
    assert yaml.safe_load(run("list --format yaml")[1]) == content


def test_all_about_a_version(run: Run, registered: Path) -> None:
    status, out, err = run("show people")
    assert (status, err) == (0, "") and out.startswith("people, version 2\naliases: champion\nregistered: 20")
    assert "\n\n**numbers**\n\n" in out and f"\nfiles: {registered.parent}/mlartifacts/week-2/" in out
    assert "+10.0 points of mAP against version 1" in out
    assert "\n1 version compared with version 2 so far: if none was better, the chance that" in out
    assert 'mlflow.pyfunc.load_model("models:/people@champion").predict(images)' in out
    assert out.endswith("reid-tune evaluate -e SPEC evaluate.checkpoint='models:/people@champion'\n")
    assert "evaluate.checkpoint='models:/people/1'" in run("show people/1")[1]
    content = json.loads(run("show people@challenger --format json")[1])
    assert (content["version"], content["tags"]["trial"], content["sweep"]) == (3, "7", "week-3")
    assert [change["version"] for change in content["history"]["champion"]] == [1, 2]
    assert yaml.safe_load(run("show people/3 --format yaml")[1]) == content


def test_an_alias_goes_there_and_back(run: Run) -> None:
    status, out, err = run("promote people 3")
    assert (status, out) == (2, "") and err == (
        "reid-tune: version 3 of people does not become champion: -5.0 points of mAP against version 2; "
        "--force REASON does it anyway.\n"
    )
    status, out, err = run("promote people 3 --force=")
    assert (status, out) == (2, "") and err.startswith("reid-tune: --force needs a reason")
    status, out, err = run("promote people 3 --force trial")
    assert (status, err) == (0, "") and out.startswith("models:/people@champion is version 3 now: forced by ")
    assert out.endswith(": trial (the check: -5.0 points of mAP against version 2)\n")
    assert run("rollback people") == (0, "models:/people@champion is version 2 now: rolled back from version 3\n", "")
    assert run("rollback people")[1] == "models:/people@champion is version 1 now: rolled back from version 2\n"
    status, out, err = run("rollback people")
    assert (status, out) == (2, "") and err == (
        "reid-tune: no other version of people that exists had the alias champion before; it has 1, 2, 3.\n"
    )
    status, out, err = run("promote people 2 --alias champion")
    assert (status, err) == (0, "") and "+10.0 points of mAP" in out
    assert run("promote people 3 --alias staging")[1].endswith("version 3 now: no other version had the alias\n")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("show other", "there is no model other in sqlite:///{}/mlflow.db; it has people."),
        ("show people/9", "the model people in sqlite:///{}/mlflow.db has no version 9; it has 1, 2, 3."),
        ("promote people 9", "the model people in sqlite:///{}/mlflow.db has no version 9; it has 1, 2, 3."),
        ("promote other 1", "there is no model other in sqlite:///{}/mlflow.db; it has people."),
        ("rollback other", "there is no model other in sqlite:///{}/mlflow.db; it has people."),
    ],
)
def test_what_is_unknown_is_one_sentence(run: Run, tmp_path: Path, words: str, sentence: str) -> None:
    assert run(words) == (2, "", f"reid-tune: {sentence.format(tmp_path)}\n")


@pytest.mark.parametrize("words", ["list", "show people", "promote people 1", "rollback people"])
def test_without_a_store_nothing_is_made(run: Run, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mlflow.db").unlink()
    missing = f"reid-tune: there is no MLflow store {tmp_path}/mlflow.db; set MLFLOW_TRACKING_URI.\n"
    assert run(words) == (2, "", missing)
    assert not [*tmp_path.iterdir()]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    status, out, err = run(words)
    assert (status, out) == (3, "") and err.startswith("reid-tune: the MLflow store http://127.0.0.1:9 does not answer")
    assert len(err.splitlines()) == 1


def test_an_empty_registry(run: Run, tmp_path: Path) -> None:
    from reid_tune.tracking.store import client

    (tmp_path / "mlflow.db").unlink()
    client(f"sqlite:///{tmp_path}/mlflow.db")
    store = f"sqlite:///{tmp_path}/mlflow.db"
    sentence = f"no model is registered in {store}: the stage register of a sweep registers its winner.\n"
    assert run("list") == (0, "", sentence)
    assert run("list --format json") == (0, "[]\n", sentence)
    assert (
        run("show people")[2]
        == f"reid-tune: there is no model people in sqlite:///{tmp_path}/mlflow.db; it has none.\n"
    )
