import pytest

from reid_tune.errors import InfrastructureError, InputError
from reid_tune.storage import retry
from reid_tune.storage.retry import retry_while_unavailable


def test_a_server_that_comes_back_is_waited_for_and_one_that_stays_unreachable_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retry, "_PAUSE_SECONDS", 0.0)
    left = [InfrastructureError("unreachable"), InfrastructureError("unreachable"), None]

    def action() -> str:
        if error := left.pop(0):
            raise error
        return "done"

    assert retry_while_unavailable(action, 60) == "done"
    left[:] = [InfrastructureError("unreachable")] * 2
    with pytest.raises(InfrastructureError, match="unreachable"):
        retry_while_unavailable(action, -1)
    assert len(left) == 1


def test_what_is_wrong_is_said_at_once() -> None:
    asked: list[int] = []

    def action() -> None:
        asked.append(1)
        raise InputError("no such bucket")

    with pytest.raises(InputError):
        retry_while_unavailable(action)
    assert len(asked) == 1
