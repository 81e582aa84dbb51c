"""A transparent canvas with points in units of a pedestrian's height, and patterns of garments."""

from PIL import Image, ImageDraw

from reid_tune.demo.appearance import Colour

__all__ = ["Canvas", "Point", "Rectangle", "pattern_rectangles"]

Point = tuple[float, float]
Rectangle = tuple[float, float, float, float]

REACH = 0.3  # larger than the half width of any garment


class Canvas:
    """Canvas for one pedestrian: x = 0 is the middle of the body, y = 0 the top of the head, y = 1 the soles.

    Args:
        size: Width and height in pixels.
        centre: Middle of the body in pixels from the left.
        top: Top of the head in pixels from the top.
        height: Height of the body in pixels.
        mirrored: Whether left and right are swapped.
    """

    def __init__(self, size: tuple[int, int], centre: float, top: float, height: float, mirrored: bool) -> None:
        self.image = Image.new("RGBA", size)
        self._pen = ImageDraw.Draw(self.image)
        self._centre, self._top, self._height = centre, top, height
        self._mirror = -1 if mirrored else 1

    def _at(self, point: Point) -> Point:
        return self._centre + self._mirror * point[0] * self._height, self._top + point[1] * self._height

    def polygon(self, points: list[Point], colour: Colour) -> None:
        """Fill the polygon of the points."""
        self._pen.polygon([self._at(point) for point in points], fill=colour)

    def ellipse(self, centre: Point, across: float, down: float, colour: Colour) -> None:
        """Fill an ellipse with the half axes `across` and `down`."""
        x, y = self._at(centre)
        across, down = across * self._height, down * self._height
        self._pen.ellipse((x - across, y - down, x + across, y + down), fill=colour)

    def limb(self, start: Point, end: Point, thick: float, thin: float, colour: Colour) -> None:
        """Fill a rounded bar whose half width decreases from `thick` to `thin`."""
        dx, dy = end[0] - start[0], end[1] - start[1]
        length = max(1e-6, (dx * dx + dy * dy) ** 0.5)
        nx, ny = -dy / length, dx / length
        corners = [(start[0] + nx * thick, start[1] + ny * thick), (end[0] + nx * thin, end[1] + ny * thin)]
        corners += [(end[0] - nx * thin, end[1] - ny * thin), (start[0] - nx * thick, start[1] - ny * thick)]
        self.polygon(corners, colour)
        self.ellipse(start, thick, thick, colour)
        self.ellipse(end, thin, thin, colour)

    def fill_pattern(self, outline: list[Point], rectangles: list[Rectangle], colour: Colour) -> None:
        """Fill the parts of the rectangles (left, top, right, bottom) that are inside the outline."""
        layer, mask = self.image.copy(), Image.new("L", self.image.size)
        original_pen, self._pen = self._pen, ImageDraw.Draw(layer)
        for x0, y0, x1, y1 in rectangles:
            self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour)
        self._pen = original_pen
        ImageDraw.Draw(mask).polygon([self._at(point) for point in outline], fill=255)
        self.image.paste(layer, mask=mask)


def pattern_rectangles(pattern: str, pitch: float, view: str, shoulder: float, hem: float) -> list[Rectangle]:
    """Return the rectangles (left, top, right, bottom) of a garment's pattern, in units of the body's height.

    A logo and an open jacket look different from the front, the side and the back; the front is at negative x.

    Args:
        pattern: Name of the pattern.
        pitch: Period of the pattern.
        view: One of `figure.VIEWS`.
        shoulder: Height of the shoulders.
        hem: Height of the hem.
    """
    side, front = view in ("left", "right"), view == "front"
    step = pitch * (0.7 if side else 1.0)
    rows = [(shoulder + i * pitch, shoulder + (i + 0.5) * pitch) for i in range(12)]
    if pattern == "stripes":
        return [(-REACH, top, REACH, bottom) for top, bottom in rows]
    if pattern == "pinstripes":
        return [(i * step, 0.0, (i + 0.45) * step, 1.0) for i in range(-5, 6)]
    if pattern == "checks":
        starts = [(i + 0.5 * (j % 2), top, bottom) for j, (top, bottom) in enumerate(rows) for i in range(-5, 6)]
        return [(i * step, top, (i + 0.5) * step, bottom) for i, top, bottom in starts]
    if pattern == "two-tone":
        return [(-REACH, 0.0, REACH, 0.29)]
    if pattern == "open":
        return [(-REACH, 0.2, -0.045, hem)] if side else [(-0.035, 0.0, 0.035, hem)] if front else []
    if pattern == "logo":
        return [(-REACH, 0.22, -0.04, 0.25)] if side else [(-0.055, 0.22, 0.055, 0.30 if front else 0.25)]
    return []
