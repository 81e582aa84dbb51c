from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_tune.search_space.constraints import parse_constraint

from ..helpers.search_spaces import BASE


def holds(text: str, **changes: Any) -> bool:
    """`changes` with __ for the dots of a key."""
    values = BASE | {key.replace("__", "."): value for key, value in changes.items()}
    return parse_constraint(text, BASE).is_satisfied(values)


@pytest.mark.parametrize(
    ("text", "changes", "expected"),
    [
        ("dataset.batch_size % dataset.num_instances == 0", {}, True),
        ("dataset.batch_size % dataset.num_instances == 0", {"dataset__num_instances": 5}, False),
        ("train.optim.warmup_factor < 0.5", {}, True),
        ("model.feat_dim in [128, 256] or not model.no_margin", {"model__feat_dim": 512}, True),
        (
            "model.feat_dim in [128, 256] or not model.no_margin",
            {"model__feat_dim": 512, "model__no_margin": True},
            False,
        ),
        ("train.optim.steps == [40, 70]", {}, True),
        ("max(train.optim.lr_steps) < train.num_epochs and len(train.optim.lr_steps) == 2", {}, False),
        ("train.optim.name != 'SGD' or train.optim.base_lr > 1e-3", {"train__optim__name": "SGD"}, False),
        ("1 < dataset.num_instances <= 4 < dataset.batch_size", {}, True),
        ("model.reduce_feat_dim == None", {}, True),
        ("abs(train.optim.base_lr - 0.5) < min(0.1, 0.2)", {}, False),
        ("results_dir not in ['a', 'b']", {}, True),
        ("  -dataset.batch_size + 2 * 3 // 4 - 1 / 2 < +0\n", {}, True),
    ],
)
def test_what_holds(text: str, changes: dict[str, Any], expected: bool) -> None:
    assert holds(text, **changes) is expected


def test_the_keys_of_a_constraint_by_their_own_names() -> None:
    constraint = parse_constraint("train.grad_clip < train.optim.gamma or train.grad_clip > 1", BASE)
    assert constraint.keys == ("train.clip_grad_norm", "train.optim.gamma")


def test_or_does_not_compute_what_is_decided() -> None:
    text = "dataset.padding == 0 or 10 / dataset.padding > 1"
    assert holds(text, dataset__padding=0)
    assert holds(text, dataset__padding=9)
    assert not holds("not (" + text + ")", dataset__padding=0)


keys = st.sampled_from(["model.feat_dim", "dataset.batch_size", "train.optim.base_lr", "train.num_epochs"])
numbers = st.recursive(
    keys | st.integers(-9, 9).map(str) | st.sampled_from(["0.5", "1e-3", "2.25"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "//", "%"]), inner).map(
            lambda t: f"({t[0]} {t[1]} {t[2]})"
        ),
        inner.map(lambda text: f"-{text}"),
        inner.map(lambda text: f"abs({text})"),
        st.tuples(st.sampled_from(["min", "max"]), inner, inner).map(lambda t: f"{t[0]}({t[1]}, {t[2]})"),
        st.lists(inner, max_size=3).map(lambda items: f"len([{', '.join(items)}])"),
        st.lists(inner, min_size=1, max_size=3).map(lambda items: f"max([{', '.join(items)}])"),
    ),
    max_leaves=6,
)
comparisons = st.tuples(
    numbers, st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), numbers, st.sampled_from(["", "< 5"])
)
texts = st.sampled_from(["train.optim.name", "'Adam'", "'SGD'"])
truths = st.recursive(
    st.one_of(
        comparisons.map(" ".join),
        st.tuples(numbers, st.sampled_from(["in", "not in"]), numbers, numbers).map(
            lambda t: f"{t[0]} {t[1]} [{t[2]}, {t[3]}]"
        ),
        st.tuples(texts, st.sampled_from(["==", "!=", "<", "in"]), texts).map(" ".join),
        st.sampled_from(["model.no_margin", "True", "train.optim.lr_steps == [40, 70]"]),
        numbers,
    ),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        inner.map(lambda text: f"(not {text})"),
    ),
    max_leaves=5,
)


