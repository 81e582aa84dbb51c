"""The compiler that torch.compile needs, and its number of processes.

Imports nothing heavy: processes that only supervise a run import this module too.
"""

import os
import shlex
import shutil
from typing import TYPE_CHECKING

from reid_tune.environment import set_defaults
from reid_tune.errors import InputError

if TYPE_CHECKING:
    from reid_tune.config.experiment import Experiment

__all__ = ["find_compiler", "limit_compile_processes", "require_compiler"]

# Language, environment variable and programs for each kind of device. On a GPU Triton compiles its launchers (see its
# `_find_compiler`); on a CPU PyTorch's inductor compiles the kernels themselves (see its `config.cpp.cxx`).
_COMPILERS = {"cuda": ("C", "CC", ("gcc", "clang")), "cpu": ("C++", "CXX", ("g++",))}


def find_compiler(device_type: str) -> str | None:
    """Return the path of the compiler that torch.compile uses, or None if there is none.

    Args:
        device_type: Kind of device, cuda or cpu.
    """
    _, variable, programs = _COMPILERS[device_type]
    if command := os.environ.get(variable, "").strip():
        # Triton calls CC as one program; inductor splits CXX into a program and its options.
        return shutil.which(command if device_type == "cuda" else shlex.split(command)[0])
    return next(filter(None, map(shutil.which, programs)), None)


def require_compiler(experiment: "Experiment", device_type: str) -> None:
    """Check that there is a compiler for this kind of device if `train.compile` is true.

    Raises:
        InputError: The compiler is missing.
    """
    if experiment.train.compile is not True or find_compiler(device_type):
        return
    language, variable, programs = _COMPILERS[device_type]
    if command := os.environ.get(variable, "").strip():
        problem = f"{variable} = {command!r} is not a program on this machine"
    else:
        problem = f"there is no {' or '.join(programs)} on this machine"
    raise InputError(
        f"train.compile = true needs a {language} compiler, but {problem}: install {programs[0]}, or set "
        "train.compile: false."
    )


def limit_compile_processes(cpus: int) -> None:
    """Let torch.compile start as many processes as this worker has CPUs, unless the user's environment sets a number.

    Without it each worker starts one process per core of the machine, 32 at most. torch._inductor reads the variable
    when it is imported.

    Args:
        cpus: Number of CPUs of this worker.
    """
    set_defaults({"TORCHINDUCTOR_COMPILE_THREADS": str(cpus)})
