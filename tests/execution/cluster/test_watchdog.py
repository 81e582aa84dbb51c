"""A cluster that goes away, played by a port that nobody listens at any more."""

import subprocess
import sys

GONE = """
import socket, sys, time
from reid_tune.execution.cluster import watchdog as watch
watch.EVERY, watch.SILENCE = 0.05, 0.2
server = socket.create_server(("127.0.0.1", 0))
sys.argv = ["reid-tune", "sweep", "file.yaml"]
with watch.exit_when_cluster_is_lost(f"127.0.0.1:{server.getsockname()[1]}"):
    time.sleep(0.5)
    print("alive", flush=True)
    server.close()
    time.sleep(60)
"""


def test_a_command_ends_in_words_when_its_cluster_is_gone() -> None:
    done = subprocess.run([sys.executable, "-c", GONE], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (3, "alive\n")
    assert "is gone; nothing finished is lost, go on with: reid-tune sweep file.yaml --resume auto" in done.stderr
