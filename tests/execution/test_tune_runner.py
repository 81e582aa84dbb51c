"""What a killed driver has left of Ray's files."""

from pathlib import Path
from typing import Any

from reid_tune.execution.tune_runner import run_all


class NothingToRun:
    """A source whose runs have all ended, as a driver finds it that was killed right after the last one."""

    def is_done(self) -> bool:
        return True


def test_files_of_a_driver_that_was_killed_at_the_end_of_its_runs_are_removed(tmp_path: Path) -> None:
    scratch = tmp_path / "ray"
    (scratch / "ray-1").mkdir(parents=True)
    source: Any = NothingToRun()
    run_all(source, lambda: 1, 1, (), scratch, 600)
    assert list(tmp_path.iterdir()) == []
