"""An articulated pedestrian, drawn in units of its own height: y = 0 at the top of the head, 1 at the soles."""

from dataclasses import dataclass
from math import cos, pi, sin

from PIL import Image, ImageDraw

from reid_tune.data.demo.look import Colour, Look, darker

__all__ = ["Pose", "VIEWS", "draw_figure"]

VIEWS = ("front", "back", "left", "right")
Point = tuple[float, float]

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


class _Figure:
    """One drawing: the primitives take points in body units, the parts are drawn from back to front."""

    def __init__(self, size: tuple[int, int], look: Look, pose: Pose, centre: float, top: float, height: float) -> None:
        self.image = Image.new("RGBA", size)
        self.look, self.pose = look, pose
        self._pen = ImageDraw.Draw(self.image)
        self._centre, self._top, self._height = centre, top, height
        self._mirror = -1 if pose.view == "right" else 1
        width = look.build * (0.62 if pose.side else 1.0)
        self.shoulder, self.hip = 0.115 * width, 0.088 * width

    def draw(self) -> None:
        behind = self.look.bag == "backpack" and self.pose.view != "back"
        if behind:
            self._backpack()
        self._arm(-1)
        self._leg(-1)
        self._leg(1)
        self._garments()
        if self.look.hair in ("long", "tail") and self.pose.view == "front":
            self._long_hair()
        self._head()
        self._arm(1)
        self._bags(behind)

    # Primitives.

    def _at(self, point: Point) -> Point:
        return self._centre + self._mirror * point[0] * self._height, self._top + point[1] * self._height

    def _polygon(self, points: list[Point], colour: Colour) -> None:
        self._pen.polygon([self._at(point) for point in points], fill=colour)

    def _ellipse(self, centre: Point, across: float, down: float, colour: Colour) -> None:
        x, y = self._at(centre)
        across, down = across * self._height, down * self._height
        self._pen.ellipse((x - across, y - down, x + across, y + down), fill=colour)

    def _limb(self, start: Point, end: Point, thick: float, thin: float, colour: Colour) -> None:
        dx, dy = end[0] - start[0], end[1] - start[1]
        length = max(1e-6, (dx * dx + dy * dy) ** 0.5)
        nx, ny = -dy / length, dx / length
        corners = [(start[0] + nx * thick, start[1] + ny * thick), (end[0] + nx * thin, end[1] + ny * thin)]
        corners += [(end[0] - nx * thin, end[1] - ny * thin), (start[0] - nx * thick, start[1] - ny * thick)]
        self._polygon(corners, colour)
        self._ellipse(start, thick, thick, colour)
        self._ellipse(end, thin, thin, colour)

    def _swing(self, joint: Point, length: float, angle: float) -> Point:
        """The far end of a bone: a swing shows fully from the side, hardly from the front."""
        across = sin(angle) * (1.0 if self.pose.side else 0.12)
        return joint[0] + length * across, joint[1] + length * cos(angle)

    # Parts.

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
        thick = 0.052 * look.build
        self._limb(hip, knee, thick, 0.042 * look.build, bare if look.lower in ("skirt", "dress") else cloth)
        self._limb(knee, ankle, 0.040 * look.build, 0.028, cloth if look.lower in ("trousers", "coat") else bare)
        toe = 0.05 if self.pose.side else 0.008 * which
        self._limb((ankle[0], ankle[1] + 0.02), (ankle[0] - toe, ankle[1] + 0.028), 0.026, 0.02, look.shoes)

    def _arm(self, which: int) -> None:
        look = self.look
        cycle = 2 * pi * self.pose.phase + (0 if which > 0 else pi)
        angle = 0.8 * self.pose.stride * sin(cycle)
        outwards = 0.0 if self.pose.side else which * (self.shoulder + 0.008)
        joint = (outwards, SHOULDER + 0.025)
        elbow = self._swing(joint, UPPER_ARM, angle)
        elbow = (elbow[0] + (0 if self.pose.side else which * 0.018), elbow[1])
        hand = self._swing(elbow, FOREARM, angle - 0.35)
        shade = 0.8 if which < 0 and self.pose.side else 0.92
        sleeve = darker(look.second if look.pattern == "two-tone" else look.top, shade)
        bare = darker(look.skin, shade)
        self._limb(joint, elbow, 0.036 * look.build, 0.03, bare if look.sleeves == "none" else sleeve)
        self._limb(elbow, hand, 0.029, 0.022, sleeve if look.sleeves == "long" else bare)
        self._ellipse(hand, 0.022, 0.024, bare)

    def _garments(self) -> None:
        look, shoulder, hip = self.look, self.shoulder, self.hip
        hem = {"dress": 0.70, "coat": 0.68}.get(look.lower, 0.53)
        flare = {"dress": 1.45, "coat": 1.25}.get(look.lower, 1.02)
        if look.lower == "skirt":
            self._polygon([(-hip, 0.48), (hip, 0.48), (hip * 1.4, 0.69), (-hip * 1.4, 0.69)], look.lower_colour)
        right = [
            (0.35 * shoulder, 0.155),
            (shoulder, SHOULDER),
            (0.86 * shoulder, 0.36),
            (hip, HIP),
            (hip * flare, hem),
        ]
        outline = right + [(-x, y) for x, y in reversed(right)]
        self._limb((0, 0.12), (0, 0.17), 0.03, 0.03, darker(look.skin, 0.9))
        self._polygon(outline, look.top)
        if look.pattern != "plain":
            self._print_pattern(outline, hem)

    def _print_pattern(self, outline: list[Point], hem: float) -> None:
        """Draw the pattern on a sheet and cut the garment out of it."""
        sheet, mask = self.image.copy(), Image.new("L", self.image.size)
        garment, self._pen = self._pen, ImageDraw.Draw(sheet)
        for x0, y0, x1, y1 in self._pattern(hem):
            self._polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], self.look.second)
        self._pen = garment
        ImageDraw.Draw(mask).polygon([self._at(point) for point in outline], fill=255)
        self.image.paste(sheet, mask=mask)

    def _pattern(self, hem: float) -> list[tuple[float, float, float, float]]:
        """The rectangles (left, top, right, bottom) of the second colour."""
        pitch, reach = self.look.pitch, 0.24
        rows = [(-reach, SHOULDER + i * pitch, reach, SHOULDER + (i + 0.5) * pitch) for i in range(12)]
        step = pitch * (0.7 if self.pose.side else 1.0)
        columns = [(i * step, 0.0, (i + 0.45) * step, 1.0) for i in range(-5, 6)]
        front = self.pose.view == "front"
        if self.look.pattern == "stripes":
            return rows
        if self.look.pattern == "pinstripes":
            return columns
        if self.look.pattern == "checks":
            return [
                (left, rows[j][1], left + 0.5 * step, rows[j][3])
                for j in range(len(rows))
                for left in ((i + 0.5 * (j % 2)) * step for i in range(-5, 6))
            ]
        if self.look.pattern == "two-tone":
            return [(-reach, 0.0, reach, 0.29)]
        if self.look.pattern == "open":
            width = 0.035 if front else 0.02
            return [(-width, 0.0, width, hem)] if front else [(-0.3, 0.2, -0.045, hem)] if self.pose.side else []
        height = 0.30 if front else 0.25
        return [(-0.055, 0.22, 0.055, height)] if not self.pose.side else [(-0.2, 0.22, -0.04, height)]

    def _head(self) -> None:
        look, view = self.look, self.pose.view
        centre = (0.0 if not self.pose.side else -0.012, 0.078)
        tint = darker(look.skin, 0.96)
        self._ellipse(centre, 0.054, 0.07, tint)
        if look.hair != "bald":
            self._hair(centre)
        if view == "front":
            for x in (-0.02, 0.02):
                self._ellipse((x, 0.085), 0.007, 0.006, (40, 32, 30))
        if look.hat != "none":
            self._hat(centre)

    def _hair(self, centre: Point) -> None:
        look, view, x = self.look, self.pose.view, centre[0]
        if view == "front":
            self._ellipse((x, 0.034), 0.055, 0.034, look.hair_colour)
        elif view == "back":
            self._ellipse((x, 0.07), 0.058, 0.066, look.hair_colour)
        else:
            self._ellipse((x + 0.012, 0.045), 0.05, 0.045, look.hair_colour)
            self._ellipse((x + 0.03, 0.075), 0.03, 0.05, look.hair_colour)
        if look.hair == "bun":
            self._ellipse((x + (0.05 if self.pose.side else 0), 0.012), 0.03, 0.026, look.hair_colour)
        if view != "front" and look.hair in ("long", "tail"):
            self._long_hair()

    def _long_hair(self) -> None:
        colour = darker(self.look.hair_colour, 0.9)
        if self.look.hair == "tail":
            if self.pose.view != "front":
                x = 0.05 if self.pose.side else 0.0
                self._limb((x, 0.06), (x + 0.012, 0.24), 0.022, 0.014, colour)
        elif self.pose.view == "back":
            self._polygon([(-0.058, 0.06), (0.058, 0.06), (0.066, 0.25), (-0.066, 0.25)], colour)
        elif self.pose.side:
            self._limb((0.028, 0.06), (0.036, 0.23), 0.034, 0.03, colour)
        else:
            for x in (-0.052, 0.052):
                self._limb((x, 0.06), (x * 1.1, 0.22), 0.02, 0.018, colour)

    def _hat(self, centre: Point) -> None:
        look, x = self.look, centre[0]
        self._ellipse((x, 0.032), 0.059, 0.04, look.hat_colour)
        if look.hat == "brim":
            self._ellipse((x, 0.055), 0.095, 0.016, darker(look.hat_colour, 0.85))
        elif look.hat == "cap" and self.pose.view != "back":
            peak = -0.06 if self.pose.side else 0.0
            self._ellipse((x + peak, 0.058), 0.045, 0.012, darker(look.hat_colour, 0.75))

    def _backpack(self) -> None:
        colour = self.look.bag_colour
        if self.pose.side:
            self._limb((self.shoulder + 0.035, 0.23), (self.shoulder + 0.04, 0.38), 0.05, 0.062, colour)
        else:
            reach = self.shoulder + 0.012
            self._polygon([(-reach, 0.16), (reach, 0.16), (reach, 0.42), (-reach, 0.42)], colour)

    def _bags(self, behind: bool) -> None:
        look, colour, reach = self.look, self.look.bag_colour, self.shoulder
        if look.bag == "backpack" and not behind:
            self._limb((0, 0.24), (0, 0.40), 0.082, 0.09, colour)
            self._polygon([(-0.05, 0.34), (0.05, 0.34), (0.05, 0.41), (-0.05, 0.41)], darker(colour, 0.7))
        elif look.bag == "backpack" and self.pose.view == "front":
            for x in (-0.6 * reach, 0.6 * reach):
                self._limb((x, 0.165), (x, 0.33), 0.013, 0.013, colour)
        elif look.bag == "shoulder":
            hip = (self.hip + 0.03) * (-1 if self.pose.view == "back" else 1)
            self._limb((-0.6 * hip, 0.17), (hip, 0.44), 0.011, 0.011, darker(colour, 0.8))
            self._limb((hip - 0.02, 0.47), (hip + 0.02, 0.47), 0.05, 0.05, colour)
        elif look.bag == "hand":
            x = 0.03 if self.pose.side else (reach + 0.04) * (-1 if self.pose.view == "back" else 1)
            self._polygon([(x - 0.055, 0.55), (x + 0.055, 0.55), (x + 0.065, 0.68), (x - 0.065, 0.68)], colour)
