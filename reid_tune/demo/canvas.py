"""A transparent sheet whose points are given in units of a pedestrian's height."""

from PIL import Image, ImageDraw

from reid_tune.demo.look import Colour

__all__ = ["Canvas", "Point", "Rectangle"]

Point = tuple[float, float]
Rectangle = tuple[float, float, float, float]


class Canvas:
    """x = 0 is the middle of the body, y = 0 the top of the head, y = 1 the soles; a mirrored one swaps the sides."""

    def __init__(self, size: tuple[int, int], centre: float, top: float, height: float, mirrored: bool) -> None:
        self.image = Image.new("RGBA", size)
        self._pen = ImageDraw.Draw(self.image)
        self._centre, self._top, self._height = centre, top, height
        self._mirror = -1 if mirrored else 1

    def _at(self, point: Point) -> Point:
        return self._centre + self._mirror * point[0] * self._height, self._top + point[1] * self._height

    def polygon(self, points: list[Point], colour: Colour) -> None:
        """Fill the area within the points."""
        self._pen.polygon([self._at(point) for point in points], fill=colour)

    def ellipse(self, centre: Point, across: float, down: float, colour: Colour) -> None:
        """Fill an ellipse with the half axes `across` and `down`."""
        x, y = self._at(centre)
        across, down = across * self._height, down * self._height
        self._pen.ellipse((x - across, y - down, x + across, y + down), fill=colour)

    def limb(self, start: Point, end: Point, thick: float, thin: float, colour: Colour) -> None:
        """Fill a rounded bar, whose half width goes from `thick` to `thin`."""
        dx, dy = end[0] - start[0], end[1] - start[1]
        length = max(1e-6, (dx * dx + dy * dy) ** 0.5)
        nx, ny = -dy / length, dx / length
        corners = [(start[0] + nx * thick, start[1] + ny * thick), (end[0] + nx * thin, end[1] + ny * thin)]
        corners += [(end[0] - nx * thin, end[1] - ny * thin), (start[0] - nx * thick, start[1] - ny * thick)]
        self.polygon(corners, colour)
        self.ellipse(start, thick, thick, colour)
        self.ellipse(end, thin, thin, colour)

    def print_on(self, outline: list[Point], rectangles: list[Rectangle], colour: Colour) -> None:
        """Fill the parts of the rectangles (left, top, right, bottom) that lie within the outline."""
        sheet, mask = self.image.copy(), Image.new("L", self.image.size)
        page, self._pen = self._pen, ImageDraw.Draw(sheet)
        for x0, y0, x1, y1 in rectangles:
            self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour)
        self._pen = page
        ImageDraw.Draw(mask).polygon([self._at(point) for point in outline], fill=255)
        self.image.paste(sheet, mask=mask)
