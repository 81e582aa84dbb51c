"""Steps that run the project's tests, its benchmarks, and the programs of the check."""

import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from commands import ROOT, Commands
from steps import Failed, Outcome

__all__ = ["Programs", "seconds_of", "table_of"]

HERE = Path(__file__).resolve().parent
RE_RANKING = "ranking with re-ranking"


@dataclass(frozen=True)
class Programs:
    """Programs of the project on one device; with tiny sizes if `quick`."""

    commands: Commands
    work: Path
    output: Path
    cuda: bool
    quick: bool

    @property
    def options(self) -> list[str]:
        return ["--device", "cuda" if self.cuda else "cpu", *["--quick"] * self.quick]

    def tests(self, limit: float) -> Outcome:
        """Run the tests marked `gpu`; without a GPU those of one name, only to check the command line.

        Only files with such tests are collected, because others import packages that a machine with a GPU may lack.
        """
        sources = sorted(Path(ROOT, "tests").rglob("test_*.py"))
        files = [path for path in sources if "pytest.mark.gpu" in path.read_text()]
        selection = ["-m", "gpu"] if self.cuda else ["-m", "not gpu", "-k", "test_both_ways_of_moving_pixels"]
        command = [sys.executable, "-m", "pytest", *selection, "-p", "no:cacheprovider", "-rfE", "--tb=short", *files]
        finished = self.commands.run("tests", command, limit)
        counts = re.findall(r"\d+ (?:passed|failed|error)[^\n]*", finished.out)
        closing = counts[-1] if counts else finished.last
        if finished.status:
            names = [
                name.split("::")[-1] for name in re.findall(r"^(?:FAILED|ERROR) (\S+)", finished.out, re.MULTILINE)
            ]
            raise Failed(f"{closing}: {', '.join(names) or f'status {finished.status}'}")
        return closing, {}

    def group(self, limit: float) -> Outcome:
        """Create a process group with one worker, and try its collectives and DistributedDataParallel."""
        values = self._run_program("group", limit, [])
        return f"{values['backend']}: collectives and DistributedDataParallel in a group of one worker", values

    def laboratory(self, limit: float) -> Outcome:
        """Run `laboratory.py`; its results are kept even if it fails."""
        values = self._run_program(
            "laboratory", limit, ["--seconds", int(limit - 5), "--profile", self.output / "profile.txt"]
        )
        return f"{len(values)} results, listed below", values

    def _run_program(self, name: str, limit: float, options: list[Any]) -> dict[str, Any]:
        file = self.work / f"{name}.json"
        path = os.pathsep.join(filter(None, [str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH")]))
        command = [sys.executable, HERE / f"{name}.py", "--file", file, *self.options, *options]
        finished = self.commands.run(name, command, limit, PYTHONPATH=path)
        values = json.loads(file.read_text()) if file.is_file() else {}
        if not values:
            raise Failed(f"status {finished.status}: {finished.last}")
        return values

    def benchmark(self, script: str, *options: str) -> Callable[[float], Outcome]:
        """Return a step that runs a benchmark with a table; the options apply to real sizes only."""

        def function(limit: float) -> Outcome:
            rows = table_of(self._run_benchmark(script, limit, options))
            values = {name: cells for name, cells in rows.items() if cells[1] and cells[1] != "not measured"}
            figures = [f"{name} {cells[1]}{f' ({cells[2]})' * bool(cells[2])}" for name, cells in values.items()]
            if not figures:
                raise Failed("no table in its output")
            return "; ".join(figures), rows

        return function

    def evaluation(self, limit: float) -> Outcome:
        """Rank and re-rank features of Market-1501's size; re-ranking on a GPU should take less than a second."""
        seconds = seconds_of(self._run_benchmark("evaluation.py", limit, ["--size", "market1501", "--no-numpy"]))
        text = "; ".join(f"{name} {value:.2f} s" for name, value in seconds.items())
        if self.cuda and seconds[RE_RANKING] >= 1:
            raise Failed(f"{text} (re-ranking should take less than 1 s)")
        return text, seconds

    def _run_benchmark(self, script: str, limit: float, options: tuple[str, ...] | list[str]) -> str:
        command = [sys.executable, f"benchmarks/{script}", *self.options, *([] if self.quick else options)]
        return self.commands.require(script, command, limit, TMPDIR=str(self.work)).out


def table_of(printed: str) -> dict[str, list[str]]:
    """Return the cells of a benchmark's table by the names of its rows."""
    lines = [text for text in printed.splitlines() if text.startswith("│")]
    rows = [[cell.strip() for cell in text.strip("│").split("│")] for text in lines]
    return {cells[0]: cells[1:] for cells in rows if cells[0]}


def seconds_of(printed: str) -> dict[str, float]:
    """Return the seconds by the names of the rows that `evaluation.py` prints, without those of numpy."""
    rows = re.findall(
        r"^ *(ranking\S*(?: \S+)*?|of it, \S+|with \S.*?|each further setting) {2,}([\d.]+)", printed, re.M
    )
    return {name: float(value) for name, value in rows}
