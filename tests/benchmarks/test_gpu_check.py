"""The check of a machine with a GPU: its command lines on the CPU, and how it reads what they print."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

import reid_tune

BENCHMARKS = Path(reid_tune.__file__).parent.parent / "benchmarks"
CHECK = BENCHMARKS / "gpu" / "check.py"
STEPS = {
    *("data", "bf16", "evaluate", "export", "tests", "deterministic", "swin", "all-options", "fp16", "graphs"),
    *("chunks", "no-gpu", "gpu-ids", "group", "memory", "full_run", "training_step", "sharing", "evaluation", "lab"),
}


@pytest.fixture(scope="module")
def modules() -> Iterator[SimpleNamespace]:
    """The modules of the check, which import each other as scripts do; forgotten afterwards."""
    before = set(sys.modules)
    folders = [str(BENCHMARKS / "gpu"), str(BENCHMARKS)]
    sys.path[:0] = folders
    names = ("commands", "inspection", "programs", "steps", "training")
    yield SimpleNamespace(**{name: import_module(name) for name in names})
    for folder in folders:
        sys.path.remove(folder)
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(BENCHMARKS)):
            del sys.modules[name]


def runner(steps: ModuleType, file: Path, seconds: float = 100, **lists: list[str]) -> object:
    return steps.Runner(file, seconds, lists.get("only", []), lists.get("skip", []), 2)


def test_a_step_that_fails_stops_no_other(
    modules: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(limit: float) -> None:
        raise modules.steps.Failed("too slow")

    runs, limits = runner(modules.steps, tmp_path / "gpu.json"), []
    step = modules.steps.Step
    runs.run_chains([[step("slow", 10, fails), step("faulty", 10, lambda limit: 1 / 0)]], 1)
    runs.run(step("good", 10, lambda limit: (limits.append(limit) or "7 ms", [7])))
    results = json.loads((tmp_path / "gpu.json").read_text())
    assert [(name, result["status"], result["figure"]) for name, result in results.items()] == [
        ("slow", "FAIL", "too slow"),
        ("faulty", "FAIL", "ZeroDivisionError: division by zero"),
        ("good", "PASS", "7 ms"),
    ]
    assert runs.has_failed and limits == [20] and results["good"]["data"] == [7]
    assert [line.split()[:2] for line in runs.table()] == [["FAIL", "slow"], ["FAIL", "faulty"], ["PASS", "good"]]
    assert capsys.readouterr().out.splitlines() == runs.table()


def test_steps_are_left_out_by_name_and_where_no_time_is_left(modules: SimpleNamespace, tmp_path: Path) -> None:
    step = modules.steps.Step("name", 10, lambda limit: ("done", {}))
    for lists in ({"only": ["other"]}, {"skip": ["name"]}):
        runs = runner(modules.steps, tmp_path / "gpu.json", **lists)
        runs.run(step)
        assert not runs.results
        runs.run(step, always=True)
        assert runs.results["name"]["status"] == "PASS"
    late = runner(modules.steps, tmp_path / "gpu.json", seconds=5)
    late.run(step)
    assert late.results["name"]["status"] == "SKIP" and not late.has_failed


def test_commands_are_logged_and_their_faults_told(modules: SimpleNamespace, tmp_path: Path) -> None:
    commands, failed = modules.commands.Commands(tmp_path / "log.txt"), modules.steps.Failed
    says = [sys.executable, "-c", "import sys; print('reid-tune: too little memory', file=sys.stderr); sys.exit(3)"]
    assert commands.require_error("one", says, 60, (1, 3), "memory") == "reid-tune: too little memory"
    with pytest.raises(failed, match="status 3, expected 2: reid-tune: too little memory"):
        commands.require_error("one", says, 60, (2,), "memory")
    with pytest.raises(failed, match="status 3, expected 3"):
        commands.require_error("one", says, 60, (3,), "batch")
    with pytest.raises(failed, match="status 3: reid-tune: too little memory"):
        commands.require("one", says, 60)
    with pytest.raises(failed, match="a traceback, status 1: ZeroDivisionError"):
        commands.require_error("two", [sys.executable, "-c", "1 / 0"], 60, (1,), "")
    assert (tmp_path / "log.txt").read_text().count("=> 3") == 4
    assert modules.commands.last_line("one\n two \n\n") == "two" and modules.commands.last_line("\n") == ""


def test_what_commands_print_is_read(modules: SimpleNamespace) -> None:
    lines = ["epoch 1/2  loss 6.7  lr 0.1", "epoch 2/2  loss 5.1  lr 0.1"]
    assert modules.training.losses_of("\n".join(["plan", *lines, "done"])) == lines
    for text in ("no epoch", "epoch 1/1  loss nan  lr 0.1"):
        with pytest.raises(modules.steps.Failed):
            modules.training.losses_of(text)
    table = "title\n┃ ┃ a ┃ b ┃\n│ images/s │ 4 │ 8 │ 2.0x │ │\n│ peak, GB │ │ 9 │ │ │\n"
    assert modules.programs.table_of(table) == {"images/s": ["4", "8", "2.0x", ""], "peak, GB": ["", "9", "", ""]}
    printed = (
        "ranking                                0.36     0.64\n  plain numpy      2.08     2.52\n"
        "ranking with re-ranking                2.94     5.54\n  with 12 more: a grid     5.90  9.00\n"
        "each further setting                   0.25     0.44\n"
    )
    assert modules.programs.seconds_of(printed) == {
        "ranking": 0.36,
        "ranking with re-ranking": 2.94,
        "with 12 more: a grid": 5.9,
        "each further setting": 0.25,
    }


def test_gaps_are_times_in_which_no_kernel_runs(modules: SimpleNamespace) -> None:
    assert modules.inspection.gaps_between([(5, 6), (0, 2), (1, 4), (6, 7), (9, 10)]) == [1, 2]
    assert modules.inspection.gaps_between([]) == []


def check(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """A run of the check on a machine without what only sweeps and tracking need."""
    bare = folder / "bare"
    bare.mkdir()
    for name in ("ray", "mlflow", "optuna"):
        (bare / f"{name}.py").write_text(f"raise ModuleNotFoundError({name!r})\n")
    command = [sys.executable, str(CHECK), "--device", "cpu", "--quick", *options]
    environment = os.environ | {"OUT": str(folder), "PYTHONPATH": str(bare)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=folder)


def test_a_name_that_no_step_has_is_refused(tmp_path: Path) -> None:
    finished = check(tmp_path, "--skip", "compile,labour")
    assert finished.returncode == 1 and "there are no steps labour; there are compile, bf16," in finished.stderr


@pytest.mark.integration
@pytest.mark.timeout(1800)
def test_every_command_line_works_on_the_cpu(tmp_path: Path) -> None:
    """All steps but the one that compiles for a minute."""
    finished = check(tmp_path, "--skip", "compile", "--seconds", "1700")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    table = finished.stdout.rstrip().rpartition("\n\n")[2].splitlines()
    assert {tuple(line.split()[:2]) for line in table} == {("PASS", name) for name in STEPS}, finished.stdout
    results = json.loads((tmp_path / "gpu.json").read_text())
    faults = [value for value in results["lab"]["data"].values() if re.match(r"\w+(Error|Exception):", str(value))]
    assert not faults and "no time is left" not in results["lab"]["data"].values()
    assert results.keys() == STEPS and "=> 0" in (tmp_path / "log.txt").read_text()
    assert (tmp_path / "profile.txt").stat().st_size
