"""What Ray Tune would copy into the runtime environments of trials, and what reid-tune passes to Ray."""

from pathlib import Path
from typing import Any

import pytest
from ray.tune.execution import class_cache

from reid_tune.environment import is_secret_name
from reid_tune.execution import tune_runner
from reid_tune.execution.cluster import session, submit
from reid_tune.execution.ray_private import keep_secrets_out_of_trials

from ..helpers.simulated_driver import make_sweep
from .cluster.test_submit import OPTIONS, Client

SECRET = "nowhere-4711"
NAMES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SECURITY_TOKEN",
    "AWS_SESSION_TOKEN",
    "HF_TOKEN",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "RAY_AUTH_TOKEN",
)


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.setenv(name, SECRET)
    monkeypatch.setattr(class_cache, "ENV_VARS_TO_PROPAGATE", {*class_cache.ENV_VARS_TO_PROPAGATE, *NAMES})


def runtime_env() -> dict[str, str]:
    """Return the variables that Tune gives to the actor of a trial."""

    class Trainable:
        pass

    actor: Any = class_cache._ActorClassCache().get(Trainable)
    return dict(actor._default_options["runtime_env"]["env_vars"])


def test_tune_copies_no_secret_into_a_runtime_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    assert set(NAMES) <= runtime_env().keys(), "this test sees what Tune does"
    keep_secrets_out_of_trials()
    variables = runtime_env()
    assert variables["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] == "0.2", "what runs need is still copied"
    assert not [name for name in variables if is_secret_name(name)] and SECRET not in str(variables)


def test_runs_of_a_sweep_are_started_without_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, str]] = []

    def make_tuner(*arguments: Any) -> Any:
        seen.append(runtime_env())
        raise KeyboardInterrupt

    class Source:
        def is_done(self) -> bool:
            return False

    monkeypatch.setattr(tune_runner, "_make_tuner", make_tuner)
    with pytest.raises(KeyboardInterrupt):
        source: Any = Source()
        tune_runner.run_all(source, lambda: 1, 1, tmp_path / "ray", 600)
    assert len(seen) == 1 and SECRET not in str(seen)


def test_variables_that_are_passed_to_other_nodes_hold_no_secret() -> None:
    passed = {*session._WORKER_SETTINGS, *session._TUNE_SETTINGS, *session._PASSED_VARIABLES}
    assert {name for name in passed if is_secret_name(name)} == {session.KEY_FILE_VARIABLE}, "a path"


@pytest.mark.parametrize(
    "uri",
    [
        f"http://user:{SECRET}@server:5000",
        f"https://{SECRET}@server",
        f"postgresql://user:{SECRET}@server/db",
        f"postgresql://server/db?password={SECRET}",
        f"https://server/?access_token={SECRET}&x=1",
        f"http://user:a@{SECRET}/b@server",
        f"mysql+pymysql://u:{SECRET}@h/d?ssl_secret={SECRET}",
        f"mssql://server/db?odbc_connect=PWD%3D{SECRET}",
    ],
)
def test_a_submitted_job_has_no_secret(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    client = Client("SUCCEEDED", None)
    submit._start_job(client, make_sweep(tmp_path), OPTIONS)
    assert client.arguments["runtime_env"]["env_vars"] and SECRET not in str(client.arguments)
