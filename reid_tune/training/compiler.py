"""The compiler that torch.compile needs, and the processes in which it compiles.

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

# By the kind of device: language, variable and programs. On a GPU Triton compiles its launchers, as its
# `_find_compiler` says; on a CPU PyTorch's inductor compiles the kernels themselves, as its `config.cpp.cxx` says.
_COMPILERS = {"cuda": ("C", "CC", ("gcc", "clang")), "cpu": ("C++", "CXX", ("g++",))}


def find_compiler(device_type: str) -> str | None:
    """Path of the compiler that torch.compile uses for a kind of device (cuda or cpu); None where there is none."""
    _, variable, programs = _COMPILERS[device_type]
    if command := os.environ.get(variable, "").strip():
        # Triton calls CC as one program; inductor divides CXX into a program and its options.
        return shutil.which(command if device_type == "cuda" else shlex.split(command)[0])
    return next(filter(None, map(shutil.which, programs)), None)


def require_compiler(experiment: "Experiment", device_type: str) -> None:
    """Raise an InputError where `train.compile` is true and the compiler for this kind of device is missing."""
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
    """Let torch.compile start as many processes as this worker has CPUs, unless the user's environment says how many.

    Its default is one for each core of the machine, 32 at most, in each worker. Read as torch._inductor is imported.
    """
    set_defaults({"TORCHINDUCTOR_COMPILE_THREADS": str(cpus)})
