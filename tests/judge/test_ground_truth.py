"""What the json of pictures says, and what is wrong with labels."""

import json
from pathlib import Path

import numpy as np
import pytest

from dcgan_dist.judge import ground_truth
from dcgan_dist.judge.judge import box_of
from dcgan_dist.run_folder.finding import ExploreError, share

METAS = [
    {
        "name": "a",
        "label": 3,
        "boxes": {"window": [0, 0, 0.5, 0.5]},
        "bright": True,
        "side": "left",
        "yaw": 4.0,
    },
    {"name": "b", "label": 1, "boxes": {}, "bright": False, "side": "right", "yaw": -2.0},
    {"name": "c", "boxes": {}, "bright": True, "side": "right"},
]


def test_boxes_flags_numbers_and_texts_become_attributes() -> None:
    told = ground_truth.read(METAS, where="here")
    assert told.names == ["bright", "side=left", "window", "yaw"]
    assert [a.binary for a in told.attributes] == [True, True, True, False]
    assert told.column("window").tolist() == [1, 0, 0]
    assert told.column("side=left").tolist() == [1, 0, 0]
    assert np.isnan(told.column("yaw")).tolist() == [False, False, True]
    assert told.attributes[3].mean == 1.0
    assert told.objects == ("window",)


def test_pictures_of_which_nothing_is_said_are_refused() -> None:
    with pytest.raises(ExploreError, match="holds no attribute and no boxes"):
        ground_truth.read([{"name": "a", "label": 2}], where="set")


@pytest.mark.parametrize(
    "text",
    [
        "not json",
        "[1]",
        '{"x": {}}',
        '{"1": 5}',
        '{"1": {"boxes": {"window": [0, 0, 2, 1]}}}',
        '{"1": {"boxes": 3}}',
        '{"1": {"boxes": null}}',
        '{"1": {"boxes": {"window": "0011"}}}',
        '{"1": {"boxes": {"window": [0, 0, 1%s, 1]}}}' % ("0" * 400),
        '{"%s": {}}' % ("1" * 5000),
        "[" * 100_000,
    ],
)
def test_a_file_of_labels_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text(text)
    with pytest.raises(ExploreError, match="is not a file of labels"):
        ground_truth.read_labels(str(tmp_path / "labels.json"))


@pytest.mark.parametrize(
    ("meta", "told"),
    [
        ({"boxes": [{"bbox": [1, 2, 3, 4], "category_id": 7}]}, '"boxes" is [{'),
        ({"boxes": 3}, '"boxes" is 3, not {"name"'),
        ({"boxes": None}, '"boxes" is None'),
        ({"boxes": {"cat": [1, 2, 3]}}, "box 'cat' is [1, 2, 3], not [left"),
        ({"boxes": {"cat": 5}}, "box 'cat' is 5"),
        ({"boxes": {"cat": ["a", 0, 1, 1]}}, "'cat' has 'a', not a number"),
        ({"boxes": {"cat": [0, 0, 640, 480]}}, "box 'cat' is [0, 0, 640, 480], not in fractions"),
        ({"yaw": 10**400}, "'yaw' has 1000"),
        ({"yaw": 10**5000}, "'yaw' has a number of thousands of digits"),
        ({"yaw": float("inf")}, "'yaw' has inf"),
    ],
)
def test_a_json_of_another_form_is_one_line(meta: dict[str, object], told: str) -> None:
    with pytest.raises(ExploreError) as error:
        ground_truth.read([{"yaw": 1.0}, meta], where="set")
    assert f"set: the json of a picture: {told}" in str(error.value)
    assert len(str(error.value)) < 200
    assert "\n" not in str(error.value)


def test_labels_are_read_by_number(tmp_path: Path) -> None:
    said = {"3": {"glasses": 1}, "7": {"boxes": {"window": [0.1, 0.1, 0.4, 0.5]}}}
    (tmp_path / "labels.json").write_text(json.dumps(said))
    assert ground_truth.read_labels(str(tmp_path / "labels.json")) == {3: said["3"], 7: said["7"]}


def test_a_mask_becomes_the_box_around_it() -> None:
    mask = np.zeros((8, 8), np.bool_)
    assert box_of(mask) is None
    mask[2:4, 5] = mask[3, 6] = True
    assert box_of(mask) == [5 / 8, 2 / 8, 7 / 8, 4 / 8]


def test_a_share_has_wilsons_interval() -> None:
    found = share("x", 9, 10)
    assert (found.value, found.low, found.high) == pytest.approx((0.9, 0.5958, 0.9821), abs=1e-3)
