"""Backgrounds of the cameras: wide pictures, of which each image shows a part."""

import random
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from reid_tune.demo.appearance import Colour, scale_colour

__all__ = ["SCENES", "WIDTH", "draw_scene"]

WIDTH, HEIGHT = 640, 256
HAZE = (140, 138, 136)


def draw_scene(kind: int, rng: random.Random, strength: float) -> Image.Image:
    """Draw one background, an RGB picture of 640 x 256 pixels.

    Args:
        kind: Index of the scene.
        rng: Random number generator.
        strength: Contrast to a uniform grey, 0..1.
    """
    wall, ground, draw_objects = SCENES[kind % len(SCENES)]
    horizon = rng.randint(105, 165)
    scene = Image.new("RGB", (WIDTH, HEIGHT))
    scene.paste(_fade(scale_colour(wall, 1.12), scale_colour(wall, 0.85), horizon), (0, 0))
    scene.paste(_fade(scale_colour(ground, 0.8), scale_colour(ground, 1.15), HEIGHT - horizon), (0, horizon))
    draw_objects(ImageDraw.Draw(scene), horizon, rng)
    return Image.blend(Image.new("RGB", scene.size, HAZE), scene, strength)


def _fade(above: Colour, below: Colour, height: int) -> Image.Image:
    rows = np.linspace(above, below, height).astype(np.uint8)[:, None]
    return Image.fromarray(np.ascontiguousarray(np.broadcast_to(rows, (height, WIDTH, 3))))


def _grey(rng: random.Random, low: int = 60, high: int = 200) -> Colour:
    level = rng.randint(low, high)
    return level, level, min(255, level + 6)


def _campus(pen: ImageDraw.ImageDraw, horizon: int, rng: random.Random) -> None:
    for x in range(10, WIDTH, 58):
        for y in range(8, horizon - 40, 44):
            pen.rectangle((x, y, x + 34, y + 28), fill=_grey(rng, 60, 130), outline=(225, 220, 210), width=2)
    for y in range(horizon, HEIGHT, 22):
        pen.line((0, y, WIDTH, y), fill=(120, 112, 104))


def _park(pen: ImageDraw.ImageDraw, horizon: int, rng: random.Random) -> None:
    for _ in range(26):
        x, y, r = rng.randint(0, WIDTH), rng.randint(0, horizon), rng.randint(18, 44)
        pen.ellipse((x - r, y - r, x + r, y + r), fill=(rng.randint(40, 80), rng.randint(90, 140), rng.randint(40, 70)))
    for _ in range(9):
        x, width = rng.randint(0, WIDTH), rng.randint(4, 9)
        pen.rectangle((x, 30, x + width, horizon + rng.randint(0, 20)), fill=(86, 66, 48))
    for _ in range(120):
        x, y = rng.randint(0, WIDTH), rng.randint(horizon, HEIGHT)
        pen.line((x, y, x + rng.randint(-3, 3), y - 7), fill=(84, 128, 64))


def _street(pen: ImageDraw.ImageDraw, horizon: int, rng: random.Random) -> None:
    for x in range(-20, WIDTH, 130):
        colour = (rng.randint(40, 190), rng.randint(40, 150), rng.randint(40, 170))
        left = x + rng.randint(0, 40)
        pen.rectangle((left + 18, horizon - 44, left + 76, horizon - 18), fill=scale_colour(colour, 0.8))
        pen.rectangle((left, horizon - 24, left + 96, horizon + 6), fill=colour)
        for wheel in (left + 18, left + 76):
            pen.ellipse((wheel - 9, horizon - 4, wheel + 9, horizon + 14), fill=(24, 24, 26))
    for x in range(0, WIDTH, 60):
        pen.polygon([(x, 220), (x + 30, 220), (x + 24, 232), (x - 8, 232)], fill=(214, 210, 196))


def _shops(pen: ImageDraw.ImageDraw, horizon: int, rng: random.Random) -> None:
    for x in range(0, WIDTH, 92):
        sign = (rng.randint(60, 230), rng.randint(60, 200), rng.randint(50, 200))
        pen.rectangle((x + 4, 10, x + 86, 34), fill=sign)
        pen.rectangle((x + 4, 40, x + 86, horizon - 4), fill=_grey(rng, 150, 235))
        for _ in range(5):
            left, top = x + rng.randint(6, 70), rng.randint(50, horizon - 20)
            pen.rectangle((left, top, left + 12, top + 18), fill=scale_colour(sign, rng.uniform(0.5, 1.1)))
    for x in range(-200, WIDTH + 200, 40):
        pen.line((x, HEIGHT, WIDTH / 2 + (x - WIDTH / 2) * 0.6, horizon), fill=(150, 140, 128), width=2)


def _bricks(pen: ImageDraw.ImageDraw, horizon: int, rng: random.Random) -> None:
    for row, y in enumerate(range(0, horizon, 12)):
        for x in range(-26 * (row % 2) // 2, WIDTH, 26):
            brick = scale_colour((150, 92, 74), rng.uniform(0.8, 1.15))
            pen.rectangle((x, y, x + 23, y + 9), fill=brick)
    for x in range(20, WIDTH, 150):
        pen.rectangle((x, horizon - 40, x + 4, horizon + 18), fill=(52, 54, 58))
        pen.line((x, horizon - 30, x + 150, horizon - 30), fill=(52, 54, 58), width=3)


def _station(pen: ImageDraw.ImageDraw, horizon: int, rng: random.Random) -> None:
    for x in range(0, WIDTH, 110):
        pen.rectangle((x, 0, x + 26, horizon + 24), fill=_grey(rng, 150, 190))
        pen.rectangle((x + 46, 36, x + 92, 84), fill=(rng.randint(40, 90), rng.randint(60, 110), rng.randint(110, 190)))
    pen.rectangle((0, horizon + 44, WIDTH, horizon + 54), fill=(206, 178, 60))
    for x in range(0, WIDTH, 36):
        pen.line((x, horizon + 54, x - 30, HEIGHT), fill=(104, 106, 112))


SceneDrawer = Callable[[ImageDraw.ImageDraw, int, random.Random], None]
SCENES: tuple[tuple[Colour, Colour, SceneDrawer], ...] = (
    ((176, 160, 140), (142, 134, 126), _campus),
    ((150, 180, 196), (104, 140, 84), _park),
    ((168, 172, 180), (96, 98, 104), _street),
    ((120, 110, 118), (186, 174, 160), _shops),
    ((96, 66, 58), (128, 122, 116), _bricks),
    ((108, 116, 124), (150, 152, 158), _station),
)
