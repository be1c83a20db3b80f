"""The table of annotations and its fingerprint."""

import dataclasses

import numpy as np
from annotated_sets import images_of, truth

CAT, DOG = ((1, 2, 30, 40), 0, False), ((5, 6, 7, 8), 1, True)
TRUTHS = [truth(CAT, DOG), truth(), truth(DOG)]
TABLE = images_of("a/1", "a/2", "a/3", truths=TRUTHS)


def test_an_image_has_its_objects():
    assert len(TABLE) == 3
    for found, expected in zip(TABLE, TRUTHS, strict=True):
        np.testing.assert_equal(found, expected)
    np.testing.assert_equal(TABLE[-1], TRUTHS[2])
    assert TABLE.image_index.tolist() == [0, 0, 2]
    assert images_of("a/1").boxes_xyxy.shape == (0, 4)


def test_a_fingerprint_stays_what_it_was():
    # Stored with every evaluation: evaluations of the same data must be found to be comparable.
    two = images_of("a/1", "a/2", truths=[truth(CAT, DOG), truth(DOG)])
    expected = "8fa0bc4a390df27cc580844beb8f03eec96baa310c585917d11c5c2bbb41064c"
    assert two.fingerprint() == expected
    turned = images_of("a/2", "a/1", truths=[truth(DOG), truth(DOG, CAT)])
    assert turned.fingerprint() == expected
    # Below a hundredth of a pixel: other programs divide and multiply otherwise.
    assert dataclasses.replace(two, boxes_xyxy=two.boxes_xyxy + 1e-4).fingerprint() == expected
    for areas in ((30 * 39, 9, 9), (30 * 39 + 0.6, 9.05, 8.95)):  # of the boxes, or rounded ones
        assert with_areas(*areas).fingerprint() == TABLE.fingerprint()


def with_areas(*areas):
    """They decide what is small, medium and large to COCO."""
    return dataclasses.replace(TABLE, areas=np.array(areas, float))


def test_a_fingerprint_sees():
    ids, others = ("a/1", "a/2", "a/3"), [truth(), truth(DOG)]
    tables = {
        "nothing": TABLE,
        "image": images_of("a/1", "a/2", "a/4", truths=TRUTHS),
        "one more image": images_of(*ids, "a/4", truths=[*TRUTHS, truth()]),
        "class": images_of(*ids, truths=TRUTHS, class_names=("cat", "bird")),
        "one object less": images_of(*ids, truths=[truth(CAT), *others]),
        "difficult": images_of(*ids, truths=[truth(CAT, (*DOG[:2], False)), *others]),
        "box": images_of(*ids, truths=[truth(CAT, ((5, 6, 7, 8.1), 1, True)), *others]),
        "object of another image": images_of(*ids, truths=[truth(DOG), truth(), truth(CAT, DOG)]),
        "area": with_areas(700, 9, 9),
        "0.5 square pixels": with_areas(700.5, 9, 9),
        "area of another object": with_areas(30 * 39, 9, 7),
    }
    found = {name: table.fingerprint() for name, table in tables.items()}
    assert len(set(found.values())) == len(tables), found
