"""Checks of a machine: each judges what it is given."""

import os
import resource
from pathlib import Path

import pytest

from reid_tune.doctor.check import Check, check_call, report_checks
from reid_tune.doctor.installation import (
    check_clock,
    check_compiler,
    check_disk,
    check_gpus,
    check_installation,
    check_limit,
    check_loopback,
    check_packages,
    check_python,
    check_shared_memory,
)
from reid_tune.errors import InfrastructureError, InputError

VERSIONS = {"reid-tune": "0.1.0", "torch": "2.14.1", "ray": "2.60.0", "mlflow": "3.17.2", "optuna": "5.0.0"}


@pytest.mark.parametrize(
    ("version", "ok"), [((3, 11, 0), True), ((3, 12, 9), True), ((3, 10, 4), False), ((3, 13), False)]
)
def test_the_version_of_python(version: tuple[int, ...], ok: bool) -> None:
    check = check_python(version)
    assert check.is_ok is ok and check.detail == ".".join(map(str, version))


@pytest.mark.parametrize(
    ("requirements", "findings"),
    [
        (["torch<2.15,>=2.11", "ray[default,tune]<2.61,>=2.60", "mlflow>=3.17,<3.18"], []),
        (["torch>=3"], ["package torch: 2.14.1: run pip install 'torch>=3'."]),
        (["ray[tune]<2.60"], ["package ray: 2.60.0: run pip install 'ray<2.60'."]),
        (["numpy>=2.1"], ["package numpy: not installed: run pip install 'numpy>=2.1'."]),
        (["optuna>=5.0.0.dev0"], []),
        (['pytest>=8; extra == "dev"'], []),
        (['torch>=3; python_version < "3"'], []),
        (["optuna<5", "mlflow<3"], ["package optuna: 5.0.0", "package mlflow: 3.17.2"]),
    ],
)
def test_packages_that_do_not_fit_are_named(requirements: list[str], findings: list[str]) -> None:
    versions, *others = check_packages(requirements, VERSIONS.get)
    assert versions.detail == "reid-tune 0.1.0, torch 2.14.1, ray 2.60.0, mlflow 3.17.2, optuna 5.0.0"
    assert len(others) == len(findings)
    assert all(str(check).startswith(f"finding {start}") for check, start in zip(others, findings, strict=True))


H100 = ["NVIDIA H100, 570.86", "NVIDIA H100, 570.86"]


@pytest.mark.parametrize(
    ("installed", "usable", "problem", "line"),
    [
        ([], 0, "this PyTorch was built for CPUs", "ok      GPUs: none: trainings use the CPU"),
        (H100, 2, "", "ok      GPUs: 2 of 2 usable (NVIDIA H100; driver 570.86)"),
        (H100, 1, "", "ok      GPUs: 1 of 2 usable (NVIDIA H100; driver 570.86)"),
        (
            H100,
            0,
            "this PyTorch was built for CPUs",
            "finding GPUs: 0 of 2 usable (NVIDIA H100; driver 570.86): install a",
        ),
        ([], 1, "", "ok      GPUs: 1 of 1 usable (without nvidia-smi)"),
    ],
)
def test_gpus_that_pytorch_cannot_use(
    monkeypatch: pytest.MonkeyPatch, installed: list[str], usable: int, problem: str, line: str
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    check = check_gpus(installed, usable, problem)
    assert str(check).startswith(line) and problem in str(check) + problem * check.is_ok


def test_gpus_that_the_user_hides_are_no_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert check_gpus(H100, 0, "").is_ok


def test_the_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("CC", "CXX"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert str(check_compiler("cuda")) == "finding compiler: there is no gcc: install gcc: torch.compile needs it."
    (tmp_path / "g++").touch(0o755)
    assert str(check_compiler("cpu")) == f"ok      compiler: {tmp_path}/g++"


def test_the_shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_shared_memory(tmp_path).is_ok
    assert str(check_shared_memory(tmp_path / "none")).startswith(
        f"finding shared memory: {tmp_path}/none cannot be written: mount a tmpfs there"
    )
    monkeypatch.setattr("reid_tune.doctor.installation._MIN_SHARED_MEMORY", 1 << 60)
    assert "GB free: enlarge it" in str(check_shared_memory(tmp_path))


@pytest.mark.parametrize(("minimum", "ok"), [(1, True), (1 << 40, False)])
def test_a_limit_of_the_process(minimum: int, ok: bool) -> None:
    check = check_limit("open files (ulimit -n)", resource.RLIMIT_NOFILE, minimum, "ulimit -n 65536")
    unlimited = resource.getrlimit(resource.RLIMIT_NOFILE)[0] == resource.RLIM_INFINITY
    assert check.is_ok is (ok or unlimited)
    assert ok or unlimited or str(check).endswith(": run 'ulimit -n 65536' before reid-tune.")


def test_the_disk(tmp_path: Path) -> None:
    assert check_disk("storage", tmp_path / "not" / "yet", "go", minimum=1).is_ok
    assert list(tmp_path.iterdir()) == [], "nothing is left"
    assert str(check_disk("storage", tmp_path, "free space", minimum=1 << 60)).endswith(" GB free: free space.")
    (tmp_path / "file").touch()
    assert "file/x cannot be written (Not a directory): go." in str(
        check_disk("storage", tmp_path / "file" / "x", "go")
    )
    if os.geteuid():
        (tmp_path / "locked").mkdir(0o500)
        assert "(Permission denied): go." in str(check_disk("storage", tmp_path / "locked", "go"))


@pytest.mark.parametrize(("now", "ok"), [(0.0, False), (1e9, False), (1.7e9, True), (1.7e9 - 60, True), (1.9e9, True)])
def test_a_clock_behind_the_installation(now: float, ok: bool) -> None:
    assert check_clock(now, installed=1.7e9).is_ok is ok
    assert check_clock(0.0, 1.7e9).detail == "1970-01-01 00:00:00 UTC"


@pytest.mark.parametrize(("host", "ok"), [("127.0.0.1", True), ("192.0.2.1", False)])
def test_ports_of_this_machine(host: str, ok: bool) -> None:
    assert check_loopback(host).is_ok is ok


def test_errors_become_findings() -> None:
    def fail(error: Exception) -> str:
        raise error

    assert str(check_call("a", lambda: "seen")) == "ok      a: seen"
    for error in (InputError("x is wrong: y."), InfrastructureError("no server; start it.")):
        assert str(check_call("a", lambda error=error: fail(error))) == f"finding a: {error}"
    assert "finding a: /f: No such file or directory: check" in str(
        check_call("a", lambda: fail(FileNotFoundError(2, "No such file or directory", "/f")))
    )
    checks = [Check("a", "b"), Check("c", "d", "e"), Check("f", "g", is_error=True)]
    assert report_checks(checks)["findings"] == 2
    assert report_checks(checks)["checks"][1] == {"subject": "c", "ok": False, "detail": "d", "advice": "e"}


def test_this_installation_is_checked_line_by_line() -> None:
    checks = list(check_installation())
    assert len({check.subject for check in checks}) == len(checks) >= 13
    assert all("\n" not in str(check) for check in checks)
    assert next(check for check in checks if check.subject == "packages").detail.startswith("reid-tune 0.1.0, torch 2.")
