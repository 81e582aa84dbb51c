"""Names of image files: which files are images, and the identity and camera that a name states."""

import os
import re

from reid_tune.files import display_name

__all__ = [
    "IMAGE_SUFFIXES",
    "NAME_FORMAT",
    "explain_name",
    "has_image_suffix",
    "is_other_image",
    "is_system_name",
    "parse_name",
]

# In lower case; a name may have any case.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
NAME_FORMAT = f"IDENTITY_cCAMERA...jpg (or {', '.join(IMAGE_SUFFIXES[1:])}) such as 0002_c1s1_000451_03.jpg"

# The limits on digits keep all numbers, with offsets too, within an int64.
_IDENTITY_DIGITS, _CAMERA_DIGITS = 12, 9
_NAME = re.compile(rf"(-?\d{{1,{_IDENTITY_DIGITS}}})_c(\d{{1,{_CAMERA_DIGITS}}})(?!\d)", re.ASCII)
# Formats of images that are not read.
_OTHER_IMAGES = re.compile(
    r"\.(arw|avif|cr[23]|dds|dib|dng|exr|gif|hdr|hei[cf]|ico|j2k|jif|jfif|jp2|jpe|jpx|jxl|jxr|nef|orf|p[bfgpn]m|pcx|psd|"
    r"raw|rw2|svg|tga|x[bp]m)"
)
_SYSTEM = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "$recycle.bin"})

# Names of other data sets: pattern, description, and the name that the file needs here.
_OTHER_FORMS = (
    (
        re.compile(r"\d{4}_\d{3}_\d{2}_\d{4}(morning|noon|afternoon)_", re.ASCII | re.IGNORECASE),
        "a name of MSMT17; 'reid-tune convert msmt17 SOURCE TARGET' makes folders of links with the right names",
    ),
    (
        re.compile(r"(?P<identity>\d{4})C(?P<camera>\d+)T\d+F\d+", re.ASCII | re.IGNORECASE),
        "a name of MARS (identity, C, camera, T, tracklet, F, frame)",
    ),
    (
        re.compile(r"(?P<identity>\d+)_\d+_c(?P<camera>\d+)(?!\d)", re.ASCII | re.IGNORECASE),
        "a name of LTCC (identity, clothes, c and camera)",
    ),
    (
        re.compile(r"(?P<identity>-?\d+)[_-]?C(am)?[_-]?(?P<camera>\d+)(?!\d)", re.ASCII | re.IGNORECASE),
        "nearly right: after the identity come an underscore, a lower-case c and the number of the camera",
    ),
    (
        re.compile(
            r"c(am)?[_-]?(?P<camera>\d+)[_-](p|person|id)?[_-]?(?P<identity>\d+)(?!\d)", re.ASCII | re.IGNORECASE
        ),
        "a name with the camera first",
    ),
    (
        re.compile(r"(?P<camera>\d+)_(?P<identity>\d{3,})_\d+_\d+\.", re.ASCII),
        "a name of CUHK03 as other tools unpack it (camera pair, identity, view, image)",
    ),
    (
        re.compile(r"(?P<identity>\d+)[_-](?P<camera>\d+)([_-]\d+)*\.", re.ASCII),
        "a name of numbers without the letter c, which marks the camera",
    ),
    (re.compile(r"\d+\.", re.ASCII), "a number only, which does not say both the identity and the camera"),
)


def has_image_suffix(name: str) -> bool:
    """Whether a file name ends as an image does."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def parse_name(name: str) -> tuple[int, int] | None:
    """Return the identity and the camera that a file name states, None if it has another form."""
    match = _NAME.match(name)
    return (int(match[1]), int(match[2])) if match else None


def is_system_name(name: str) -> bool:
    """Whether a file or folder is hidden or made by an operating system, such as Thumbs.db and .DS_Store."""
    return name.startswith(".") or name.lower() in _SYSTEM


def is_other_image(name: str) -> bool:
    """Whether a file without an accepted suffix may be an image: of a format that is not read, or without a suffix.

    A name such as `0002_c1.txt` or `0002_c1.mp4` belongs to a label, a video or the like.
    """
    suffix = os.path.splitext(name)[1].lower()
    return _OTHER_IMAGES.fullmatch(suffix) is not None or (not suffix and parse_name(name) is not None)


def explain_name(name: str) -> str:
    """Return what an unknown form of a name may be, and the name that the file needs; empty if nothing is known."""
    for pattern, description in _OTHER_FORMS:
        if match := pattern.match(name):
            numbers = match.groupdict()
            if "identity" not in numbers:
                return description
            renamed = f"{numbers['identity']}_c{numbers['camera']}_{display_name(name)}"
            if parse_name(renamed):
                return f"{description}, renamed {renamed}"
            return (
                f"a name with too many digits: an identity has at most {_IDENTITY_DIGITS} digits and a camera "
                f"{_CAMERA_DIGITS}"
            )
    return ""
