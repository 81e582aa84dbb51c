"""The end of the soak by a signal, with a sweep that does not end."""

import subprocess
import sys

import psutil

from .soak import stop

STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


def test_a_sweep_that_ignores_the_signal_is_killed_with_its_processes() -> None:
    process = subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE)
    assert process.stdout
    child = psutil.Process(int(process.stdout.readline()))
    stop(process, seconds=0.1)
    assert process.returncode == -9
    psutil.wait_procs([child], timeout=10)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    stop(process)
    process.stdout.close()
