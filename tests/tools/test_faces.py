"""Folders of faces are what `folder:PATH` reads, with people apart and attributes by hand."""

import csv
import io
import pathlib
import zipfile

import numpy as np
import pytest
from PIL import Image

from tfgen.data import load
from tfgen.errors import UserError
from tools import faces

PEOPLE = 8
_POSES = ["forward", "left", "right", "up"]


def _of_cmu(path: pathlib.Path, **changes: np.ndarray) -> pathlib.Path:
    """Two images of each person, the second with sunglasses and a pose."""
    person = np.repeat(np.arange(PEOPLE) * 2, 2)  # the numbers have gaps
    second = np.tile([0, 1], PEOPLE)
    arrays = {
        "image": (person[:, None, None] + np.zeros([2 * PEOPLE, 8, 8])).astype(np.uint8),
        "person": person,
        "sunglasses": second,
        "pose": second * (1 + np.arange(2 * PEOPLE) % 3),
        "pose_names": np.array(_POSES),
        "expression": 1 - second,
        "expression_names": np.array(["neutral", "happy"]),
    } | changes
    np.savez(path, **arrays)
    return path


def _points(mouth: float, turned: float) -> np.ndarray:
    """Landmarks [68, 2] of a face whose eyes' outer corners are 10 apart."""
    points = np.zeros([68, 2])
    points[36], points[39], points[42], points[45] = (0, 0), (3, 0), (7, 0), (10, 0)
    for upper, lower, x in ((37, 41, 1), (38, 40, 2), (43, 47, 8), (44, 46, 9)):
        points[upper], points[lower] = (x, -0.5), (x, 0.5)
    points[17:27] = np.stack([np.linspace(0, 10, 10), np.full(10, -3.0)], axis=1)
    points[48], points[54] = (2, 10), (8, 10)
    points[62], points[66] = (5, 10 - mouth / 2), (5, 10 + mouth / 2)
    points[0], points[16], points[30] = (-5, 5), (15, 5), (5 + 10 * turned, 5)
    return points


def _of_keypoints(folder: pathlib.Path, points: np.ndarray) -> pathlib.Path:
    folder.mkdir()
    np.savez(folder / "keypoints68.npz", keypoints=points, person=np.arange(len(points)) % PEOPLE)
    with zipfile.ZipFile(folder / "faces64.zip", "w") as archive:
        for index in range(len(points)):
            file = io.BytesIO()
            Image.new("RGB", (8, 8), (index, 0, 0)).save(file, "jpeg")
            archive.writestr(f"{index:05d}.jpg", file.getvalue())
    return folder


def _make(name: str, source: pathlib.Path, folder: pathlib.Path) -> list[dict[str, str]]:
    """Rows of the table that the command writes."""
    arguments = [f"--set={name}", f"--source={source}", f"--folder={folder}"]
    assert faces.main(["", *arguments]) == 0
    with open(folder / "attributes.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_cmu_faces(tmp_path):
    rows = _make("cmu_faces", _of_cmu(tmp_path / "cmu.npz"), tmp_path / "made" / "cmu")
    assert list(rows[0]) == ["image", "sunglasses", "left", "right", "up", "happy"]
    for index, row in enumerate(rows):
        pose = (1 + index % 3) * (index % 2)
        wanted = [index % 2, *(float(pose == p) for p in (1, 2, 3)), 1 - index % 2]
        assert [float(v) for v in list(row.values())[1:]] == wanted
    greys = {np.asarray(Image.open(tmp_path / "made/cmu" / r["image"])).max() for r in rows}
    assert max(greys) == 255
    assert len(list((tmp_path / "made").iterdir())) == 1  # nothing else is left there


def test_no_person_is_in_two_splits(tmp_path):
    rows = _make("cmu_faces", _of_cmu(tmp_path / "cmu.npz"), tmp_path / "cmu")
    splits = [row["image"].split("/")[0] for row in rows]
    assert splits[::2] == splits[1::2]
    assert [splits.count(name) for name in ("train", "val", "test")] == [12, 2, 2]


def test_is_data_with_attributes(tmp_path):
    _make("cmu_faces", _of_cmu(tmp_path / "cmu.npz"), tmp_path / "cmu")
    data = load(f"folder:{tmp_path / 'cmu'}", needs=("image", "attributes"))
    batch = next(iter(data.batches("test", 2)))
    np.testing.assert_array_equal(batch["attributes"], [[0, 0, 0, 0, 1], [1, 1, 0, 0, 0]])


def test_geometry():
    found = faces.geometry(np.stack([_points(0, 0), _points(0, 0), _points(4, 0.5)]))
    np.testing.assert_allclose(found["smile"], 0.6)
    np.testing.assert_allclose(found["eyes_open"], 1 / 3)
    np.testing.assert_allclose(found["brows_up"], 0.3)
    np.testing.assert_allclose(found["roll"], 0)
    # The 95th percentile of 0, 0, v is 0.9 v.
    np.testing.assert_allclose(found["mouth_open"], [0, 0, 0.36])
    np.testing.assert_allclose(found["yaw"], [0, 0, 0.45])


def test_geometry_of_a_head_that_is_tilted():
    (cos, sin) = np.cos(0.3), np.sin(0.3)
    face = _points(1, 0.2)
    tilted = face @ np.array([[cos, sin], [-sin, cos]])
    straight, found = (faces.geometry(p[np.newaxis]) for p in (face, tilted))
    np.testing.assert_allclose(found.pop("roll"), straight.pop("roll") + 0.3)
    for name, value in straight.items():
        np.testing.assert_allclose(found[name], value, err_msg=name)


def test_faces_keypoints(tmp_path):
    points = np.stack([_points(index, 0) for index in range(PEOPLE)])
    rows = _make("faces_keypoints", _of_keypoints(tmp_path / "s", points), tmp_path / "f")
    assert [float(row["mouth_open"]) for row in rows[1:-1]] == pytest.approx(
        np.arange(1, PEOPLE - 1) / 10, abs=1e-5
    )
    for index, row in enumerate(rows):
        red = np.asarray(Image.open(tmp_path / "f" / row["image"]))[..., 0]
        assert abs(int(red[0, 0]) - index) <= 2  # JPEG


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--folder=F"], "--source is missing: say a path"),
        (["--source=cmu.npz"], "--folder is missing: say a path"),
        (["--source=none.npz", "--folder=F"], "'none.npz' cannot be read as .npz"),
        (["--source=cmu.npz", "--folder=."], "--folder must not exist yet. Received: ."),
        (["--source=bare.npz", "--folder=F"], "'bare.npz' has no person, sunglasses"),
        (["--source=few.npz", "--folder=F"], "pose in 'few.npz' must be of shape (16,)"),
        (["--set=faces_keypoints", "--source=s", "--folder=F"], "There is no item named"),
        (["--set=faces_keypoints", "--source=flat", "--folder=F"], "must be of shape (4, 68, 2)"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    _of_cmu(tmp_path / "cmu.npz")
    np.savez(tmp_path / "bare.npz", image=np.zeros([1, 2, 2]))
    short = _of_keypoints(tmp_path / "s", np.stack([_points(1, 0)] * 9)) / "keypoints68.npz"
    np.savez(short, keypoints=np.stack([_points(1, 0)] * 10), person=np.arange(10))
    _of_cmu(tmp_path / "few.npz", pose=np.zeros(3, int))
    _of_keypoints(tmp_path / "flat", np.zeros([4, 136]))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError) as error:
        faces.main(["", *arguments])
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert sorted(tmp_path.iterdir()) == before
