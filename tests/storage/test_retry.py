import pytest

from reid_tune.errors import InfrastructureError, InputError
from reid_tune.storage import retry
from reid_tune.storage.retry import retry_while_unavailable


def test_what_comes_back_is_waited_for_and_what_stays_away_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "_PAUSE_SECONDS", 0.0)
    left = [InfrastructureError("away"), InfrastructureError("away"), None]

    def action() -> str:
        if error := left.pop(0):
            raise error
        return "done"

    assert retry_while_unavailable(action, 60) == "done"
    left[:] = [InfrastructureError("away")] * 2
    with pytest.raises(InfrastructureError, match="away"):
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
