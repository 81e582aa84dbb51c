from pathlib import Path

import numpy as np
from PIL import Image

from reid_tune.data.contact_sheet import CELL, PICTURE, choose_images, draw_contact_sheet
from reid_tune.data.records import ImageRecord, read_image_folder


def records(pairs: list[tuple[int, int]]) -> list[ImageRecord]:
    return [
        ImageRecord(Path(f"{identity}_c{camera}_{n}"), identity, camera) for n, (identity, camera) in enumerate(pairs)
    ]


def test_one_image_for_each_camera_of_each_identity() -> None:
    made = records([(7, 2), (7, 1), (7, 2), (-1, 1), (0, 3), (5, 4)])
    assert choose_images(made) == [[made[5]], [made[1], made[0]]]
    assert choose_images(records([(0, 1), (-1, 2)])) == []


def test_many_identities_are_spread_and_cut_to_a_page() -> None:
    rows = choose_images(records([(identity, camera) for identity in range(1, 121) for camera in range(1, 20)]))
    assert [row[0].identity for row in rows] == list(range(1, 121, 10))
    assert {len(row) for row in rows} == {8} and [record.camera for record in rows[0]] == list(range(1, 9))


def test_images_are_in_their_cells_with_their_names_below(tmp_path: Path) -> None:
    folder = tmp_path / "crops"
    folder.mkdir()
    colors = {"0001_c1_é.png": (255, 0, 0), "0001_c2.png": (0, 255, 0), "0002_c1.png": (0, 0, 255)}
    for name, color in colors.items():
        Image.new("RGB", (16, 32), color).save(folder / name)
    draw_contact_sheet(read_image_folder(folder).records, tmp_path / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape == (2 * CELL[1], 2 * CELL[0], 3)
    for (row, column), color in zip([(0, 0), (0, 1), (1, 0)], colors.values(), strict=True):
        cell = sheet[row * CELL[1] : (row + 1) * CELL[1], column * CELL[0] : (column + 1) * CELL[0]]
        assert tuple(cell[PICTURE[1] // 2, CELL[0] // 2]) == color
        assert (cell[PICTURE[1] + 6 :].min(axis=2) < 100).any()
    assert (sheet[CELL[1] :, CELL[0] :] == 255).all()
