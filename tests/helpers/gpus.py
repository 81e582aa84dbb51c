"""What a run's marker expression says about it."""

from _pytest.mark.expression import Expression

__all__ = ["hides_gpus", "is_unit_tier"]


def hides_gpus(expression: str) -> bool:
    """Whether the GPUs are hidden from a run with this marker expression: unless it selects tests marked `gpu`."""
    return bool(expression) and not Expression.compile(expression).evaluate(lambda name, **_: name == "gpu")


def is_unit_tier(expression: str) -> bool:
    """Whether a run with this marker expression leaves out the tests marked `integration`."""
    return bool(expression) and not Expression.compile(expression).evaluate(lambda name, **_: name == "integration")
