"""A folder with everything that can be wrong with own data, through the real entry point."""

import numpy as np
from PIL import Image
from voc_tree import VocTree, annotation_xml, encode, exif, object_xml, pixels

# All that the table says of it, line by line.
COUNTS = {
    "images": ["9", "1"],
    "without objects": ["4", "0"],
    "skipped images": ["5", "0"],
    "objects": ["5", "1"],
    "difficult": ["0", "0"],
    "most in one image": ["1", "1"],
    "lost to cell collisions, 2x2": ["0", "0"],
    "as a share": ["0.0%", "0.0%"],
    "skipped objects": ["4", "0"],
}
REASONS = """
train 2 skipped image: image is cut short or broken
own/cut own/damaged
train 1 skipped image: image is empty
own/empty
train 1 skipped image: image is not JPEG, PNG, BMP or WebP
own/text
train 1 skipped image: neither image nor annotation found
own/nowhere
train 1 skipped object: box is empty or inverted
own/inverted object 1 (cat)
train 1 skipped object: box is missing or not a number
own/nan object 1 (cat)
train 1 skipped object: box is outside the image
own/outside object 1 (cat)
train 1 skipped object: class is not in class_names
own/unicorn object 1 (unicorn)
train 1 corrected: EXIF rotation applied, as in the annotation
own/upright
train 1 corrected: box clipped to the image
own/unicorn object 2 (cat)
"""


def test_bad_data_is_used_or_told_of(program, tmp_path):
    tree = VocTree(tmp_path / "data")
    photo, drawing = encode(pixels(), "JPEG"), encode(pixels())
    cmyk = encode(Image.fromarray(pixels()).convert("CMYK"), "JPEG")
    tree.add("cmyk", image=cmyk, extension=".jpg")
    turned = encode(pixels(), "JPEG", exif=exif(6))
    upright = annotation_xml(object_xml(), size=(60, 40))
    tree.add("upright", image=turned, xml=upright, extension=".jpg")
    tree.add("grey", image=encode(np.ascontiguousarray(pixels()[..., 0])))
    tree.add("empty")
    tree.write("own/JPEGImages/empty.png", b"")
    tree.add("cut", image=photo[:-50], extension=".jpg")
    data = drawing.index(b"IDAT") + 10
    tree.add("damaged", image=drawing[:data] + bytes(8) + drawing[data + 8 :])
    tree.add("text", image=b"no image at all")
    for name, box in (
        ("nan", (10, "NaN", 30, 30)),
        ("inverted", (30, 10, 10, 30)),
        ("outside", (100, 10, 130, 30)),
    ):
        tree.add(name, xml=annotation_xml(object_xml(box=box)))
    sticking_out = object_xml(box=(40, 10, 90, 30))
    tree.add("unicorn", xml=annotation_xml(object_xml("unicorn"), sticking_out))
    tree.add("scenery", xml=annotation_xml())
    tree.add("good")
    good = ["cmyk", "upright", "grey", "nan", "inverted", "outside", "unicorn", "scenery", "good"]
    tree.list("train", [*good, "empty", "cut", "damaged", "text", "nowhere"])
    tree.list("val", ["good"])

    ended = program.train(
        tmp_path / "run",
        {
            "data.source": "folder",
            "data.root": tree.root,
            "data.train": "own:train",
            "data.eval": "own:val",
            "data.images_per_epoch": 9,
            "data.unknown_classes": "skip",
            "data.augmentation.min_area": 0,
            "model.class_names": "cat,dog",
            "train.batch_size": 9,  # all of them
            "train.accumulation_steps": 1,
            "train.num_steps": 1,
        },
    )
    assert ended.code == 0, ended.err
    rows = {" ".join(line.split()[:-2]): line.split()[-2:] for line in ended.out.splitlines()}
    assert {title: rows.get(title) for title in COUNTS} == COUNTS, ended.out
    told = ended.out[ended.out.index("left out or corrected") :]
    assert " ".join(REASONS.split()) in " ".join(told.split()), ended.out
