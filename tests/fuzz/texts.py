"""Texts that nobody would write into a YAML file."""

from hypothesis import strategies as st

from ..config.test_yaml_reader import laughs, merges

SNIPPETS = [
    *(
        "",
        " ",
        "\n",
        "\t",
        ":",
        "-",
        "? ",
        "&a ",
        "*a",
        "<<: ",
        "!!int ",
        "!!set ",
        "!x ",
        "'",
        '"',
        "|",
        ">",
        "%",
        "@",
    ),
    *("[", "]", "{", "}", "[" * 60, "{a: " * 60, "${", "${results_dir}", "${.name}", "${oc.env:HOME}", "${train}"),
    *("${oc.decode:[}", "${oc.env:AWS_SECRET_ACCESS_KEY}", "???", "null", "~", ".nan", ".inf", "-1", "0", "1e400"),
    *("2001-99-99", "0x_", "1:30", "9" * 30, "9" * 5000, "x" * 5000, "\x00", "\x1b", "\ud800", "\u2028", "é" * 300),
    *(laughs(12), merges(12), "true", "yes", "{}", "[]", "[[]]", "[null]", "{a: {b: c}}", "a: b", "train", "swin_"),
]
VALUES = st.one_of(st.sampled_from(SNIPPETS), st.text(max_size=30), st.lists(st.sampled_from(SNIPPETS)).map("".join))


@st.composite
def changed_text(draw: st.DrawFn, text: str) -> str:
    """A text in which a few spans are replaced, doubled or removed."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.sampled_from([0, 1, 2, 5, 20, 100])))
        text = text[:start] + draw(st.one_of(VALUES, st.just(text[start:end] * 2))) + text[end:]
    return text
