"""An articulated pedestrian, drawn in units of the body height: y = 0 at the top of the head, 1 at the soles."""

from dataclasses import dataclass
from math import cos, pi, sin

from PIL import Image

from reid_tune.demo.appearance import Appearance, scale_colour
from reid_tune.demo.canvas import Canvas, Point, pattern_rectangles

__all__ = ["VIEWS", "Pose", "draw_figure"]

VIEWS = ("front", "back", "left", "right")

SHOULDER, HIP = 0.18, 0.50
THIGH, SHIN = 0.24, 0.22
UPPER_ARM, FOREARM = 0.16, 0.15


@dataclass(frozen=True)
class Pose:
    """Pose of a pedestrian: `view` is one of VIEWS, `phase` the phase of the walking cycle, 0..1."""

    view: str
    phase: float
    stride: float = 0.45

    @property
    def side(self) -> bool:
        return self.view in ("left", "right")


def draw_figure(
    size: tuple[int, int], appearance: Appearance, pose: Pose, centre: float, top: float, height: float
) -> Image.Image:
    """Draw one pedestrian on a transparent RGBA image.

    Args:
        size: Width and height of the image in pixels.
        appearance: Appearance of the pedestrian.
        pose: Pose of the pedestrian.
        centre: Middle of the body in pixels from the left; may be outside the image.
        top: Top of the head in pixels from the top.
        height: Height from head to soles in pixels.
    """
    figure = _Figure(size, appearance, pose, centre, top, height)
    figure.draw()
    return figure.image


