"""What stays the same on all images of one camera: its place, its light and its faults."""

import random
from dataclasses import dataclass
from io import BytesIO
from math import cos, pi

import numpy as np
from PIL import Image, ImageFilter

from reid_tune.demo.figure import VIEWS
from reid_tune.demo.look import between
from reid_tune.demo.scene import draw_scene

__all__ = ["CAMERAS", "Camera", "develop", "set_up_cameras"]

CAMERAS = 6


@dataclass(frozen=True)
class Camera:
    """One camera: `light` is a gain, `tint` gains of red, green and blue, `blur` a radius in pixels, `noise` of 255."""

    scene: Image.Image
    view: str
    light: float
    tint: tuple[float, float, float]
    contrast: float
    blur: float
    noise: float
    quality: int


def set_up_cameras(seed: int, difficulty: float) -> dict[int, Camera]:
    """The six cameras by number; their lights, tints and views are spread evenly, so that no two are alike."""
    rng = random.Random(f"{seed}/cameras")
    orders = [rng.sample(range(CAMERAS), CAMERAS) for _ in range(6)]
    return {i + 1: _set_up([order[i] for order in orders], difficulty, rng) for i in range(CAMERAS)}


def _set_up(ranks: list[int], difficulty: float, rng: random.Random) -> Camera:
    # A network without pretrained weights learns to see past a camera's colours last of all, hence the cube.
    strange = difficulty**3
    scene, light, hue, contrast, blur, view = ranks
    levels = [2 * rank / (CAMERAS - 1) - 1 for rank in (light, contrast, blur)]
    cast = between(0.0, 0.25, strange)
    red, green, blue = (1 + cast * cos(2 * pi * (hue / CAMERAS + third / 3)) for third in range(3))
    return Camera(
        scene=draw_scene(scene, rng, strength=between(0.1, 0.6, strange)),
        view=VIEWS[view % len(VIEWS)],
        light=2 ** (between(0.0, 0.7, strange) * levels[0]),
        tint=(red, green, blue),
        contrast=1 + between(0.0, 0.35, strange) * levels[1],
        blur=between(0.1, 0.9, difficulty) * (1 + levels[2]) / 2 + 0.2,
        noise=between(2, 8, difficulty),
        quality=round(between(92, 75, difficulty)),
    )


def develop(image: Image.Image, camera: Camera, exposure: float, rng: random.Random) -> bytes:
    """What the camera makes of a clean RGB image: the bytes of a JPEG file; `exposure` is a gain of this frame."""
    blurred = image.filter(ImageFilter.GaussianBlur(camera.blur))
    pixels = np.asarray(blurred, dtype=np.float32) / 255
    gains = np.asarray(camera.tint, dtype=np.float32) * np.float32(camera.light * exposure)
    pixels = (pixels * gains - 0.45) * np.float32(camera.contrast) + 0.45
    grain = np.random.default_rng(rng.getrandbits(64)).standard_normal(pixels.shape, dtype=np.float32)
    pixels = pixels * 255 + grain * np.float32(camera.noise)
    file = BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=camera.quality)
    return file.getvalue()
