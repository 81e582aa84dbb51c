"""Rendering of one image: a pedestrian, or none, in the box of a detector."""

import random

from PIL import Image, ImageDraw

from reid_tune.demo.appearance import Appearance, draw_appearance, interpolate
from reid_tune.demo.camera import Camera, capture
from reid_tune.demo.figure import VIEWS, Pose, draw_figure
from reid_tune.demo.scene import WIDTH

__all__ = ["render_image"]

# Everything is drawn at twice the size of the final image, 64 x 128.
SIZE = (128, 256)


def render_image(
    appearance: Appearance | None, camera: Camera, view: str, difficulty: float, rng: random.Random, cut: bool = False
) -> bytes:
    """Return the JPEG file of one box, 64 pixels wide and 128 high.

    Args:
        appearance: Appearance of the person; None draws the background alone, as in a false detection.
        camera: Camera of the image.
        view: One of `figure.VIEWS`.
        difficulty: Difficulty, 0..1; scales jitter, occlusion and changes of light.
        rng: Random number generator.
        cut: Whether the box misses most of the person.
    """
    left = rng.randint(0, WIDTH - SIZE[0])
    image = camera.scene.crop((left, 0, left + SIZE[0], SIZE[1])).convert("RGBA")
    if rng.random() < interpolate(0.05, 0.4, difficulty):
        _add_bystander(image, rng, difficulty)
    if appearance is not None:
        _add_person(image, appearance, Pose(view, rng.random(), rng.uniform(0.25, 0.6)), difficulty, rng, cut)
        if rng.random() < interpolate(0.0, 0.35, difficulty):
            _add_obstacle(image, rng)
    exposure = 2 ** (interpolate(0.03, 0.15, difficulty) * rng.uniform(-1, 1))
    return capture(image.convert("RGB").reduce(2), camera, exposure, rng)


def _add_person(
    image: Image.Image, appearance: Appearance, pose: Pose, difficulty: float, rng: random.Random, cut: bool
) -> None:
    jitter = interpolate(0.02, 0.09, difficulty)
    height = 232 * appearance.height * (1 + jitter * rng.uniform(-1, 1.2))
    centre = 64 + 128 * jitter * rng.uniform(-1, 1)
    top = 128 - height / 2 + 256 * jitter * rng.uniform(-0.5, 0.5)
    if cut:
        height, centre, top = height * 1.8, rng.choice((0.0, 128.0)), top - 232 * rng.uniform(-0.5, 0.9)
    soles = top + height
    ImageDraw.Draw(image).ellipse((centre - 42, soles - 14, centre + 42, soles + 2), fill=(58, 56, 56, 255))
    image.alpha_composite(draw_figure(SIZE, appearance, pose, centre, top, height))


def _add_bystander(image: Image.Image, rng: random.Random, difficulty: float) -> None:
    appearance = draw_appearance(rng.getrandbits(32), 0, difficulty)
    centre = 64 + rng.choice((-1, 1)) * rng.uniform(40, 70)
    height = rng.uniform(130, 190)
    image.alpha_composite(draw_figure(SIZE, appearance, Pose(rng.choice(VIEWS), rng.random()), centre, 40, height))


def _add_obstacle(image: Image.Image, rng: random.Random) -> None:
    """Draw a pole, a low wall or a hedge in front of the person."""
    pen = ImageDraw.Draw(image)
    level = rng.randint(50, 170)
    kind = rng.randrange(3)
    if kind == 0:
        x = rng.randint(10, 112)
        pen.rectangle((x, 0, x + rng.randint(8, 16), 256), fill=(level, level, level + 8))
    elif kind == 1:
        pen.rectangle((0, rng.randint(165, 215), 128, 256), fill=(level, level - 8, level - 18))
    else:
        x, side = rng.randint(0, 128), rng.randint(20, 45)
        for _ in range(9):
            dx, y = rng.randint(-side, side), rng.randint(150, 256)
            pen.ellipse((x + dx - 18, y - 18, x + dx + 18, y + 18), fill=(level // 2, level // 2 + 50, level // 2))
