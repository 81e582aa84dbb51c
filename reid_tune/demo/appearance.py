"""Appearance of an identity, the same on all of its images."""

import random
from dataclasses import dataclass

__all__ = ["Appearance", "Colour", "draw_appearance", "interpolate", "scale_colour"]

Colour = tuple[int, int, int]

# Ordered from common to rare colours of clothes: a hard data set uses the first ones only.
CLOTHES: tuple[Colour, ...] = (
    (38, 38, 44),
    (128, 130, 134),
    (44, 58, 108),
    (226, 226, 222),
    (150, 40, 44),
    (196, 174, 132),
    (70, 112, 176),
    (60, 108, 70),
    (118, 80, 52),
    (214, 178, 60),
    (112, 64, 128),
    (214, 122, 152),
    (58, 150, 150),
    (220, 112, 46),
)
SKIN: tuple[Colour, ...] = ((238, 200, 172), (214, 168, 132), (172, 122, 88), (112, 76, 54))
HAIR: tuple[Colour, ...] = ((28, 24, 24), (78, 52, 34), (196, 158, 92), (150, 74, 40), (158, 156, 156))


@dataclass(frozen=True)
class Appearance:
    """Body, clothes and belongings; `height` and `build` (width) are relative to 1, `pitch` is a pattern's period."""

    height: float
    build: float
    skin: Colour
    hair: str
    hair_colour: Colour
    hat: str
    hat_colour: Colour
    top: Colour
    second: Colour
    pattern: str
    pitch: float
    sleeves: str
    lower: str
    lower_colour: Colour
    shoes: Colour
    bag: str
    bag_colour: Colour


def interpolate(easy: float, hard: float, difficulty: float) -> float:
    """Return the value at a difficulty from 0 (`easy`) to 1 (`hard`)."""
    return easy + (hard - easy) * difficulty


def scale_colour(colour: Colour, factor: float) -> Colour:
    """Return a colour times `factor`, at most 255 per channel."""
    red, green, blue = (min(255, round(channel * factor)) for channel in colour)
    return red, green, blue


def draw_appearance(seed: int, identity: int, difficulty: float) -> Appearance:
    """Draw the appearance of one identity, which depends on the three arguments alone."""
    rng = random.Random(f"{seed}/look/{identity}")
    palette = CLOTHES[: round(interpolate(len(CLOTHES), 6, difficulty))]
    spread = interpolate(30, 10, difficulty)

    def random_colour(colours: tuple[Colour, ...]) -> Colour:
        red, green, blue = (max(0, min(255, round(c + rng.uniform(-spread, spread)))) for c in rng.choice(colours))
        return red, green, blue

    return Appearance(
        height=rng.uniform(0.90, 1.04),
        build=rng.uniform(0.82, 1.22),
        skin=rng.choice(SKIN),
        hair=rng.choice(("bald", "short", "short", "long", "long", "tail", "bun")),
        hair_colour=rng.choice(HAIR),
        hat=rng.choice(("none", "none", "none", "none", "cap", "beanie", "brim")),
        hat_colour=random_colour(palette),
        top=random_colour(palette),
        second=random_colour(CLOTHES),
        pattern=rng.choice(("plain", "plain", "stripes", "pinstripes", "checks", "logo", "two-tone", "open")),
        pitch=rng.uniform(0.055, 0.095),
        sleeves=rng.choice(("long", "long", "short", "none")),
        lower=rng.choice(("trousers", "trousers", "trousers", "shorts", "skirt", "dress", "coat")),
        lower_colour=random_colour(palette),
        shoes=random_colour(palette),
        bag=rng.choice(("none", "none", "backpack", "backpack", "shoulder", "hand")),
        bag_colour=random_colour(CLOTHES),
    )
