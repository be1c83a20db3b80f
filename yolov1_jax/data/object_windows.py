"""Images to classify: the objects of any source of detection, each in a window of its image."""

import numpy as np

from yolov1_jax.config import UserError
from yolov1_jax.data.dataset import Annotations, Record, Source


class WindowSource(Source):
    """A source of images to classify: each has one object, whose box is the window to show.

    No pixels are cut out here; the warp of `transforms` does that.
    """


class ObjectWindows(WindowSource):
    """The objects of a source, one after the other, each in the image that it is in.

    A window is the square around an object, as far as it lies within the image. Difficult objects
    are left out.
    """

    def __init__(self, source: Source, margin: float = 0.0) -> None:
        """`margin`: context on each side of the object, in its longer sides."""
        self._source, table = source, source.annotations()
        self.class_names = table.class_names
        used = np.flatnonzero(~table.difficult)
        if not len(used):
            raise UserError("expected objects to classify in the data, found none: see config.data")
        #: int64 [N]: the image of each object, as its place in the source
        self.images = table.image_index[used]
        sizes = table.sizes[self.images]
        boxes = table.boxes_xyxy[used]
        centres, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
        half = sides.max(axis=1, keepdims=True) * (0.5 + margin)  # [N, 1]
        windows = np.concatenate([centres - half, centres + half], axis=1)  # [N, 4]
        # "a/1" for the only object of an image, "a/1 object 2" for one of several.
        numbers = used - table.starts[self.images] + 1
        alone = np.diff(table.starts)[self.images] == 1
        names = (table.image_ids[image] for image in self.images)
        rows = zip(names, numbers, alone, strict=True)
        ids = (name if single else f"{name} object {number}" for name, number, single in rows)
        self._annotations = Annotations(
            class_names=table.class_names,
            image_ids=tuple(ids),
            sizes=sizes,
            starts=np.arange(len(used) + 1),
            boxes_xyxy=np.clip(windows, 0, np.tile(sizes[:, ::-1], 2)),
            labels=table.labels[used],
            difficult=np.zeros(len(used), bool),
            report=table.report,
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Record:
        """The whole image, decoded, with the window and the label of this one object."""
        image = self._source[int(self.images[index])].image
        return Record(image, self._annotations.image_ids[index], *self._annotations[index])

    def annotations(self, limit: int | None = None) -> Annotations:
        """The windows, of all objects or of the first `limit`."""
        return self._annotations.first(limit)
