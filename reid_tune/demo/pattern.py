"""What is printed on a garment, as rectangles of its second colour."""

from reid_tune.demo.canvas import Rectangle

__all__ = ["pattern_rectangles"]

# Further out than any garment reaches.
REACH = 0.3


def pattern_rectangles(pattern: str, pitch: float, view: str, shoulder: float, hem: float) -> list[Rectangle]:
    """The rectangles (left, top, right, bottom), in units of the body's height, of a pattern with the period `pitch`.

    A logo and an open jacket look different from the front, the side and the back; the front is at negative x.
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
