"""Ray's own files: errors about them, and what a killed driver has left of them."""

from pathlib import Path
from typing import Any

import pytest

from reid_tune.errors import InfrastructureError
from reid_tune.execution.tune_runner import _translate_errors, run_all


class NothingToRun:
    """A source whose runs have all ended, as a driver finds it that was killed right after the last one."""

    def is_done(self) -> bool:
        return True


def test_files_of_a_driver_that_was_killed_at_the_end_of_its_runs_are_removed(tmp_path: Path) -> None:
    scratch = tmp_path / "ray"
    (scratch / "ray-1").mkdir(parents=True)
    source: Any = NothingToRun()
    run_all(source, lambda: 1, 1, scratch, 600)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [
        OSError(30, "Read-only file system"),
        ValueError("No experiment snapshot file of form 'experiment_state-*.json' was found at: /x"),
    ],
)
def test_files_of_ray_that_cannot_be_written_end_a_sweep_with_one_sentence(error: Exception) -> None:
    with (
        pytest.raises(InfrastructureError, match="cannot write /x: .* continue with --resume auto"),
        _translate_errors(Path("/x")),
    ):
        raise error


def test_another_error_is_not_hidden() -> None:
    with pytest.raises(ValueError, match="another"), _translate_errors(Path("/x")):
        raise ValueError("another")
