"""The records of a log and their lines."""

import json
import pickle
import re
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_type_hints
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reid_tune.journal.checksum import add_checksum
from reid_tune.journal.events import KINDS, Event, EventError, parse_event, to_line

ROOT = Path(__file__).parents[2]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=6,
)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
# A value of each type that fields have.
VALUES: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(),
    int: st.integers(),
    float: FINITE | st.integers(),
    bool: st.booleans(),
    str | None: st.none() | st.text(),
    list[str]: st.lists(st.text()),
    dict[str, Any]: st.dictionaries(st.text(), JSON, max_size=3),
    dict[str, float]: st.dictionaries(st.text(), FINITE),
}


def values_of(record: type[Event]) -> st.SearchStrategy[dict[str, Any]]:
    hints = get_type_hints(record)
    return st.fixed_dictionaries(
        {item.name: VALUES.get(hints[item.name], st.from_type(hints[item.name])) for item in fields(record)}
    )


@pytest.mark.parametrize("record", KINDS.values(), ids=KINDS)
@given(data=st.data())
def test_an_event_is_read_as_it_was_written(record: type[Event], data: st.DataObject) -> None:
    event = record(**data.draw(values_of(record)))
    line = to_line(event)
    assert b"\n" not in line
    assert parse_event(line) == event == pickle.loads(pickle.dumps(event))
    assert type(parse_event(line)) is record
    content = json.loads(line)
    assert list(content)[:2] == ["kind", "time"] and list(content)[-1] == "crc32"
    assert content["crc32"] == f"{crc32(line[: line.rindex(b',')]):08x}"


def line_of(record: type[Event], **changes: Any) -> bytes:
    """The line of an event with the simplest values; `...` drops a field."""
    simplest = {str: "", int: 0, float: 0.0, bool: False, str | None: None, int | None: None, list[str]: []}
    hints = get_type_hints(record)
    values = {name: simplest.get(hints[name], {}) for name in (item.name for item in fields(record))}
    if "state" in values or "status" in values:
        values |= {"state": "finished"} if "state" in values else {"status": "FINISHED"}
    content = {"kind": record.kind} | values | changes
    return add_checksum({name: value for name, value in content.items() if value is not ...})


def signed(body: bytes) -> bytes:
    """A line with the right checksum, whatever it holds."""
    return body + b',"crc32":"%08x"}' % crc32(body)


@pytest.mark.parametrize("record", KINDS.values(), ids=KINDS)
def test_every_field_must_be_there_and_no_other(record: type[Event]) -> None:
    parse_event(line_of(record))
    for item in fields(record):
        with pytest.raises(EventError, match=f"^'{record.kind}' lacks '{item.name}'$"):
            parse_event(line_of(record, **{item.name: ...}))
        if item.name != "time":
            with pytest.raises(
                EventError, match=rf"^the field '{item.name}' of '{record.kind}' must be .*, not \[1\.5\]$"
            ):
                parse_event(line_of(record, **{item.name: [1.5]}))
    with pytest.raises(EventError, match=f"^'{record.kind}' has an unknown field 'more'$"):
        parse_event(line_of(record, more=1))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"text", "its checksum is missing or wrong"),
        (b"[1]", "its checksum is missing or wrong"),
        (b'{"kind":"stage_started","time":1.0,"stage":"search"}', "its checksum is missing or wrong"),
        (line_of(KINDS["report"]).replace(b"0.0", b"0.1"), "its checksum is missing or wrong"),
        (line_of(KINDS["report"]).replace(b"crc32", b"crc33"), "its checksum is missing or wrong"),
        (line_of(KINDS["report"]) + b" ", "its checksum is missing or wrong"),
        (line_of(KINDS["report"]) + b"\n\n", "its checksum is missing or wrong"),
        *(
            (signed(body), "it is not a JSON object, though its checksum is right")
            for body in (b"", b"nul", b"1", b'"text', b'{"kind":', b"[" * 20_000, b'{"a":' * 20_000)
        ),
        (signed(b'{"kind":"report","epoch":' + b"9" * 5000), "it is not a JSON object, though its checksum is right"),
        (signed(b'{"kind":"\xff"'), "it is not a JSON object, though its checksum is right"),
        (add_checksum({"time": 1.0}), "its kind is None, but the kinds are sweep, train, driver_started"),
        (add_checksum({"kind": "burned"}), "its kind is 'burned', but the kinds are sweep"),
        (add_checksum({"kind": ["report"]}), r"its kind is \['report'\], but"),
        (line_of(KINDS["report"], epoch=True), "the field 'epoch' of 'report' must be int, not true"),
        (line_of(KINDS["report"], epoch="1"), "the field 'epoch' of 'report' must be int, not \"1\""),
        (line_of(KINDS["report"], metrics=None), r"the field 'metrics' of 'report' must be dict\[str, Any\], not null"),
        (line_of(KINDS["report"], usage={"x": "1"}), r"the field 'usage' of 'report' must be dict\[str, float\]"),
        (line_of(KINDS["report"], nodes=[1]), r"the field 'nodes' of 'report' must be list\[str\], not \[1\]"),
        (line_of(KINDS["ended"], state="lost"), "the field 'state' of 'ended' must be Literal.*, not \"lost\""),
        (line_of(KINDS["artifact"], run=3), r"the field 'run' of 'artifact' must be str \| None, not 3"),
    ],
)
def test_what_is_wrong_with_a_line_is_one_sentence(line: bytes, message: str) -> None:
    with pytest.raises(EventError, match=f"^{message}"):
        parse_event(line)


def test_defaults_are_of_their_types_and_every_field_is_described() -> None:
    for record in KINDS.values():
        for item in fields(record):
            assert item.name == "time" or f"        {item.name}: " in str(record.__doc__), (record, item.name)
        required = [item.name for item in fields(record) if item.default is item.default_factory is MISSING]
        assert "time" not in required


def test_the_documentation_names_exactly_the_kinds_and_their_fields() -> None:
    section = (ROOT / "docs" / "architecture.md").read_text().partition("\n## Events\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \|$", section, re.MULTILINE)
    documented = {kind: re.findall(r"`(\w+)`", cell) for kind, cell, _ in rows}
    assert documented == {
        kind: [item.name for item in fields(record) if item.name != "time"] for kind, record in KINDS.items()
    }
    for kind, _, emitters in rows:
        for path in re.findall(r"`([\w/]+\.py)`", emitters):
            assert f"{KINDS[kind].__name__}(" in (ROOT / "reid_tune" / path).read_text(), (kind, path)
