import os
import subprocess
import sys
from pathlib import Path

import pytest

from reid_tune.config.experiment import Experiment
from reid_tune.config.load import with_parameters
from reid_tune.errors import InputError
from reid_tune.tasks.train import run_train
from reid_tune.training.compiler import find_compiler, limit_compile_processes, require_compiler


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder that is the only one in PATH; CC and CXX are not set."""
    for variable in ("CC", "CXX"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def install(folder: Path, name: str) -> str:
    path = folder / name
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


def test_each_kind_of_device_has_its_compiler(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_compiler("cuda") is None and find_compiler("cpu") is None
    clang = install(programs, "clang")
    assert find_compiler("cuda") == clang and find_compiler("cpu") is None
    gcc, gxx = install(programs, "gcc"), install(programs, "g++")
    assert find_compiler("cuda") == gcc and find_compiler("cpu") == gxx
    monkeypatch.setenv("CC", "clang")
    monkeypatch.setenv("CXX", "g++ -O2")
    assert find_compiler("cuda") == clang and find_compiler("cpu") == gxx
    monkeypatch.setenv("CC", "clang -O2")  # Triton takes that for the name of a program.
    monkeypatch.setenv("CXX", "missing")
    assert find_compiler("cuda") is None and find_compiler("cpu") is None


def test_compiling_without_a_compiler_is_one_sentence(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    always, auto, never = (
        with_parameters(Experiment(), {"train.compile": value}, "test") for value in (True, "auto", False)
    )
    for experiment in (auto, never):
        require_compiler(experiment, "cuda")
    with pytest.raises(InputError) as caught:
        require_compiler(always, "cuda")
    assert str(caught.value) == (
        "train.compile = true needs a C compiler, but there is no gcc or clang on this machine: install gcc, or set "
        "train.compile: false."
    )
    monkeypatch.setenv("CXX", "missing")
    with pytest.raises(
        InputError, match=r"needs a C\+\+ compiler, but CXX = 'missing' is not a program on this machine"
    ):
        require_compiler(always, "cpu")
    with pytest.raises(InputError, match="train.compile = true needs a"):
        run_train(always)
    monkeypatch.delenv("CXX")
    install(programs, "g++")
    require_compiler(always, "cpu")


def test_the_users_number_of_compile_processes_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "TORCHINDUCTOR_COMPILE_THREADS"
    monkeypatch.setattr(os, "environ", {})
    limit_compile_processes(3)
    assert os.environ == {name: "3"}
    limit_compile_processes(5)
    assert os.environ == {name: "3"}


@pytest.mark.parametrize(
    ("variables", "spins"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None")],
)
def test_threads_that_wait_sleep_soon_unless_the_user_says_otherwise(variables: dict[str, str], spins: str) -> None:
    code = "import reid_tune, os; print(os.environ.get('GOMP_SPINCOUNT'))"
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    environment = {name: value for name, value in os.environ.items() if name not in names} | variables
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == spins
