import subprocess
import sys

import pytest

from .helpers.unit_tier.sitecustomize import FLAG

NESTED = "import subprocess; subprocess.run(['/no/such/ray' + 'let'])"  # in two parts: this text is an argument itself


@pytest.mark.parametrize(
    "command",
    [
        ["/no/such/gcs_server", "--port=0"],
        ["ray", "start", "--head"],
        [sys.executable, "-m", "mlflow", "server", "--port", "99999"],
        ["/no/such/pytriton/tritonserver/bin/tritonserver"],
        [sys.executable, "/no/such/benchmarks/export.py"],
    ],
)
def test_no_unit_test_starts_a_real_part(command: list[str]) -> None:
    with pytest.raises(RuntimeError, match="^a unit test starts '.*': mark it with pytest.mark.integration"):
        subprocess.run(command, check=False)


def test_no_process_of_a_unit_test_starts_a_real_part() -> None:
    done = subprocess.run([sys.executable, "-c", NESTED], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "a unit test starts '/raylet'" in done.stderr


def test_other_tests_may_start_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FLAG)
    done = subprocess.run([sys.executable, "-c", NESTED], capture_output=True, text=True, check=False)
    assert "No such file or directory: '/no/such/raylet'" in done.stderr
