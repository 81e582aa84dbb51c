from pathlib import Path

import pytest

from reid_tune.environment import compiler_cache, is_secret_name


@pytest.mark.parametrize(
    "name",
    [
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "MLFLOW_TRACKING_PASSWORD",
        "MLFLOW_TRACKING_TOKEN",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "HF_TOKEN",
        "RAY_AUTH_TOKEN",
        "REID_TUNE_ENCRYPTION_KEY",
        "my_db_passwd",
        "Azure_Client_Secret",
        "passphrase",
    ],
)
def test_a_name_of_a_secret_is_recognised(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize("name", ["HOME", "PATH", "OMP_NUM_THREADS", "MLFLOW_TRACKING_URI", "DATA_DIR", "SEED"])
def test_other_names_are_not(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"REID_TUNE_CACHE_DIR": "{folder}"}, "{folder}/compiled"),
        ({"REID_TUNE_CACHE_DIR": "{folder}/a/b"}, "{folder}/a/b/compiled"),
        ({"REID_TUNE_CACHE_DIR": "~/x"}, "{folder}/home/x/compiled"),
        ({"XDG_CACHE_HOME": "{folder}"}, "{folder}/reid-tune/compiled"),
        ({}, "{folder}/home/.cache/reid-tune/compiled"),
        ({"REID_TUNE_CACHE_DIR": "relative"}, None),
        ({"REID_TUNE_CACHE_DIR": "/dev/null/folder"}, None),
        ({"REID_TUNE_CACHE_DIR": "", "XDG_CACHE_HOME": "{folder}/c"}, "{folder}/c/reid-tune/compiled"),
    ],
)
def test_what_is_compiled_is_kept_in_the_users_cache(
    variables: dict[str, str], expected: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("REID_TUNE_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(folder=tmp_path))
    result = compiler_cache()
    assert result == ({"TORCHINDUCTOR_CACHE_DIR": expected.format(folder=tmp_path)} if expected else {})
    assert [path.name for path in tmp_path.rglob("*")] == ["home"], "nothing is created"
