from itertools import product

import pytest

from reid_tune.deploy.preprocessing import DEFAULT, ExportOptions


def test_what_is_written_is_read() -> None:
    forms = [
        ExportOptions(*values) for values in product(("float_nchw", "uint8_nhwc"), ("fp32", "fp16"), (False, True))
    ]
    texts = [form.metadata() for form in forms]
    assert [ExportOptions.from_metadata(text | {"height": "64"}) for text in texts] == forms and forms[0] == DEFAULT
    assert texts[-1] == {"input_layout": "uint8_nhwc", "precision": "fp16", "l2_normalized": "true"}
    assert len({str(text) for text in texts}) == 8


@pytest.mark.parametrize("name", ["input_layout", "precision", "l2_normalized"])
def test_other_texts_are_refused(name: str) -> None:
    for value in ("", "True", "uint8", "FP16"):
        with pytest.raises(ValueError):
            ExportOptions.from_metadata(DEFAULT.metadata() | {name: value})
    with pytest.raises(KeyError, match=name):
        ExportOptions.from_metadata({key: value for key, value in DEFAULT.metadata().items() if key != name})
