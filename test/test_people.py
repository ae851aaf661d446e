"""The border type: shapes are checked, rows chosen, nobody is normal."""

import numpy as np
import pytest

from ros2_pose.people import Frame, People, PeopleError


def test_nobody_has_no_rows():
    nobody = People.nobody()
    assert len(nobody) == 0 and nobody.joints is None and nobody.keypoints.shape == (0, 17, 2)


def test_rows_are_chosen_in_every_field(some_people):
    chosen = some_people[np.array([False, True, True])]
    assert chosen.ids == ("p2", "p3")
    assert np.array_equal(chosen.root, some_people.root[1:])
    assert chosen[[1, 0]].ids == ("p3", "p2")
    assert len(some_people[:0]) == 0


def test_fields_that_do_not_fit_are_refused(some_people):
    with pytest.raises(PeopleError, match=r"joints is \(3, 17, 3\), expected \(3, 24, 3\)"):
        some_people.with_fields(joints=np.zeros((3, 17, 3)))
    with pytest.raises(PeopleError, match="2 ids for 3 people"):
        some_people.with_fields(ids=("a", "b"))


def test_a_frame_may_have_depth():
    image, depth = np.zeros((4, 6, 3), np.uint8), np.full((4, 6), np.nan, np.float32)
    assert Frame(image).depth is None
    assert Frame(image, depth=depth).depth is depth
