"""An articulated pedestrian, drawn in units of its own height: y = 0 at the top of the head, 1 at the soles."""

from dataclasses import dataclass
from math import cos, pi, sin

from PIL import Image

from reid_tune.demo.canvas import Canvas, Point
from reid_tune.demo.look import Look, darker
from reid_tune.demo.pattern import pattern_rectangles

__all__ = ["Pose", "VIEWS", "draw_figure"]

VIEWS = ("front", "back", "left", "right")

SHOULDER, HIP = 0.18, 0.50
THIGH, SHIN = 0.24, 0.22
UPPER_ARM, FOREARM = 0.16, 0.15


@dataclass(frozen=True)
class Pose:
    """How a pedestrian is met: `view` is one of VIEWS, `phase` the place in the walking cycle, 0 to 1."""

    view: str
    phase: float
    stride: float = 0.45

    @property
    def side(self) -> bool:
        return self.view in ("left", "right")


def draw_figure(size: tuple[int, int], look: Look, pose: Pose, centre: float, top: float, height: float) -> Image.Image:
    """A transparent RGBA image of `size` (width, height) with one pedestrian.

    Args:
        centre: the middle of the body, in pixels from the left; may lie outside.
        top: the top of the head, in pixels from above.
        height: from head to soles, in pixels.
    """
    figure = _Figure(size, look, pose, centre, top, height)
    figure.draw()
    return figure.image


