import re

from reid_tune.report.importances import importance_sentence, importances_caption, importances_chart
from reid_tune.search.importance import MIN_TRIALS, Importances, KeyImportance, PairImportance

LABELS = {"a.rate": "rate", "a.margin": "margin", "a.decay": "decay"}
KEYS = [
    KeyImportance("a.rate", total=0.7, low=0.6, high=0.8, alone=0.55, is_clear=True),
    KeyImportance("a.margin", total=0.32, low=0.2, high=0.4, alone=0.2, is_clear=True),
    KeyImportance("a.decay", total=0.1, low=0.01, high=0.3, alone=0.0, is_clear=False),
]
PAIRS = [
    PairImportance(("a.rate", "a.margin"), together=0.87, interaction=0.12, low=0.05, high=0.2),
    PairImportance(("a.rate", "a.decay"), together=0.6, interaction=0.08, low=0.03, high=0.2),
]


def test_clear_keys_and_their_interactions_are_named() -> None:
    assert importance_sentence(Importances(0.05, KEYS, PAIRS), "mAP", LABELS) == (
        "importances for the variation of mAP over the space, with 90 % intervals: rate 70 % (60 .. 80), "
        "margin 32 % (20 .. 40), 12 % in the interaction of rate and margin; others may be noise: decay"
    )
    unclear = importance_sentence(Importances(0.05, KEYS[2:], PAIRS), "mAP", LABELS)
    assert unclear.endswith(": no key stands out from noise yet")


def test_bars_have_labels_and_intervals_and_grey_ones_may_be_noise() -> None:
    svg = importances_chart(Importances(0.05, KEYS, PAIRS), LABELS)
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert {"rate", "margin", "decay", "70 %", "32 %", "10 %"} <= set(texts)
    assert "var(--blue)" in svg and "var(--faint)" in svg


def test_the_caption_says_what_is_missing() -> None:
    assert f"need {MIN_TRIALS} trials" in importances_caption(None, "mAP")
    assert "90 % intervals" in importances_caption(Importances(0.05, KEYS, PAIRS), "mAP")
