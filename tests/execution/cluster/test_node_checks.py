import tempfile

import pytest
import ray

from reid_tune.execution.cluster.node_checks import _call_on_nodes
from reid_tune.execution.cluster.session import ray_session


@pytest.mark.integration
def test_a_node_that_has_left_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(prefix="rt", dir="/tmp", ignore_cleanup_errors=True) as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)  # Short enough for Ray's sockets.
        with ray_session():
            node = ray.get_runtime_context().get_node_id()
            nodes = {node: "127.0.0.1", node[::-1]: "10.77.0.2"}
            assert _call_on_nodes(nodes, lambda node_id: node_id.upper()) == {node: node.upper()}
