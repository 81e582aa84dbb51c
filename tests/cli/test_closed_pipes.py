"""Pipes and connections whose reader has ended: one sentence, and silence where it is the output."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = """
import os, socket, sys
from multiprocessing import Pipe
from reid_tune import cli
from reid_tune.cli.common import app

@app.command()
def write():
{body}

sys.argv = ["reid-tune", *{arguments!r}]
cli.main()
"""


def run(body: str, arguments: tuple[str, ...] = ("write",), **streams: int) -> tuple[int, str, str]:
    code = COMMAND.format(body="\n".join(f"    {line}" for line in body.splitlines()), arguments=list(arguments))
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
    done = subprocess.run([sys.executable, "-c", code], text=True, check=False, **streams)
    return done.returncode, done.stdout or "", done.stderr or ""


ENCRYPT = """
from reid_tune.checkpoints import encryption
sys.executable = {program!r}
encryption.encrypt_in_subprocess(bytes(10**7), 'key')"""


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "reader, writer = os.pipe()\nos.close(reader)\nos.write(writer, b'x')",
            "was written to has ended (Broken pipe)",
        ),
        ("one, other = socket.socketpair()\nother.close()\none.sendall(bytes(10**6))", "was written to has ended"),
        ("one, other = Pipe()\nother.close()\none.send('x')", "was written to has ended"),
        ("reader, writer = Pipe(duplex=False)\nreader.close()\nwriter.send('x')", "was written to has ended"),
        (ENCRYPT.format(program="/bin/false"), "the process that encrypts a checkpoint failed with status 1"),
        (
            ENCRYPT.format(program="/bin/true"),
            "the process that encrypts a checkpoint failed with status 0 (no",
        ),
    ],
    ids=["pipe", "socket", "connection", "one way", "child fails", "child ends"],
)
def test_a_write_to_something_that_has_ended_is_one_sentence_and_3(body: str, message: str) -> None:
    status, output, errors = run(body)
    assert (status, output) == (3, "") and errors.startswith("reid-tune: ") and errors.count("\n") == 1
    assert message in errors


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize(
    ("body", "arguments"),
    [
        ("pass", ("spec", "schema")),
        ("pass", ("--help",)),
        ("print('x' * 100)", ("write",)),
        ("print('x' * 10**6)", ("write",)),
        ("from reid_tune.tables import print_metrics\nprint_metrics({'a': {'b': 1.0}})", ("write",)),
        ("print('x', file=sys.stderr)", ("write",)),
    ],
    ids=["schema", "help", "buffered", "long", "table", "errors"],
)
def test_a_command_whose_reader_has_ended_ends_as_by_sigpipe(
    stream: str, body: str, arguments: tuple[str, ...]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        status, output, errors = run(body, arguments, **{stream: writer})
    finally:
        os.close(writer)
    writes_there = (stream == "stderr") == ("stderr" in body)
    assert status == (-signal.SIGPIPE if writes_there else 0)
    assert errors == "" or not writes_there


def test_a_pipeline_prints_the_first_line_only(tmp_path: Path) -> None:
    command = f"{sys.executable} -m reid_tune spec schema | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "{\n", "")
