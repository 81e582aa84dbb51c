"""Signals end a command at once, with status 130 and one line, however early they arrive."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

# Sends a signal to this process when it imports a module for the first time, or to a command that waits for its input.
COMMAND = """
import os, signal, sys

class Sender:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), {number})

sys.meta_path.insert(0, Sender())
{before}
from reid_tune.cli import main
sys.argv = ["reid-tune", *{arguments!r}]
main()
"""
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
VALIDATE = ["spec", "validate", "spec.yaml"]


def run(folder: Path, module: str, number: int, arguments: list[str] = VALIDATE, before: str = "") -> tuple[int, str]:
    (folder / "spec.yaml").write_text("{}")
    code = COMMAND.format(module=module, number=int(number), arguments=arguments, before=before)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(
    "module",
    ["reid_tune.cli.commands", "typer", "reid_tune.cli.sweeps", "reid_tune.training.memory", "yaml", "pydantic"],
)
def test_a_signal_during_the_imports_is_one_line_and_130(tmp_path: Path, module: str, number: int) -> None:
    assert run(tmp_path, module, number) == (130, "reid-tune: stopped\n")


@pytest.mark.parametrize(
    "arguments", [["score", "f.npz"], ["sweeps"], ["report", "x"], ["check-data", "x"], ["--help"]]
)
def test_every_command_is_stopped(tmp_path: Path, arguments: list[str]) -> None:
    assert run(tmp_path, "reid_tune.cli.tasks", signal.SIGTERM, arguments) == (130, "reid-tune: stopped\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_the_shell_ignores_stays_ignored(tmp_path: Path, number: int) -> None:
    ignored = f"signal.signal({int(number)}, signal.SIG_IGN)"
    status, output = run(tmp_path, "yaml", number, before=ignored)
    assert status == 0 and "spec.yaml: valid" in output


@pytest.mark.parametrize("number", SIGNALS)
def test_a_second_signal_while_a_command_ends_says_nothing_more(tmp_path: Path, number: int) -> None:
    """The interpreter calls what libraries have registered for its end; nobody waits for it."""
    before = f"import atexit, time; atexit.register(lambda: (os.kill(os.getpid(), {int(number)}), time.sleep(60)))"
    assert run(tmp_path, "yaml", signal.SIGTERM, before=before) == (130, "reid-tune: stopped\n")


def test_ctrl_c_while_text_is_executed_sets_the_status_too(tmp_path: Path) -> None:
    """After that, `python -m` would end by SIGINT, whatever the status."""
    text = f"import os; os.kill(os.getpid(), {int(signal.SIGINT)})"
    (tmp_path / "command.py").write_text(
        "import sys, reid_tune.cli, reid_tune.cli.commands as commands\n"
        f"commands._run_command = lambda: exec({text!r})\n"
        "reid_tune.cli.main()\n"
    )
    command = [sys.executable, "-m", "command"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stderr) == (130, "reid-tune: stopped\n")
