"""Images with a label from tensorflow_datasets, prepared here without TensorFlow."""

import pathlib

import numpy as np
import pytest
import tensorflow_datasets as tfds
from voc_tree import encode

from yolov1_jax.config import UserError
from yolov1_jax.data.tfds_source import LabelledImages


class TwoGreys(tfds.core.GeneratorBasedBuilder):
    """Image i of a split is of the level 10 i, and has the label i % 2."""

    pkg_dir_path = pathlib.Path(__file__).parent  # of files that it does not have
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        label = tfds.features.ClassLabel(names=["even", "odd"])
        image = tfds.features.Image(encoding_format="png")
        features = tfds.features.FeaturesDict({"image": image, "label": label})
        return self.dataset_info_from_configs(features=features)

    def _split_generators(self, _):
        return {"train": self._generate_examples(6), "test": self._generate_examples(3)}

    def _generate_examples(self, count):
        for i in range(count):
            image = np.full((20, 30 + i, 3), 10 * i, np.uint8)
            yield i, {"image": encode(image), "label": i % 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tfds")


def test_images_and_labels_of_several_splits(folder):
    source = LabelledImages(["two_greys:train[:4]", "two_greys:test"], folder)
    assert (len(source), source.class_names) == (7, ("even", "odd"))
    records = [source[i] for i in range(7)]
    for record in records:
        level = int(record.image[0, 0, 0])
        assert record.labels.tolist() == [level // 10 % 2]
        assert record.boxes_xyxy.tolist() == [[0, 0, 30 + level // 10, 20]]
    table = source.annotations()
    assert table.image_ids == tuple(record.image_id for record in records)
    assert table.labels.tolist() == [record.labels[0] for record in records]
    assert len(source.annotations(limit=2)) == 2


@pytest.mark.parametrize("split", ["no_such_data:train", "two_greys:nothing"])
def test_what_cannot_be_opened(folder, split):
    with pytest.raises(UserError, match=f"^cannot open {split}"):
        LabelledImages([split], folder)
    with pytest.raises(UserError, match="classes of the training data"):
        LabelledImages(["two_greys:test"], folder, class_names=("cat", "dog"))
