import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from reid_tune.deploy.latency import _summary, measure_latency
from reid_tune.errors import InputError
from reid_tune.journal.provenance import processor_name

from .conftest import SMALL


def test_an_exported_file_is_timed_at_every_batch_size(exported: Callable) -> None:
    _, path, _ = exported(SMALL)
    result = measure_latency(path, (1, 3), seconds=1e6, runs=7, threads=1)
    assert result["threads"] == 1 and result["device"]
    assert list(result["batches"]) == ["1", "3"]
    for size, row in result["batches"].items():
        assert row["runs"] == 7 and 0 < row["median_ms"] <= row["p90_ms"]
        assert row["images_per_second"] == pytest.approx(1000 * int(size) / row["median_ms"])
    assert json.loads(json.dumps(result)) == result


def test_a_slow_model_is_run_three_times(exported: Callable) -> None:
    _, path, _ = exported(SMALL)
    result = measure_latency(path, (2,), seconds=0, runs=50)
    assert result["batches"]["2"]["runs"] == 3 and result["threads"] >= 1


def test_the_summary_is_of_whole_batches() -> None:
    times = np.random.default_rng(0).permutation(np.arange(1, 12) / 1000)
    assert _summary(times, 16) == pytest.approx(
        {"runs": 11, "median_ms": 6.0, "p90_ms": 10.0, "images_per_second": 16 / 0.006}
    )


def test_the_processor_is_named(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: A CPU @ 2: fast\nmodel name\t: other\n")
    assert processor_name(tmp_path / "cpuinfo") == "A CPU @ 2: fast"
    (tmp_path / "arm").write_text("processor\t: 0\nCPU part\t: 0xd0c\n")
    assert processor_name(tmp_path / "arm") == processor_name(tmp_path / "none") != ""


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("not a model")
    with pytest.raises(InputError, match="text.onnx is not an ONNX file"):
        measure_latency(tmp_path / "text.onnx")
