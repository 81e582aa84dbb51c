import pytest

from reid_tune.environment import is_secret_name


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