class _Figure(Canvas):
    """Drawing of one pedestrian, whose parts are drawn from back to front."""

    def __init__(
        self, size: tuple[int, int], appearance: Appearance, pose: Pose, centre: float, top: float, height: float
    ) -> None:
        super().__init__(size, centre, top, height, mirrored=pose.view == "right")
        self.appearance, self.pose = appearance, pose
        width = appearance.build * (0.62 if pose.side else 1.0)
        self.shoulder, self.hip = 0.115 * width, 0.088 * width

    def draw(self) -> None:
        if self.appearance.bag == "backpack" and self.pose.view != "back":
            self._backpack_behind()
        self._arm(-1)
        self._leg(-1)
        self._leg(1)
        self._garments()
        if self.appearance.hair in ("long", "tail") and self.pose.view == "front":
            self._long_hair()
        self._head()
        self._arm(1)
        self._bag()

    def _swing(self, joint: Point, length: float, angle: float) -> Point:
        """Return the far end of a bone; a swing is fully visible from the side and hardly from the front."""
        across = sin(angle) * (1.0 if self.pose.side else 0.12)
        return joint[0] + length * across, joint[1] + length * cos(angle)

    def _leg(self, side: int) -> None:
        appearance = self.appearance
        cycle = 2 * pi * self.pose.phase + (pi if side > 0 else 0)
        angle = self.pose.stride * sin(cycle)
        bend = self.pose.stride * 1.3 * max(0.0, cos(cycle))
        hip = (side * self.hip * (0.15 if self.pose.side else 0.55), HIP)
        knee = self._swing(hip, THIGH, angle)
        ankle = self._swing(knee, SHIN, angle - bend)
        shade = 0.82 if side < 0 and self.pose.side else 1.0
        bare = scale_colour(appearance.skin, shade)
        cloth = scale_colour(appearance.lower_colour, shade)
        self.limb(
            hip,
            knee,
            0.052 * appearance.build,
            0.042 * appearance.build,
            bare if appearance.lower in ("skirt", "dress") else cloth,
        )
        self.limb(
            knee, ankle, 0.040 * appearance.build, 0.028, cloth if appearance.lower in ("trousers", "coat") else bare
        )
        toe = 0.05 if self.pose.side else 0.008 * side
        self.limb((ankle[0], ankle[1] + 0.02), (ankle[0] - toe, ankle[1] + 0.028), 0.026, 0.02, appearance.shoes)

    def _arm(self, side: int) -> None:
        appearance = self.appearance
        cycle = 2 * pi * self.pose.phase + (0 if side > 0 else pi)
        angle = 0.8 * self.pose.stride * sin(cycle)
        outwards = 0 if self.pose.side else side
        joint = (outwards * (self.shoulder + 0.008), SHOULDER + 0.025)
        x, y = self._swing(joint, UPPER_ARM, angle)
        elbow = (x + outwards * 0.018, y)
        hand = self._swing(elbow, FOREARM, angle - 0.35)
        shade = 0.8 if side < 0 and self.pose.side else 0.92
        sleeve = scale_colour(appearance.second if appearance.pattern == "two-tone" else appearance.top, shade)
        bare = scale_colour(appearance.skin, shade)
        self.limb(joint, elbow, 0.036 * appearance.build, 0.03, bare if appearance.sleeves == "none" else sleeve)
        self.limb(elbow, hand, 0.029, 0.022, sleeve if appearance.sleeves == "long" else bare)
        self.ellipse(hand, 0.022, 0.024, bare)

    def _garments(self) -> None:
        appearance, shoulder, hip = self.appearance, self.shoulder, self.hip
        hem = {"dress": 0.70, "coat": 0.68}.get(appearance.lower, 0.53)
        flare = {"dress": 1.45, "coat": 1.25}.get(appearance.lower, 1.02)
        if appearance.lower == "skirt":
            self.polygon([(-hip, 0.48), (hip, 0.48), (hip * 1.4, 0.69), (-hip * 1.4, 0.69)], appearance.lower_colour)
        right = [
            (0.35 * shoulder, 0.155),
            (shoulder, SHOULDER),
            (0.86 * shoulder, 0.36),
            (hip, HIP),
            (hip * flare, hem),
        ]
        outline = right + [(-x, y) for x, y in reversed(right)]
        self.limb((0, 0.12), (0, 0.17), 0.03, 0.03, scale_colour(appearance.skin, 0.9))
        self.polygon(outline, appearance.top)
        self.fill_pattern(
            outline,
            pattern_rectangles(appearance.pattern, appearance.pitch, self.pose.view, SHOULDER, hem),
            appearance.second,
        )

    def _head(self) -> None:
        appearance, view = self.appearance, self.pose.view
        centre = (0.0 if not self.pose.side else -0.012, 0.078)
        self.ellipse(centre, 0.054, 0.07, scale_colour(appearance.skin, 0.96))
        if appearance.hair != "bald":
            self._hair(centre)
        if view == "front":
            for x in (-0.02, 0.02):
                self.ellipse((x, 0.085), 0.007, 0.006, (40, 32, 30))
        if appearance.hat != "none":
            self._hat(centre)

    def _hair(self, centre: Point) -> None:
        appearance, view, x = self.appearance, self.pose.view, centre[0]
        if view == "front":
            self.ellipse((x, 0.034), 0.055, 0.034, appearance.hair_colour)
        elif view == "back":
            self.ellipse((x, 0.07), 0.058, 0.066, appearance.hair_colour)
        else:
            self.ellipse((x + 0.012, 0.045), 0.05, 0.045, appearance.hair_colour)
            self.ellipse((x + 0.03, 0.075), 0.03, 0.05, appearance.hair_colour)
        if appearance.hair == "bun":
            self.ellipse((x + (0.05 if self.pose.side else 0), 0.012), 0.03, 0.026, appearance.hair_colour)
        if view != "front" and appearance.hair in ("long", "tail"):
            self._long_hair()

    def _long_hair(self) -> None:
        colour = scale_colour(self.appearance.hair_colour, 0.9)
        if self.appearance.hair == "tail":
            if self.pose.view != "front":
                x = 0.05 if self.pose.side else 0.0
                self.limb((x, 0.06), (x + 0.012, 0.24), 0.022, 0.014, colour)
        elif self.pose.view == "back":
            self.polygon([(-0.058, 0.06), (0.058, 0.06), (0.066, 0.25), (-0.066, 0.25)], colour)
        elif self.pose.side:
            self.limb((0.028, 0.06), (0.036, 0.23), 0.034, 0.03, colour)
        else:
            for x in (-0.052, 0.052):
                self.limb((x, 0.06), (x * 1.1, 0.22), 0.02, 0.018, colour)

    def _hat(self, centre: Point) -> None:
        appearance, x = self.appearance, centre[0]
        self.ellipse((x, 0.032), 0.059, 0.04, appearance.hat_colour)
        if appearance.hat == "brim":
            self.ellipse((x, 0.055), 0.095, 0.016, scale_colour(appearance.hat_colour, 0.85))
        elif appearance.hat == "cap" and self.pose.view != "back":
            peak = -0.06 if self.pose.side else 0.0
            self.ellipse((x + peak, 0.058), 0.045, 0.012, scale_colour(appearance.hat_colour, 0.75))

    def _backpack_behind(self) -> None:
        colour = self.appearance.bag_colour
        if self.pose.side:
            self.limb((self.shoulder + 0.035, 0.23), (self.shoulder + 0.04, 0.38), 0.05, 0.062, colour)
        else:
            reach = self.shoulder + 0.012
            self.polygon([(-reach, 0.16), (reach, 0.16), (reach, 0.42), (-reach, 0.42)], colour)

    def _bag(self) -> None:
        appearance, view, colour, reach = self.appearance, self.pose.view, self.appearance.bag_colour, self.shoulder
        seen_from = -1 if view == "back" else 1
        if appearance.bag == "backpack" and view == "back":
            self.limb((0, 0.24), (0, 0.40), 0.082, 0.09, colour)
            self.polygon([(-0.05, 0.34), (0.05, 0.34), (0.05, 0.41), (-0.05, 0.41)], scale_colour(colour, 0.7))
        elif appearance.bag == "backpack" and view == "front":
            for x in (-0.6 * reach, 0.6 * reach):
                self.limb((x, 0.165), (x, 0.33), 0.013, 0.013, colour)
        elif appearance.bag == "shoulder":
            hip = seen_from * (self.hip + 0.03)
            self.limb((-0.6 * hip, 0.17), (hip, 0.44), 0.011, 0.011, scale_colour(colour, 0.8))
            self.limb((hip - 0.02, 0.47), (hip + 0.02, 0.47), 0.05, 0.05, colour)
        elif appearance.bag == "hand":
            x = 0.03 if self.pose.side else seen_from * (reach + 0.04)
            self.polygon([(x - 0.055, 0.55), (x + 0.055, 0.55), (x + 0.065, 0.68), (x - 0.065, 0.68)], colour)
