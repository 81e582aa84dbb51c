"""Constraints: expressions over the keys of the spec that every configuration must satisfy."""

import ast
import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from reid_tune.config.experiment import canonical_key
from reid_tune.config.load import nearest_key

__all__ = ["Constraint", "parse_constraint"]

Values = Mapping[str, Any]
Evaluate = Callable[[Values], Any]


@dataclass(frozen=True)
class Constraint:
    """An expression that is true or false for a configuration."""

    text: str
    keys: tuple[str, ...]
    _evaluate: Evaluate = field(repr=False, compare=False)

    def is_satisfied(self, values: Values) -> bool:
        """Whether a configuration, given by dotted key, satisfies it.

        Raises:
            ValueError: one sentence, where it cannot be computed.
        """
        try:
            result = self._evaluate(values)
        except (ArithmeticError, TypeError, ValueError, RecursionError) as error:
            where = ", ".join(f"{key} = {values[key]!r}" for key in self.keys) or "any configuration"
            raise ValueError(f"constraints: {self.text}: cannot be computed for {where}: {error}.") from None
        if not isinstance(result, bool):
            raise ValueError(f"constraints: {self.text}: is {result!r}, not true or false: write a comparison.")
        return result


def parse_constraint(text: str, known: Collection[str]) -> Constraint:
    """Read an expression of comparisons, `and`, `or`, `not`, arithmetic, literals, lists, keys, len, min, max and abs.

    Means what Python means by it; arithmetic is for numbers only. Nothing else of Python can be reached.

    Args:
        known: The keys that may be named.

    Raises:
        ValueError: one sentence on what is wrong.
    """
    keys: dict[str, None] = {}
    try:
        evaluate = _build(ast.parse(text.strip(), mode="eval").body, known, keys)
    except (SyntaxError, MemoryError, RecursionError):
        raise ValueError(f"constraints: {text!r} is not an expression, such as train.optim.gamma < 0.5.") from None
    except ValueError as error:
        raise ValueError(f"constraints: {text}: {error}") from None
    return Constraint(text.strip(), tuple(keys), evaluate)


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


def _build(node: ast.expr, known: Collection[str], keys: dict[str, None]) -> Evaluate:
    """The expression as a function of the configuration; its keys go into `keys`."""

    def parts(nodes: list[ast.expr]) -> list[Evaluate]:
        return [_build(part, known, keys) for part in nodes]

    match node:
        case ast.Constant(value=None | bool() | int() | float() | str() as value):
            return lambda values: value
        case ast.Name() | ast.Attribute():
            key = _key(ast.unparse(node), known)
            keys[key] = None
            return lambda values: values[key]
        case ast.List(elts=nodes):
            items = parts(nodes)
            return lambda values: [item(values) for item in items]
        case ast.Call(func=ast.Name(id=name), args=nodes, keywords=[]) if name in _FUNCTIONS:
            return _apply(_FUNCTIONS[name], parts(nodes))
        case ast.UnaryOp(op=op, operand=inner) if type(op) in _UNARY:
            return _apply(_UNARY[type(op)], parts([inner]))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            return _apply(_ARITHMETIC[type(op)], parts([left, right]))
        case ast.BoolOp(op=op, values=nodes):
            return _junction(isinstance(op, ast.Or), parts(nodes))
        case ast.Compare(left=left, ops=ops, comparators=nodes) if all(type(op) in _COMPARISONS for op in ops):
            return _comparison([_COMPARISONS[type(op)] for op in ops], parts([left, *nodes]))
    raise ValueError(
        f"{ast.unparse(node)!r} is not allowed; there are comparisons, and, or, not, + - * / // %, "
        "numbers, texts, lists, keys of the spec, len, min, max and abs."
    )


def _key(text: str, known: Collection[str]) -> str:
    if (key := canonical_key(text)) in known:
        return key
    near = nearest_key(text)
    raise ValueError(f"{text} is no key of the spec" + (f"; did you mean {near}?" if near else "."))


def _apply(function: Callable[..., Any], arguments: list[Evaluate]) -> Evaluate:
    return lambda values: function(*(argument(values) for argument in arguments))


def _junction(until: bool, operands: list[Evaluate]) -> Evaluate:
    """`or` (until True) and `and` (until False): the first operand that decides, else the last."""

    def evaluate(values: Values) -> Any:
        for operand in operands:
            result = operand(values)
            if bool(result) is until:
                break
        return result

    return evaluate


def _comparison(compare: list[Callable[[Any, Any], Any]], operands: list[Evaluate]) -> Evaluate:
    """A chain such as 0 < a < b, which evaluates no operand behind the first comparison that fails."""

    def evaluate(values: Values) -> Any:
        left = operands[0](values)
        for holds, operand in zip(compare, operands[1:], strict=True):
            right = operand(values)
            if not holds(left, right):
                return False
            left = right
        return True

    return evaluate