@settings(deadline=None, max_examples=300)
@given(truths, st.integers(1, 9), st.booleans(), st.sampled_from(["Adam", "SGD"]))
def test_an_expression_means_what_python_means(text: str, size: int, soft: bool, name: str) -> None:
    values = BASE | {"dataset.batch_size": size, "model.no_margin": soft, "train.optim.name": name}
    optim = SimpleNamespace(base_lr=values["train.optim.base_lr"], name=name, lr_steps=values["train.optim.lr_steps"])
    names = {
        "model": SimpleNamespace(feat_dim=values["model.feat_dim"], no_margin=soft),
        "dataset": SimpleNamespace(batch_size=size),
        "train": SimpleNamespace(num_epochs=values["train.num_epochs"], optim=optim),
        "__builtins__": {"len": len, "min": min, "max": max, "abs": abs},
    }
    constraint = parse_constraint(text, BASE)
    try:
        expected = eval(text, names)
    except ArithmeticError:
        expected = None
    if isinstance(expected, bool):
        assert constraint.is_satisfied(values) is expected
    else:
        with pytest.raises(ValueError, match="cannot be computed for|is .*, not true or false"):
            constraint.is_satisfied(values)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["is not an expression"]),
        ("train.optim.gamma <", ["'train.optim.gamma <' is not an expression", "such as train.optim.gamma < 0.5"]),
        ("a = 1", ["is not an expression"]),
        ("model.pretrained_model_path != 'a.pth'", ["model.pretrained_model_path cannot be compared", "bundles"]),
        ("(" * 500 + "1" + ")" * 500, ["is not an expression"]),
        ("+".join("1" * 50_000), ["is not an expression"]),
        ("\ud800 < 1", ["is not an expression"]),
        ("9" * 5000 + " < 1", ["999...' is not an expression"]),
        ("x" * 5000 + " < 1", ["xxx... is not a key of the spec."]),
        ("{" + "1, " * 500 + "1} == 1", ["...' is not allowed"]),
        ("train.optim.gama < 1", ["train.optim.gama is not a key of the spec; did you mean train.optim.gamma?"]),
        ("gamma < 1", ["gamma is not a key of the spec; did you mean train.optim.gamma?"]),
        ("zzzzzz < 1", ["zzzzzz is not a key of the spec."]),
        ("model.no_margin == false", ["false is not a key of the spec"]),
        ("encryption_key != ''", ["encryption_key is not a key of the spec"]),
        ("().__class__ == 1", ["().__class__ is not a key of the spec"]),
        ("model.__class__ == 1", ["model.__class__ is not a key of the spec"]),
        ("open('x')", ["open('x')", "is not allowed", "len, min, max and abs"]),
        ("__import__('os').system('x')", ["is not allowed"]),
        ("2 ** 9 > 1", ["2 ** 9", "is not allowed"]),
        ("train.optim.lr_steps[0] < 9", ["is not allowed"]),
        ("[x for x in [1]] == [1]", ["is not allowed"]),
        ("(lambda: 1)() == 1", ["is not allowed"]),
        ("max(*[1, 2]) == 2", ["is not allowed"]),
        ("max([], default=1) == 1", ["is not allowed"]),
        ("train.optim.gamma is None", ["is not allowed"]),
        ("1 if True else 2", ["is not allowed"]),
        ("(x := 5) > 1", ["is not allowed"]),
        ("f'{1}' == '1'", ["is not allowed"]),
        ("b'x' == 1", ["is not allowed"]),
        ("1j == 1", ["is not allowed"]),
        ("... == 1", ["is not allowed"]),
        ("{1} == {1}", ["is not allowed"]),
    ],
)
def test_bad_constraints(text: str, parts: list[str]) -> None:
    with pytest.raises(ValueError) as caught:
        parse_constraint(text, BASE)
    message = str(caught.value)
    assert message.startswith("constraints: ") and len(message) < 1000
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (
            "dataset.batch_size / dataset.padding > 1",
            ["dataset.batch_size = 64, dataset.padding = 0", "division by zero"],
        ),
        ("1 / 0 == 1", ["cannot be computed for any configuration: division by zero"]),
        ("dataset.batch_size % dataset.padding == 0", ["cannot be computed for"]),
        ("model.reduce_feat_dim < 3", ["model.reduce_feat_dim = None", "not supported"]),
        ("'a' * 3 == 'aaa'", ["'a' is not a number"]),
        ("train.optim.lr_steps + [1] == [1]", ["[40, 70] is not a number"]),
        ("-train.optim.name == 1", ["'Adam' is not a number"]),
        ("max([]) == 1", ["cannot be computed"]),
        ("len(dataset.padding) == 1", ["cannot be computed"]),
        ("dataset.batch_size % dataset.num_instances", ["is 0, not true or false: write a comparison"]),
        ("train.optim.name", ["is 'Adam', not true or false"]),
        ("9" * 4000 + " * " + "9" * 4000, ["999...: cannot be computed", "Exceeds the limit (4300 digits)"]),
        ("'" + "a" * 5000 + "' < 1", ["aaa...: cannot be computed"]),
        ("'" + "a" * 5000 + "' * 2 == 1", ["aaa..."]),
        ("'''\n''' < 1", ["''' ''' < 1: cannot be computed"]),
    ],
)
def test_what_cannot_be_computed(text: str, parts: list[str]) -> None:
    with pytest.raises(ValueError) as caught:
        holds(text, dataset__padding=0)
    start = " ".join(text.split())[:200]
    assert str(caught.value).startswith(f"constraints: {start}") and len(str(caught.value)) < 1000
    for part in parts:
        assert part in str(caught.value)


def test_texts_about_which_python_warns(recwarn: pytest.WarningsRecorder) -> None:
    assert not holds(r"'\d' == 'd'") and not holds("0in [1]")
    assert not recwarn.list
