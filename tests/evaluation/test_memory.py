"""Features whose distances would not fit: the growth of a process while it scores a file, in bytes."""

import json
import subprocess
import sys

import numpy as np
import pytest

pytestmark = pytest.mark.integration

SCORE = """
import json, sys
from pathlib import Path
import torch
from reid_tune.tasks.score import run_score
def peak():  # ru_maxrss would begin with that of the process that started this one
    return next(1024 * int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
torch.set_num_threads(1)
before = peak()
report = run_score(Path(sys.argv[1]), *sys.argv[2:] or [None], device="cpu")
print(json.dumps([report.score.queries, peak() - before]))
"""


def write(path, queries, gallery, dimension, identities):
    rng = np.random.default_rng(0)
    arrays = {}
    for side, count in (("query", queries), ("gallery", gallery)):
        arrays[f"{side}_features"] = rng.standard_normal((count, dimension), dtype=np.float32)
        arrays[f"{side}_ids"], arrays[f"{side}_cameras"] = np.arange(count) % identities, np.arange(count) % 7
    np.savez(path, **arrays)
    return path


def growth(path, *arguments):
    """Queries and growth of a new process."""
    command = [sys.executable, "-c", SCORE, str(path), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_score_needs_far_less_than_the_distance_matrix(tmp_path):
    queries, found = growth(write(tmp_path / "f.npz", 2_000, 60_000, 64, 500))
    matrix = 2_000 * 60_000 * 4
    assert queries == 2_000 and 0 < found < 0.6 * matrix


@pytest.mark.parametrize(("arguments", "beside"), [((), 100e6), (("10,3,0.3",), 150e6)])
def test_wide_features_are_held_once_beside_their_file(tmp_path, arguments, beside):
    queries, found = growth(write(tmp_path / "f.npz", 300, 8_000, 4_096, 400), *arguments)
    features = 8_300 * 4_096 * 4
    assert queries == 300 and features < found < 2 * features + beside
