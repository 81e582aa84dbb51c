"""Checks of this machine and of what is installed on it; each takes what it judges as arguments."""

import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from pathlib import Path

import reid_tune
from reid_tune.doctor.check import Check, check_call
from reid_tune.storage.download_cache import cache_folder
from reid_tune.storage.temporary_folder import temporary_root
from reid_tune.training.compiler import find_compiler

__all__ = [
    "check_clock",
    "check_compiler",
    "check_disk",
    "check_gpus",
    "check_installation",
    "check_limit",
    "check_loopback",
    "check_packages",
    "check_python",
    "check_shared_memory",
]

_SHOWN_PACKAGES = ("reid-tune", "torch", "ray", "mlflow", "optuna")
_PYTHONS = ((3, 11), (3, 12))
_MIN_FILES = 4096  # open at once; a local cluster of Ray and its workers hold some hundred each
_MIN_PROCESSES = 2048  # threads count too
_MIN_ADDRESSES = 64 << 30  # bytes of addresses; PyTorch and Ray reserve many more than they use
_MIN_SHARED_MEMORY = 256 << 20  # bytes free; where there are fewer, Ray's object store is on the disk
_MIN_DISK = 2 << 30  # bytes free; a checkpoint of ResNet-50 with its optimizer has some 300 MB
_GPU_QUERY = ("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")


def check_installation() -> Iterator[Check]:
    """Check this machine, one aspect after the other."""
    yield check_python(sys.version_info[:3])
    yield from check_packages(metadata.requires("reid-tune") or [], _version)
    yield check_gpus(_nvidia_gpus(), *_torch_gpus())
    yield check_compiler("cuda" if _nvidia_gpus() else "cpu")
    yield check_shared_memory(Path("/dev/shm"))
    yield check_limit("open files (ulimit -n)", resource.RLIMIT_NOFILE, _MIN_FILES, "ulimit -n 65536")
    yield check_limit("processes (ulimit -u)", resource.RLIMIT_NPROC, _MIN_PROCESSES, "ulimit -u unlimited")
    yield check_limit("addresses (ulimit -v)", resource.RLIMIT_AS, _MIN_ADDRESSES, "ulimit -v unlimited")
    yield check_disk("temporary folder", temporary_root(), "set TMPDIR to another folder")
    yield _check_cache()
    yield check_disk("current folder", Path.cwd(), "free space, or go to another folder")
    yield check_clock(time.time(), Path(reid_tune.__file__).stat().st_mtime)
    yield check_loopback("127.0.0.1")


def check_python(version: tuple[int, ...]) -> Check:
    """Check the version of Python."""
    text = ".".join(map(str, version))
    supported = " or ".join(".".join(map(str, pair)) for pair in _PYTHONS)
    return Check("Python", text, "" if version[:2] in _PYTHONS else f"install reid-tune with Python {supported}")


def check_packages(requirements: Iterable[str], version_of: Callable[[str], str | None]) -> Iterator[Check]:
    """Check the versions of installed packages, and yield one line for the main ones.

    Args:
        requirements: Requirements such as `torch<2.15,>=2.11`; those of extras are left out.
        version_of: Function that returns the version of an installed package, or None.
    """
    from packaging.requirements import Requirement

    shown = {name: version_of(name) for name in _SHOWN_PACKAGES}
    yield Check("packages", ", ".join(f"{name} {version or 'missing'}" for name, version in shown.items()))
    for requirement in map(Requirement, requirements):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        version = version_of(requirement.name)
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            wanted_version = f"{requirement.name}{requirement.specifier}"
            yield Check(
                f"package {requirement.name}", version or "not installed", f"run pip install '{wanted_version}'"
            )


def check_gpus(installed: list[str], usable: int, problem: str) -> Check:
    """Check that PyTorch can use the GPUs of the machine.

    Args:
        installed: Name and version of the driver of each GPU, by nvidia-smi.
        usable: Number of GPUs that PyTorch can use.
        problem: Why PyTorch can use none, or its build; empty if it cannot tell.
    """
    if not installed and not usable:
        return Check("GPUs", "none: trainings use the CPU")
    names = (
        "; driver ".join(max(set(installed), key=installed.count).split(", ")) if installed else "without nvidia-smi"
    )
    detail = f"{usable} of {len(installed) or usable} usable ({names})"
    if usable or os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return Check("GPUs", detail)
    return Check(
        "GPUs", detail, f"install a PyTorch for this driver, or a newer driver ({problem or 'no reason given'})"
    )


