"""One short sweep on a real Ray: what a machine without test folders can do, and where its encryption key is not."""

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from reid_tune.checkpoints.encryption import is_encrypted
from reid_tune.config.encryption_key import KEY_VARIABLE
from reid_tune.journal.events import AttemptStarted
from reid_tune.journal.progress import read_sweep

from ..helpers.cli_sweep import Bench
from ..helpers.leaks import command_lines, files, leaks, spellings

SECRET = "a+passphrase/that-is-nowhere-4711"


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder for temporary files with a name that is short enough for Ray's sockets."""
    with tempfile.TemporaryDirectory(prefix="rt", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.mark.integration
def test_search_needs_no_test_folders_and_keeps_what_failed_apart(tmp_path: Path, temporary: Path) -> None:
    usual, absurd = [0.226] * 3, [1e-38] * 3  # the second overflows in the first convolution
    space = {"dataset.pixel_std": {"choice": [usual, absurd]}, "train.optim.name": {"choice": ["SGD"]}}
    bench = Bench(tmp_path, budget={"trials": 3}, space=space, search={"sampler": "random", "seed": 3})
    bench.write_spec(encryption_key=SECRET)
    bench.environment["TMPDIR"] = str(temporary)
    (tmp_path / "data" / "query").rename(tmp_path / "elsewhere")

    refused = bench.run("sweep", "sweep.yaml", status=2)
    assert "the stage test needs its folders" in refused.stderr
    assert not (tmp_path / "runs").exists()

    overrides = ("train.num_epochs=2", "train.optim.lr_steps=[2]")
    lines: list[str] = []

    def seen() -> bool:
        """Whether the last trial is at work, with all command lines noted; nothing may be found where Ray writes."""
        if bench.count(AttemptStarted) < 3:
            return False
        assert str(read_sweep(tmp_path / "runs" / "small")[1]) == "running: search"
        lines.extend(command_lines(bench.pid))
        assert any(path.name == "gcs_server.out" for path, _ in files(temporary)), "Ray's logs are looked at"
        assert not leaks(SECRET, temporary)
        return any("ray::ImplicitFunc" in line for line in lines)

    status, errors = bench.interrupt(seen, signal.SIGCONT, "sweep", "sweep.yaml", *overrides, "--until", "search")
    assert status == 0, errors
    assert "3 trials" in (tmp_path / "stdout.txt").read_text()
    assert "page: runs/small/report.html" in (tmp_path / "stdout.txt").read_text()
    assert "ended after search" in (tmp_path / "runs" / "small" / "report.html").read_text()
    assert "epoch 2" in bench.run("logs", "small/0").stdout
    _require_secrecy(bench, lines)
    lists = set(bench.folder.rglob("train.txt"))
    assert lists == {tmp_path / "runs" / "small" / "split" / "train.txt"}, "written by the sweep, not by its trials"
    trials = bench.report()["trials"]
    assert [trial["number"] for trial in trials] == [0, 1, 2]
    drawn = {trial["number"]: trial["parameters"].get("dataset.pixel_std") for trial in trials}
    assert usual in drawn.values() and absurd in drawn.values(), "the seed is chosen so that both are drawn"
    for trial in trials:
        if drawn[trial["number"]] == absurd:
            assert trial["state"] == "failed"
            assert "is not finite in epoch 1" in trial["reason"]
        else:
            assert trial["state"] == "finished" and trial["epoch"] == 2

    bench.write_spec()
    resume = ("sweep", "sweep.yaml", *overrides, "--until", "export", "--resume", "auto")
    assert "the sweep small is encrypted: give its key as" in bench.run(*resume, status=2).stderr
    bench.environment[KEY_VARIABLE] = "another one"
    assert "the encryption key does not open the sweep small: " in bench.run(*resume, status=2).stderr
    del bench.environment[KEY_VARIABLE]

    again = bench.run("sweep", "sweep.yaml", *overrides, "--until", "search", status=2)
    assert "--resume auto" in again.stderr
    other = bench.run("sweep", "sweep.yaml", "train.num_epochs=3", "--until", "search", "--resume", "auto", status=2)
    assert "train.num_epochs: 2 there, 3 now" in other.stderr


def _require_secrecy(bench: Bench, lines: list[str]) -> None:
    """The key is in the spec only, and yet the workers had it: all checkpoints are encrypted."""
    assert not [text for text in spellings(SECRET) if text in "\n".join(lines).encode()]
    assert leaks(SECRET, bench.folder) == [str(bench.folder / "spec.yaml")]
    checkpoints = [path for path, _ in files(bench.folder / "runs") if path.suffix == ".pth"]
    assert checkpoints and all(is_encrypted(path.read_bytes()) for path in checkpoints)
