"""Cameras: scene, light and image quality, the same on all images of a camera."""

import random
from dataclasses import dataclass
from io import BytesIO
from math import cos, pi

import numpy as np
from PIL import Image, ImageFilter

from reid_tune.demo.appearance import interpolate
from reid_tune.demo.figure import VIEWS
from reid_tune.demo.scene import draw_scene

__all__ = ["CAMERAS", "Camera", "capture", "set_up_cameras"]

CAMERAS = 6


@dataclass(frozen=True)
class Camera:
    """One camera.

    Attributes:
        scene: Background.
        view: Usual view of pedestrians, one of `figure.VIEWS`.
        light: Gain.
        tint: Gains of red, green and blue.
        contrast: Factor on the contrast.
        blur: Radius of the blur in pixels.
        noise: Standard deviation of the noise, in levels 0..255.
        quality: JPEG quality.
    """

    scene: Image.Image
    view: str
    light: float
    tint: tuple[float, float, float]
    contrast: float
    blur: float
    noise: float
    quality: int


def set_up_cameras(seed: int, difficulty: float) -> dict[int, Camera]:
    """Return the six cameras by number; lights, tints and views are spread evenly, so that no two are alike."""
    rng = random.Random(f"{seed}/cameras")
    orders = [rng.sample(range(CAMERAS), CAMERAS) for _ in range(6)]
    return {i + 1: _set_up([order[i] for order in orders], difficulty, rng) for i in range(CAMERAS)}


def _set_up(ranks: list[int], difficulty: float, rng: random.Random) -> Camera:
    # A network without pretrained weights learns to ignore a camera's colours last, hence the cube.
    colour_difficulty = difficulty**3
    scene, light, hue, contrast, blur, view = ranks
    levels = [2 * rank / (CAMERAS - 1) - 1 for rank in (light, contrast, blur)]
    cast = interpolate(0.0, 0.25, colour_difficulty)
    red, green, blue = (1 + cast * cos(2 * pi * (hue / CAMERAS + third / 3)) for third in range(3))
    return Camera(
        scene=draw_scene(scene, rng, strength=interpolate(0.1, 0.6, colour_difficulty)),
        view=VIEWS[view % len(VIEWS)],
        light=2 ** (interpolate(0.0, 0.7, colour_difficulty) * levels[0]),
        tint=(red, green, blue),
        contrast=1 + interpolate(0.0, 0.35, colour_difficulty) * levels[1],
        blur=interpolate(0.1, 0.9, difficulty) * (1 + levels[2]) / 2 + 0.2,
        noise=interpolate(2, 8, difficulty),
        quality=round(interpolate(92, 75, difficulty)),
    )


def capture(image: Image.Image, camera: Camera, exposure: float, rng: random.Random) -> bytes:
    """Return the JPEG file that a camera makes of a clean RGB image; `exposure` is a gain of this frame."""
    blurred = image.filter(ImageFilter.GaussianBlur(camera.blur))
    pixels = np.asarray(blurred, dtype=np.float32) / 255
    gains = np.asarray(camera.tint, dtype=np.float32) * np.float32(camera.light * exposure)
    pixels = (pixels * gains - 0.45) * np.float32(camera.contrast) + 0.45
    grain = np.random.default_rng(rng.getrandbits(64)).standard_normal(pixels.shape, dtype=np.float32)
    pixels = pixels * 255 + grain * np.float32(camera.noise)
    file = BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=camera.quality)
    return file.getvalue()
