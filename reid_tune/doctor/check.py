"""The result of one check."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from reid_tune.errors import ReidTuneError

__all__ = ["Check", "check_call", "report_checks"]


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        subject: What was checked, in a few words.
        detail: What was seen; an error says what to do, too.
        advice: What to do, if `detail` does not say it; empty if there is nothing to do.
        is_error: Whether `detail` is an error.
    """

    subject: str
    detail: str
    advice: str = ""
    is_error: bool = False

    @property
    def is_ok(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.advice or self.is_error)

    def as_dict(self) -> dict[str, Any]:
        """Return the result as plain data."""
        return {"subject": self.subject, "ok": self.is_ok, "detail": self.detail, "advice": self.advice}

    def __str__(self) -> str:
        advice = f": {self.advice}." if self.advice else ""
        return f"{'ok' if self.is_ok else 'finding':8}{self.subject}: {self.detail}{advice}"


def check_call(subject: str, call: Callable[[], str]) -> Check:
    """Return the result of a call that returns what it has seen, or raises an error that says what to do."""
    try:
        return Check(subject, call())
    except ReidTuneError as error:
        return Check(subject, str(error), is_error=True)
    except OSError as error:
        return Check(subject, f"{error.filename}: {error.strerror}", "check the path and its permissions")


def report_checks(checks: Sequence[Check]) -> dict[str, Any]:
    """Return checks as plain data, with the number of findings."""
    return {"findings": sum(not check.is_ok for check in checks), "checks": [check.as_dict() for check in checks]}