def check_compiler(device_type: str) -> Check:
    """Check that torch.compile finds its compiler; without it trainings run uncompiled."""
    if path := find_compiler(device_type):
        return Check("compiler", path)
    program = "gcc" if device_type == "cuda" else "g++"
    return Check("compiler", f"there is no {program}", f"install {program}: torch.compile needs it")


def check_shared_memory(folder: Path) -> Check:
    """Check the shared memory in which Ray keeps its objects."""
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        return Check("shared memory", f"{folder} cannot be written", "mount a tmpfs there (docker run --shm-size=2g)")
    free = shutil.disk_usage(folder).free
    detail = f"{folder} has {_size(free)} free"
    return Check("shared memory", detail, "" if free >= _MIN_SHARED_MEMORY else "enlarge it (docker run --shm-size=2g)")


def check_limit(subject: str, limit: int, minimum: int, command: str) -> Check:
    """Check a limit of this process.

    Args:
        limit: Number of the limit, see the module `resource`.
        minimum: Smallest value that is enough.
        command: Command that raises it.
    """
    soft, _ = resource.getrlimit(limit)
    if soft == resource.RLIM_INFINITY:
        return Check(subject, "unlimited")
    return Check(subject, f"{soft:,}", "" if soft >= minimum else f"run '{command}' before reid-tune")


def check_disk(subject: str, folder: Path, advice: str, minimum: int = _MIN_DISK) -> Check:
    """Check that files can be written in a folder, which may not exist yet, and its free space.

    Args:
        advice: What to do otherwise.
        minimum: Bytes that must be free.
    """
    try:
        present = next(path for path in (folder, *folder.parents) if path.exists())
        with tempfile.TemporaryFile(dir=present) as file:
            file.write(b"reid-tune doctor")
        free = shutil.disk_usage(present).free
    except OSError as error:
        return Check(subject, f"{folder} cannot be written ({error.strerror})", advice)
    return Check(subject, f"{folder} has {_size(free)} free", "" if free >= minimum else advice)


def check_clock(now: float, installed: float) -> Check:
    """Check that the clock does not show a time before the installation.

    Args:
        now: Time of the clock in seconds since the epoch.
        installed: Time of the installation, likewise.
    """
    text = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    is_too_early = now < installed - 3600
    return Check("clock", text, "set the clock: reid-tune was installed later than this" if is_too_early else "")


def check_loopback(host: str) -> Check:
    """Check that a process can listen on a free port of this machine and be reached there."""
    try:
        with socket.create_server((host, 0)) as server:
            port = server.getsockname()[1]
            socket.create_connection((host, port), timeout=2.0).close()
    except OSError as error:
        return Check("ports", f"cannot listen on {host} ({error.strerror})", "bring the loopback interface up")
    return Check("ports", f"free ports on {host} can be used")


def _check_cache() -> Check:
    checks = list[Check]()

    def check() -> str:
        checks.append(check_disk("cache", cache_folder(), "set REID_TUNE_CACHE_DIR to another folder"))
        return ""

    failed = check_call("cache", check)
    return checks[0] if checks else failed


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _nvidia_gpus() -> list[str]:
    try:
        done = subprocess.run(_GPU_QUERY, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


def _torch_gpus() -> tuple[int, str]:
    """Return the number of GPUs that PyTorch can use, and what its build is for or why it cannot be imported."""
    try:
        import torch
    except Exception as error:  # A broken installation, or a limit on addresses
        return 0, f"torch cannot be imported: {error}"
    usable = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return usable, f"this PyTorch was built for {'CUDA ' + torch.version.cuda if torch.version.cuda else 'CPUs'}"


def _size(size: float) -> str:
    return f"{size / 1e9:,.1f} GB"
