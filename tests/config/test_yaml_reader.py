"""YAML of files and overrides: plain values only, within limits, and one sentence otherwise."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from reid_tune.config.load import load_experiment
from reid_tune.config.yaml_reader import parse_overrides, parse_value, read_yaml, read_yaml_file
from reid_tune.errors import InputError

VALUES: list[tuple[str, Any]] = [
    ("1", 1),
    ("+5", 5),
    ("-3", -3),
    ("0", 0),
    ("1.5", 1.5),
    (".5", 0.5),
    ("1.0e-3", 0.001),
    ("-.inf", float("-inf")),
    ("true", True),
    ("Off", False),
    ("~", None),
    ("null", None),
    ("", None),
    ("'1'", "1"),
    ("!!str 5", "5"),
    ("!!int 5", 5),
    ("[1, 2.5, a]", [1, 2.5, "a"]),
    ("{a: {b: [1]}}", {"a": {"b": [1]}}),
    ("x=y", "x=y"),
    ("=", "="),
    ("a b", "a b"),
    # Text, where YAML 1.1 sees numbers and dates.
    ("1e-3", "1e-3"),
    ("010", "010"),
    ("0x1F", "0x1F"),
    ("0x_", "0x_"),
    ("0b_", "0b_"),
    ("1_000", "1_000"),
    ("1:30", "1:30"),
    ("190:20:30.15", "190:20:30.15"),
    ("2001-01-01", "2001-01-01"),
    ("2001-99-99", "2001-99-99"),
    ("2001-12-14t21:59:43.10-05:00", "2001-12-14t21:59:43.10-05:00"),
    ("9" * 5000, "9" * 5000),
    # Keys are text, whatever they look like.
    ("{1: a, 2001-01-01: b, true: c}", {"1": "a", "2001-01-01": "b", "true": "c"}),
    # Anchors, and mappings that take the keys of others.
    ("[&a [1], *a]", [[1], [1]]),
    ("{x: &x {a: 1, b: 2}, y: {<<: *x, b: 3}}", {"x": {"a": 1, "b": 2}, "y": {"a": 1, "b": 3}}),
]


@pytest.mark.parametrize(("text", "value"), VALUES, ids=lambda text: str(text)[:40])
def test_values_are_plain(text: str, value: Any) -> None:
    parsed = parse_value(text, "test")
    assert parsed == value and type(parsed) is type(value)


def laughs(levels: int) -> str:
    """Ten billion and more values in a kilobyte."""
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, levels)]
    return "\n".join(lines)


def merges(levels: int) -> str:
    lines = ["a0: &a0 {" + ", ".join(f"k{number}: 1" for number in range(9)) + "}"]
    lines += [f"a{level}: &a{level} {{<<: [{', '.join([f'*a{level - 1}'] * 9)}]}}" for level in range(1, levels)]
    return "\n".join(lines)


BAD: list[tuple[str, str]] = [
    (laughs(9), "more than 20,000 values, with aliases expanded"),
    (laughs(40), "more than 20,000 values, with aliases expanded"),
    (merges(12), "more than 20,000 values, with aliases expanded"),
    ("[" * 400, "nested more than 40 deep"),
    ("[" * 90_000, "nested more than 40 deep"),
    ("{a: " * 400, "nested more than 40 deep"),
    ("- " * 400 + "a", "nested more than 40 deep"),
    ("x" * 100_001, "more than 100,000 characters"),
    ("[" + "1," * 30_000 + "1]", "more than 20,000 values"),
    ("&a [*a]", "an anchor contains itself"),
    ("a: &a {b: {c: *a}}", "an anchor contains itself"),
    ("!!int foo", "the value with the tag !!int is not one"),
    ("!!float x", "the value with the tag !!float is not one"),
    ("!!bool 7", "the value with the tag !!bool is not one"),
    ("!!timestamp 2001-01-01", "tags other than"),
    ("!!binary aGk=", "tags other than"),
    ("!!set {a, b}", "tags other than"),
    ("!!python/object/apply:os.system [ls]", "tags other than"),
    ("!!python/name:os.system ''", "tags other than"),
    ("!thing 5", "tags other than"),
    ("? [1, 2]\n: 3", "a key is a list or a mapping: keys must be text"),
    ("? {a: 1}\n: 3", "a key is a list or a mapping: keys must be text"),
    ('"a\\0b"', "a control character or a byte outside UTF-8"),
    ('{"a\\0b": 1}', "a control character or a byte outside UTF-8"),
    ("a\0b", "a control character or a byte outside UTF-8"),
    ("a\x1b[31mb", "a control character or a byte outside UTF-8"),
    ("a\udcffb", "a control character or a byte outside UTF-8"),
    ("[1", "not valid YAML"),
    ("*nobody", "not valid YAML"),
    ("{a: 1, a: 2}", "not valid YAML"),
    ("a: 1\n---\nb: 2", "not valid YAML"),
    ("`", "not valid YAML"),
]


@pytest.mark.parametrize(("text", "problem"), BAD, ids=[text[:25] for text, _ in BAD])
def test_other_yaml_is_refused_in_one_sentence_and_at_once(text: str, problem: str, tmp_path: Path) -> None:
    started = time.perf_counter()
    with pytest.raises(InputError) as caught:
        parse_value(text, "the value")
    message = str(caught.value)
    assert problem in message and "\n" not in message and len(message) < 300
    assert time.perf_counter() - started < 5
    if "\udcff" not in text:
        path = tmp_path / "spec.yaml"
        path.write_text(text)
        with pytest.raises(InputError) as caught:
            read_yaml(path)
        message = str(caught.value)
        assert message.startswith(str(path)) and "\n" not in message and len(message) < 400


def test_a_kilobyte_that_stands_for_billions_is_refused_in_milliseconds(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(laughs(20))
    assert path.stat().st_size < 1500
    started = time.process_time()
    with pytest.raises(InputError, match=r"line 5, column \d+: .*aliases expanded"):
        read_yaml(path)
    assert time.process_time() - started < 0.5


def test_lines_of_keys(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text("# comment\na: 1\nb:\n  c: 2\n  d:\n    - {a: 3}\n    - e: 4\n\nf.g: 5\nh: {i: 6}\n")
    assert read_yaml_file(path).lines == {"a": 2, "b": 3, "b.c": 4, "b.d": 5, "f.g": 9, "h": 10, "h.i": 10}


def test_only_regular_files_of_a_limited_size_are_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    large = tmp_path / "large.yaml"
    large.write_text("a: 1\n" * 100_000)
    for path, problem in (
        (pipe, "it is not a regular file"),
        (Path("/dev/zero"), "it is not a regular file"),
        (large, "it has more than 100,000 characters"),
        (tmp_path / ("x" * 300), "File name too long"),
        (Path("a\0b"), "it is not a text file"),
    ):
        with pytest.raises(InputError, match=problem):
            read_yaml(path)


@pytest.mark.parametrize(
    ("argument", "problem"),
    [
        ("a", "'a' is not an override"),
        ("=1", "'=1' is not an override"),
        ("x" * 3000, "is not an override"),
        ("x" * 3000 + "=1", "is not a key"),
        ("a\x1b[31m=1", r"'a\\x1b\[31m' is not a key"),
        ("a\udcff=1", "is not a key"),
        ("a=[1", "the value of the override a is not valid YAML: write a number, a text or a list"),
        ("a=*SECRET", "write a number"),
    ],
)
def test_a_bad_override_is_named_and_its_value_is_not(argument: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        parse_overrides([argument])
    assert len(str(caught.value)) < 200 and "SECRET" not in str(caught.value)


NAMES = [
    ("results_dir", "a\tb", "a line break, another control character"),
    ("results_dir", "a\nb", "a line break, another control character"),
    ("results_dir", "x" * 5000, "too long for a path"),
    ("results_dir", "/tmp/" + "x" * 256, "too long for a path"),
    ("results_dir", "/tmp/" + "ä" * 128, "too long for a path"),
    ("dataset.train_dataset_dir", ["good", "x" * 5000], "too long for a path"),
    ("dataset.extra_tests", [{"name": "x" * 300, "query_dataset_dir": "a", "test_dataset_dir": "b"}], "too long"),
    ("evaluate.checkpoint", "a\nb", "a line break"),
    ("model.backbone", "x" * 300, "too long"),
    ("train.seed", "9" * 5000, "exceeded maximum size"),
    ("train.seed", "9" * 20, "the number is too large"),
    ("train.optim.lr_steps", [2**63], "the number is too large"),
    ("train.optim.base_lr", "1e999", "finite"),
]


@pytest.mark.parametrize(("key", "value", "problem"), NAMES, ids=lambda value: str(value)[:20])
def test_values_that_can_be_no_name_path_or_number(tmp_path: Path, key: str, value: Any, problem: str) -> None:
    import yaml

    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump({key: value}))
    with pytest.raises(InputError, match=problem) as caught:
        load_experiment(path)
    assert key in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 500
    assert load_experiment(path, [f"{key}="])


def test_a_number_is_a_name(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text("results_dir: 2024\nencryption_key: 4711\ndataset: {train_dataset_dir: data}\n")
    experiment = load_experiment(path)
    assert (experiment.results_dir, experiment.encryption_key) == ("2024", "4711")


@pytest.mark.parametrize("form", ["\ufeff{}", "# comment\n---\n{}", "{}\n...\n", "{}\n\n\n"])
def test_files_of_other_systems_are_read(tmp_path: Path, form: str) -> None:
    path = tmp_path / "spec.yaml"
    path.write_bytes(form.format("train:\n  seed: 7\n").replace("\n", "\r\n").encode())
    assert load_experiment(path).train.seed == 7
