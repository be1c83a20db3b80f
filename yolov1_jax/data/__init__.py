"""Images and their objects: sources, augmentation, batches."""

import os

# Read when OpenCV is imported. The loader decodes and warps images on the cores that XLA computes
# on; oversubscribing them with one thread pool per library costs more than it gives.
os.environ.setdefault("OPENCV_FOR_THREADS_NUM", "1")
