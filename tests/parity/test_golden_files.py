"""The golden files that the plain test run relies on are what PyTorch computes now."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is absent: pip install -e '.[parity]'")

from golden import make_golden, make_pth_golden
from golden.differences import largest, worst
from golden.pth_values import expected

from yolov1_jax.weights.safetensors_file import read_weights


@pytest.mark.parametrize("name", make_golden.FILES)
def test_golden_file_is_reproduced(compare, name):
    committed = dict(np.load(make_golden.FOLDER / name))
    difference = worst(largest, make_golden.generate(name), committed)
    compare("golden file", name, "any array", difference, 1e-9)


def test_torch_files_written_now_are_read_as_the_committed_ones(compare, tmp_path):
    wanted = expected()
    for path in make_pth_golden.write(tmp_path):
        committed = read_weights(make_pth_golden.FOLDER / path.name).tensors
        written = read_weights(path).tensors
        assert written.keys() == committed.keys() == wanted.keys()
        different = sum(
            one[name].dtype != array.dtype or not np.array_equal(one[name], array)
            for one in (written, committed)
            for name, array in wanted.items()
        )
        compare("golden file", path.name, "arrays that differ", different, 0)
