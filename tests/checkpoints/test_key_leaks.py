"""A training run with an encryption key, as a user starts it: the key is written down nowhere."""

import signal
from pathlib import Path

import pytest
import yaml

from reid_tune.checkpoints.checkpoint import load_checkpoint
from reid_tune.checkpoints.encryption import is_encrypted
from reid_tune.checkpoints.filenames import LATEST
from reid_tune.config.encryption_key import KEY_FILE_VARIABLE, KEY_VARIABLE

from ..helpers.cli_sweep import Bench
from ..helpers.leaks import command_lines, leaks, spellings

pytestmark = pytest.mark.integration

SECRET = "a+passphrase/that-stands-nowhere-4711"
SHORT = ("train.num_epochs=1", "train.optim.lr_steps=[1]", "dataset.validation=none")


@pytest.mark.parametrize("place", ["spec", "environment", "file"])
def test_the_key_of_a_training_run_is_only_where_the_user_wrote_it(place: str, tmp_path: Path) -> None:
    bench, allowed = Bench(tmp_path / "work"), []
    (tmp_path / "tmp").mkdir()
    bench.environment["TMPDIR"] = str(tmp_path / "tmp")
    if place == "spec":
        bench.write_spec(encryption_key=SECRET)
        allowed = [str(bench.folder / "spec.yaml")]
    elif place == "environment":
        bench.environment[KEY_VARIABLE] = SECRET
    else:
        (bench.folder / "key.txt").write_text(SECRET + "\n")
        bench.environment[KEY_FILE_VARIABLE] = "key.txt"
        allowed = [str(bench.folder / "key.txt")]
    done = bench.run("train", "-e", "spec.yaml", *SHORT)

    printed = (done.stdout + done.stderr).encode()
    assert b"training: " in printed and not [text for text in spellings(SECRET) if text in printed]
    assert leaks(SECRET, tmp_path) == allowed
    train = bench.folder / "results" / "train"
    spec = yaml.safe_load((train / "experiment.yaml").read_text())
    assert spec["train"]["num_epochs"] == 1 and not spec.get("encryption_key")
    checkpoints = sorted(train.glob("*.pth"))
    assert [path.name for path in checkpoints] == ["model_epoch_000.pth", LATEST]
    assert all(is_encrypted(path.read_bytes()) for path in checkpoints)
    loaded = load_checkpoint(train / LATEST, SECRET)
    assert loaded.epoch == 1 and "encryption_key" not in loaded.spec


def test_two_workers_have_the_key_from_the_spec_and_continue_with_it_only(tmp_path: Path) -> None:
    bench, command = Bench(tmp_path / "work"), ("train", "-e", "spec.yaml", *SHORT)
    (tmp_path / "tmp").mkdir()
    bench.environment["TMPDIR"] = str(tmp_path / "tmp")
    bench.write_spec(encryption_key=SECRET)
    lines: list[str] = []

    def seen() -> bool:
        lines.extend(command_lines(bench.pid))
        assert not leaks(SECRET, tmp_path / "tmp")
        return (bench.folder / "results" / "train" / LATEST).exists()

    status, errors = bench.interrupt(seen, signal.SIGCONT, *command, "train.num_gpus=2")
    assert status == 0, errors
    assert any("spawn_main" in line for line in lines), "the workers are looked at"
    assert not [line for line in lines if SECRET in line]
    assert leaks(SECRET, tmp_path) == [str(bench.folder / "spec.yaml")]

    latest = bench.folder / "results" / "train" / LATEST
    written = latest.read_bytes()
    bench.write_spec()
    longer = (*command, "train.num_epochs=2")
    bench.environment[KEY_VARIABLE] = "another passphrase"
    assert "the encryption key does not open " in bench.run(*longer, status=2).stderr
    del bench.environment[KEY_VARIABLE]
    assert f"{LATEST} is encrypted: give its key as encryption_key, " in bench.run(*longer, status=2).stderr
    assert latest.read_bytes() == written


def test_a_key_on_the_command_line_works_with_a_warning_and_is_nowhere_else(tmp_path: Path) -> None:
    bench, lines = Bench(tmp_path / "work"), list[str]()
    train = bench.folder / "results" / "train"

    def seen() -> bool:
        command_line, *others = command_lines(bench.pid)
        # A process that was just forked still has the command line of its parent.
        lines.extend(line for line in others if line != command_line)
        return (train / LATEST).exists()

    command = ("train", "-e", "spec.yaml", f"encryption_key={SECRET}", "train.num_gpus=2", *SHORT)
    status, errors = bench.interrupt(seen, signal.SIGCONT, *command)
    assert status == 0, errors
    assert errors.startswith("warning: other users of this machine can read encryption_key=... in the list of")
    assert any("spawn_main" in line for line in lines) and not [line for line in lines if SECRET in line]
    assert leaks(SECRET, tmp_path) == [] and load_checkpoint(train / LATEST, SECRET).epoch == 1
