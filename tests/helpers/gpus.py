"""Which test runs may see the machine's GPUs."""

from _pytest.mark.expression import Expression

__all__ = ["hides_gpus"]


def hides_gpus(expression: str) -> bool:
    """Whether the GPUs are hidden from a run with this marker expression: unless it selects tests marked `gpu`."""
    return bool(expression) and not Expression.compile(expression).evaluate(lambda name, **_: name == "gpu")