class _Figure(Canvas):
    """One drawing, whose parts are drawn from back to front."""

    def __init__(self, size: tuple[int, int], look: Look, pose: Pose, centre: float, top: float, height: float) -> None:
        super().__init__(size, centre, top, height, mirrored=pose.view == "right")
        self.look, self.pose = look, pose
        width = look.build * (0.62 if pose.side else 1.0)
        self.shoulder, self.hip = 0.115 * width, 0.088 * width

    def draw(self) -> None:
        if self.look.bag == "backpack" and self.pose.view != "back":
            self._backpack_behind()
        self._arm(-1)
        self._leg(-1)
        self._leg(1)
        self._garments()
        if self.look.hair in ("long", "tail") and self.pose.view == "front":
            self._long_hair()
        self._head()
        self._arm(1)
        self._bag()

    def _swing(self, joint: Point, length: float, angle: float) -> Point:
        """The far end of a bone: a swing shows fully from the side, hardly from the front."""
        across = sin(angle) * (1.0 if self.pose.side else 0.12)
        return joint[0] + length * across, joint[1] + length * cos(angle)

    def _leg(self, which: int) -> None:
        look = self.look
        cycle = 2 * pi * self.pose.phase + (pi if which > 0 else 0)
        angle = self.pose.stride * sin(cycle)
        bend = self.pose.stride * 1.3 * max(0.0, cos(cycle))
        hip = (which * self.hip * (0.15 if self.pose.side else 0.55), HIP)
        knee = self._swing(hip, THIGH, angle)
        ankle = self._swing(knee, SHIN, angle - bend)
        shade = 0.82 if which < 0 and self.pose.side else 1.0
        bare = darker(look.skin, shade)
        cloth = darker(look.lower_colour, shade)
        self.limb(
            hip, knee, 0.052 * look.build, 0.042 * look.build, bare if look.lower in ("skirt", "dress") else cloth
        )
        self.limb(knee, ankle, 0.040 * look.build, 0.028, cloth if look.lower in ("trousers", "coat") else bare)
        toe = 0.05 if self.pose.side else 0.008 * which
        self.limb((ankle[0], ankle[1] + 0.02), (ankle[0] - toe, ankle[1] + 0.028), 0.026, 0.02, look.shoes)

    def _arm(self, which: int) -> None:
        look = self.look
        cycle = 2 * pi * self.pose.phase + (0 if which > 0 else pi)
        angle = 0.8 * self.pose.stride * sin(cycle)
        outwards = 0 if self.pose.side else which
        joint = (outwards * (self.shoulder + 0.008), SHOULDER + 0.025)
        x, y = self._swing(joint, UPPER_ARM, angle)
        elbow = (x + outwards * 0.018, y)
        hand = self._swing(elbow, FOREARM, angle - 0.35)
        shade = 0.8 if which < 0 and self.pose.side else 0.92
        sleeve = darker(look.second if look.pattern == "two-tone" else look.top, shade)
        bare = darker(look.skin, shade)
        self.limb(joint, elbow, 0.036 * look.build, 0.03, bare if look.sleeves == "none" else sleeve)
        self.limb(elbow, hand, 0.029, 0.022, sleeve if look.sleeves == "long" else bare)
        self.ellipse(hand, 0.022, 0.024, bare)

    def _garments(self) -> None:
        look, shoulder, hip = self.look, self.shoulder, self.hip
        hem = {"dress": 0.70, "coat": 0.68}.get(look.lower, 0.53)
        flare = {"dress": 1.45, "coat": 1.25}.get(look.lower, 1.02)
        if look.lower == "skirt":
            self.polygon([(-hip, 0.48), (hip, 0.48), (hip * 1.4, 0.69), (-hip * 1.4, 0.69)], look.lower_colour)
        right = [
            (0.35 * shoulder, 0.155),
            (shoulder, SHOULDER),
            (0.86 * shoulder, 0.36),
            (hip, HIP),
            (hip * flare, hem),
        ]
        outline = right + [(-x, y) for x, y in reversed(right)]
        self.limb((0, 0.12), (0, 0.17), 0.03, 0.03, darker(look.skin, 0.9))
        self.polygon(outline, look.top)
        self.print_on(outline, pattern_rectangles(look.pattern, look.pitch, self.pose.view, SHOULDER, hem), look.second)

    def _head(self) -> None:
        look, view = self.look, self.pose.view
        centre = (0.0 if not self.pose.side else -0.012, 0.078)
        self.ellipse(centre, 0.054, 0.07, darker(look.skin, 0.96))
        if look.hair != "bald":
            self._hair(centre)
        if view == "front":
            for x in (-0.02, 0.02):
                self.ellipse((x, 0.085), 0.007, 0.006, (40, 32, 30))
        if look.hat != "none":
            self._hat(centre)

    def _hair(self, centre: Point) -> None:
        look, view, x = self.look, self.pose.view, centre[0]
        if view == "front":
            self.ellipse((x, 0.034), 0.055, 0.034, look.hair_colour)
        elif view == "back":
            self.ellipse((x, 0.07), 0.058, 0.066, look.hair_colour)
        else:
            self.ellipse((x + 0.012, 0.045), 0.05, 0.045, look.hair_colour)
            self.ellipse((x + 0.03, 0.075), 0.03, 0.05, look.hair_colour)
        if look.hair == "bun":
            self.ellipse((x + (0.05 if self.pose.side else 0), 0.012), 0.03, 0.026, look.hair_colour)
        if view != "front" and look.hair in ("long", "tail"):
            self._long_hair()

    def _long_hair(self) -> None:
        colour = darker(self.look.hair_colour, 0.9)
        if self.look.hair == "tail":
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
        look, x = self.look, centre[0]
        self.ellipse((x, 0.032), 0.059, 0.04, look.hat_colour)
        if look.hat == "brim":
            self.ellipse((x, 0.055), 0.095, 0.016, darker(look.hat_colour, 0.85))
        elif look.hat == "cap" and self.pose.view != "back":
            peak = -0.06 if self.pose.side else 0.0
            self.ellipse((x + peak, 0.058), 0.045, 0.012, darker(look.hat_colour, 0.75))

    def _backpack_behind(self) -> None:
        colour = self.look.bag_colour
        if self.pose.side:
            self.limb((self.shoulder + 0.035, 0.23), (self.shoulder + 0.04, 0.38), 0.05, 0.062, colour)
        else:
            reach = self.shoulder + 0.012
            self.polygon([(-reach, 0.16), (reach, 0.16), (reach, 0.42), (-reach, 0.42)], colour)

    def _bag(self) -> None:
        look, view, colour, reach = self.look, self.pose.view, self.look.bag_colour, self.shoulder
        seen_from = -1 if view == "back" else 1
        if look.bag == "backpack" and view == "back":
            self.limb((0, 0.24), (0, 0.40), 0.082, 0.09, colour)
            self.polygon([(-0.05, 0.34), (0.05, 0.34), (0.05, 0.41), (-0.05, 0.41)], darker(colour, 0.7))
        elif look.bag == "backpack" and view == "front":
            for x in (-0.6 * reach, 0.6 * reach):
                self.limb((x, 0.165), (x, 0.33), 0.013, 0.013, colour)
        elif look.bag == "shoulder":
            hip = seen_from * (self.hip + 0.03)
            self.limb((-0.6 * hip, 0.17), (hip, 0.44), 0.011, 0.011, darker(colour, 0.8))
            self.limb((hip - 0.02, 0.47), (hip + 0.02, 0.47), 0.05, 0.05, colour)
        elif look.bag == "hand":
            x = 0.03 if self.pose.side else seen_from * (reach + 0.04)
            self.polygon([(x - 0.055, 0.55), (x + 0.055, 0.55), (x + 0.065, 0.68), (x - 0.065, 0.68)], colour)
