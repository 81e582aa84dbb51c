"""Errors of Ray Tune about its own files."""

from pathlib import Path

import pytest

from reid_tune.errors import InfrastructureError
from reid_tune.execution.tune_runner import _translate_errors


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
