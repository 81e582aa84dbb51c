"""Constraints: expressions over keys and costs of the spec that every configuration must satisfy."""

import ast
import operator
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from reid_tune.config.experiment import canonical_key
from reid_tune.config.keys import nearest_key
from reid_tune.search_space.schema import COST_METRICS
from reid_tune.search_space.weights import WEIGHTS_KEY

__all__ = ["Constraint", "parse_constraint"]

Values = Mapping[str, Any]
Evaluate = Callable[[Values], Any]

_MAX_TEXT = 200  # characters of an expression or a value in a message


@dataclass(frozen=True)
class Constraint:
    """An expression that is true or false for a configuration.

    Attributes:
        text: Expression as written.
        keys: Keys of the spec that it names, and costs that follow from the spec.
    """

    text: str
    keys: tuple[str, ...]
    _evaluate: Evaluate = field(repr=False, compare=False)

    @property
    def names_costs(self) -> bool:
        """Whether it needs costs of the network."""
        return not set(COST_METRICS).isdisjoint(self.keys)

    def is_satisfied(self, values: Values) -> bool:
        """Whether a configuration satisfies the constraint.

        Args:
            values: Values by dotted key.

        Raises:
            ValueError: the expression cannot be computed or is not true or false; the message is one sentence.
        """
        subject = f"constraints: {_shorten(self.text)}"
        try:
            result = self._evaluate(values)
            # Python refuses to write integers of thousands of digits.
            shown = "" if isinstance(result, bool) else _shorten(repr(result))
        except (ArithmeticError, TypeError, ValueError, RecursionError) as error:
            operands = ", ".join(f"{key} = {values[key]!r}" for key in self.keys if key in values)
            operands = operands or ("the network" if self.keys else "any configuration")
            reason = _shorten(str(error))
            raise ValueError(f"{subject}: cannot be computed for {_shorten(operands)}: {reason}.") from None
        if not isinstance(result, bool):
            raise ValueError(f"{subject}: is {shown}, not true or false: write a comparison.")
        return result


def parse_constraint(text: str, spec_keys: Collection[str]) -> Constraint:
    """Parse an expression of comparisons, `and`, `or`, `not`, arithmetic, literals, lists, keys, len, min, max and abs.

    It has the meaning of the same expression in Python, with arithmetic on numbers only. No other part of Python can be
    reached.

    Args:
        text: Expression.
        spec_keys: Keys that may be named, in addition to the costs `gflops`, `parameters` and `embedding_dim`.

    Raises:
        ValueError: the expression is not allowed; the message is one sentence.
    """
    keys: dict[str, None] = {}
    try:
        with warnings.catch_warnings(action="ignore"):  # Python's compiler warns about some texts
            tree = ast.parse(text.strip(), mode="eval")
        evaluate = _build(tree.body, spec_keys, keys)
        if WEIGHTS_KEY in keys:  # Paths become absolute, and references become files.
            raise ValueError(f"{WEIGHTS_KEY} cannot be compared: put the weights into bundles and name those.")
    except (SyntaxError, MemoryError, RecursionError, UnicodeError):
        example = "such as train.optim.gamma < 0.5"
        raise ValueError(f"constraints: {_shorten(text)!r} is not an expression, {example}.") from None
    except ValueError as error:
        raise ValueError(f"constraints: {_shorten(text)}: {error}") from None
    return Constraint(text.strip(), tuple(keys), evaluate)


def _shorten(text: str) -> str:
    """Return a text as one line for a message, cut where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= _MAX_TEXT else f"{line[:_MAX_TEXT]}..."


def _numeric(function: Callable[..., Any]) -> Callable[..., Any]:
    def checked(*operands: Any) -> Any:
        for operand in operands:
            if not isinstance(operand, int | float):
                raise TypeError(f"{operand!r} is not a number")
        return function(*operands)

    return checked


_FUNCTIONS: dict[str, Callable[..., Any]] = {"len": len, "min": min, "max": max, "abs": abs}
_UNARY = {ast.Not: operator.not_, ast.USub: _numeric(operator.neg), ast.UAdd: _numeric(operator.pos)}
_ARITHMETIC = {
    ast.Add: _numeric(operator.add),
    ast.Sub: _numeric(operator.sub),
    ast.Mult: _numeric(operator.mul),
    ast.Div: _numeric(operator.truediv),
    ast.FloorDiv: _numeric(operator.floordiv),
    ast.Mod: _numeric(operator.mod),
}
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda item, items: item in items,
    ast.NotIn: lambda item, items: item not in items,
}


def _build(node: ast.expr, spec_keys: Collection[str], keys: dict[str, None]) -> Evaluate:
    """Return the expression as a function of the configuration, and add its keys to `keys`."""

    def build_all(nodes: list[ast.expr]) -> list[Evaluate]:
        return [_build(part, spec_keys, keys) for part in nodes]

    match node:
        case ast.Constant(value=None | bool() | int() | float() | str() as value):
            return lambda values: value
        case ast.Name() | ast.Attribute():
            key = _key(ast.unparse(node), spec_keys)
            keys[key] = None
            return lambda values: values[key]
        case ast.List(elts=nodes):
            items = build_all(nodes)
            return lambda values: [item(values) for item in items]
        case ast.Call(func=ast.Name(id=name), args=nodes, keywords=[]) if name in _FUNCTIONS:
            return _apply(_FUNCTIONS[name], build_all(nodes))
        case ast.UnaryOp(op=op, operand=inner) if type(op) in _UNARY:
            return _apply(_UNARY[type(op)], build_all([inner]))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            return _apply(_ARITHMETIC[type(op)], build_all([left, right]))
        case ast.BoolOp(op=op, values=nodes):
            return _junction(isinstance(op, ast.Or), build_all(nodes))
        case ast.Compare(left=left, ops=ops, comparators=nodes) if all(type(op) in _COMPARISONS for op in ops):
            return _comparison([_COMPARISONS[type(op)] for op in ops], build_all([left, *nodes]))
    raise ValueError(
        f"{_shorten(ast.unparse(node))!r} is not allowed: use comparisons, and, or, not, + - * / // %, "
        "numbers, strings, lists, keys of the spec, len, min, max and abs."
    )


def _key(text: str, spec_keys: Collection[str]) -> str:
    key = canonical_key(text)
    if key in spec_keys or key in COST_METRICS:
        return key
    suggestion = nearest_key(text)
    raise ValueError(
        f"{_shorten(text)} is not a key of the spec" + (f"; did you mean {suggestion}?" if suggestion else ".")
    )


def _apply(function: Callable[..., Any], arguments: list[Evaluate]) -> Evaluate:
    return lambda values: function(*(argument(values) for argument in arguments))


def _junction(until: bool, operands: list[Evaluate]) -> Evaluate:
    """Return `or` (until True) or `and` (until False): the first operand that decides, otherwise the last one."""

    def evaluate(values: Values) -> Any:
        for operand in operands:
            result = operand(values)
            if bool(result) is until:
                break
        return result

    return evaluate


def _comparison(compare: list[Callable[[Any, Any], Any]], operands: list[Evaluate]) -> Evaluate:
    """Return a chain such as 0 < a < b, which evaluates no operand after the first comparison that fails."""

    def evaluate(values: Values) -> Any:
        left = operands[0](values)
        for holds, operand in zip(compare, operands[1:], strict=True):
            right = operand(values)
            if not holds(left, right):
                return False
            left = right
        return True

    return evaluate
