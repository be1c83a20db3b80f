"""The golden files that the plain test run relies on are what PyTorch computes now."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is absent: pip install -e '.[parity]'")

from golden import make_pth_golden, make_resnet_golden, make_training_golden
from golden.differences import largest, worst
from golden.pth_values import expected

from yolov1_jax.weights.safetensors_file import read_weights


@pytest.mark.parametrize("script", [make_resnet_golden, make_training_golden])
def test_golden_file_is_reproduced(compare, script):
    committed = dict(np.load(script.FILE))
    computed = script.generate()
    assert computed.keys() == committed.keys()
    difference = worst(largest, computed, committed)
    compare("golden file", script.FILE.name, "any array", difference, 1e-9)


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
