import io
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from reid_tune.errors import InputError
from reid_tune.journal.event_log import EVENTS, EventLog
from reid_tune.journal.events import EpochReported, RunEnded, RunSuggested
from reid_tune.journal.sweep_lookup import split_run_reference
from reid_tune.report.run_logs import LogFollower, logs_table, read_log

from ..helpers.events import attempt_started
from ..helpers.finished_sweep import simulate

pytestmark = pytest.mark.usefixtures("no_fsync")
ZERO = "trials/0000"


def begin(folder: Path, host: str = "elsewhere") -> Path:
    """A sweep whose driver works on another host, with trial 0 begun."""
    sweep = simulate(folder, until="", host=host)
    with EventLog(sweep.folder / EVENTS) as log:
        log.append(RunSuggested(run=ZERO, parameters={}))
        log.append(attempt_started(run=ZERO, attempt=1))
    return sweep.folder


def write(folder: Path, text: str, run: str = ZERO) -> None:
    path = folder / run / "log.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(text)


def read(folder: Path, run: str = ZERO, follow: bool = False) -> str:
    return "".join(read_log(folder.name, run, str(folder.parent), follow))


@pytest.mark.parametrize(
    ("text", "run"), [("a", ""), ("a/7", "trials/0007"), ("a/refit/winner", "refit/winner"), ("a/007", "trials/0007")]
)
def test_names_of_runs(text: str, run: str) -> None:
    assert split_run_reference(text) == ("a", run)


def test_a_log_is_shown_as_it_is(tmp_path: Path) -> None:
    folder = begin(tmp_path)
    write(folder, "one\n[bold]two \N{SNOWMAN}\n")
    assert read(folder) == "one\n[bold]two \N{SNOWMAN}\n"
    (folder / ZERO / "log.txt").write_bytes(b"\xff\n")
    assert read(folder) == "\N{REPLACEMENT CHARACTER}\n"


def test_what_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    folder = begin(tmp_path)
    with pytest.raises(InputError, match=r"the sweep simulated has no run trials/0007; its trials are 0 to 0\.$"):
        read(folder, "trials/0007")
    with pytest.raises(InputError, match=r"no run \.\./\.\./secret"):
        read(folder, "../../secret")
    with pytest.raises(InputError, match="trials/0000 of the sweep simulated has printed nothing so far"):
        read(folder)
    with pytest.raises(InputError, match="there is no sweep 'other'"):
        read_log("other", ZERO, str(folder.parent), False)


def test_following_shows_all_until_the_run_ends(tmp_path: Path) -> None:
    folder = begin(tmp_path)
    watched = LogFollower(folder, ZERO)

    def steps() -> Iterator[None]:
        write(folder, "first\n")
        yield
        write(folder, "second\n")
        yield
        yield
        with EventLog(folder / EVENTS) as log:
            log.append(RunEnded(run=ZERO, state="finished", epoch=1))
        write(folder, "last\n")
        yield

    moments = steps()
    assert list(watched.follow(lambda: next(moments))) == ["first\n", "second\n", "last\n"]


def test_following_ends_with_a_driver_that_is_gone(tmp_path: Path) -> None:
    folder = begin(tmp_path, socket.gethostname())
    assert read(folder, follow=True) == ""
    write(folder, "cut off")
    assert read(folder, follow=True) == "cut off"


def test_the_table_has_the_last_line_of_each_run(tmp_path: Path) -> None:
    folder = begin(tmp_path)
    write(folder, "x" * 9000 + "\nepoch 1 [/red]\n\n")
    write(folder, "y" * 100 + "\n", "trials/0001")
    with EventLog(folder / EVENTS) as log:
        log.append(EpochReported(run=ZERO, epoch=1, metrics={"mAP": 0.5}))
        log.append(RunSuggested(run="trials/0001", parameters={}))
    console = Console(file=io.StringIO(), width=200)
    console.print(logs_table(folder.name, str(folder.parent)))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()[3:5]
    assert [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines] == [
        [ZERO, "running", "1", "50.0", "epoch 1 [/red]"],
        ["trials/0001", "running", "0", "", "y" * 59 + "…"],
    ]
