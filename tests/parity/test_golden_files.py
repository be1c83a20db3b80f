"""The golden files that the plain test run relies on are what PyTorch computes now."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is absent: pip install -e '.[parity]'")

from golden import make_resnet_golden, make_training_golden
from golden.differences import largest, worst


@pytest.mark.parametrize("script", [make_resnet_golden, make_training_golden])
def test_golden_file_is_reproduced(compare, script):
    committed = dict(np.load(script.FILE))
    computed = script.generate()
    assert computed.keys() == committed.keys()
    difference = worst(largest, computed, committed)
    compare("golden file", script.FILE.name, "any array", difference, 1e-9)
