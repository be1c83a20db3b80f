"""Box formats and IoU against hand-worked cases, on NumPy and JAX arrays alike."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolov1_jax.yolo import boxes

both_backends = pytest.mark.parametrize("xp", [np, jnp], ids=["numpy", "jax"])

# name: (a, b, IoU) as xyxy; each can be checked on squared paper.
IOU_CASES = {
    "identical": ([1, 2, 4, 6], [1, 2, 4, 6], 1.0),
    "shifted by half its width": ([0, 0, 2, 2], [1, 0, 3, 2], 1 / 3),
    "shifted by half along both axes": ([0, 0, 2, 2], [1, 1, 3, 3], 1 / 7),
    "inside": ([0, 0, 4, 4], [1, 1, 3, 3], 1 / 4),
    "a cross": ([0, 1, 3, 2], [1, 0, 2, 3], 1 / 5),
    "a shared edge": ([0, 0, 2, 2], [2, 0, 4, 2], 0.0),
    "side by side, same rows": ([0, 0, 2, 2], [3, 0, 5, 2], 0.0),
    # A product of two negative overlaps must not pass for an intersection.
    "apart along both axes": ([0, 0, 2, 2], [5, 5, 7, 7], 0.0),
    "negative coordinates": ([-3, -3, -1, -1], [-2, -3, 0, -1], 1 / 3),
    "empty in a box": ([1, 1, 1, 1], [0, 0, 2, 2], 0.0),
    "twice the same empty box": ([1, 1, 1, 1], [1, 1, 1, 1], 0.0),
    "a line in a box": ([0, 1, 2, 1], [0, 0, 2, 2], 0.0),
    "negative width": ([2, 0, 0, 2], [0, 0, 2, 2], 0.0),
    # Width and height both negative: a positive area, and still no overlap.
    "negative width and height": ([2, 2, 0, 0], [0, 0, 2, 2], 0.0),
}


@both_backends
def test_formats_of_a_hand_worked_box(xp):
    # Left 0.25, top 0.5, right 0.75, bottom 0.625.
    xyxy = xp.asarray([[0.25, 0.5, 0.75, 0.625]], dtype="float32")
    cxcywh = xp.asarray([[0.5, 0.5625, 0.5, 0.125]], dtype="float32")
    np.testing.assert_array_equal(boxes.xyxy_to_cxcywh(xyxy), cxcywh)
    np.testing.assert_array_equal(boxes.cxcywh_to_xyxy(cxcywh), xyxy)


@pytest.mark.parametrize("shape", [(4,), (0, 4), (2, 3, 5, 4)])
@pytest.mark.parametrize(("xp", "dtype"), [(np, "float32"), (np, "float64"), (jnp, "float32")])
def test_formats_are_inverse_and_keep_shape_and_type(xp, dtype, shape):
    array = xp.asarray(np.random.default_rng(0).normal(size=shape), dtype=dtype)
    there, back = boxes.xyxy_to_cxcywh, boxes.cxcywh_to_xyxy
    for first, second in ((there, back), (back, there)):
        result = first(array)
        assert isinstance(result, np.ndarray if xp is np else jax.Array)
        assert (result.shape, result.dtype) == (shape, dtype)
        np.testing.assert_allclose(second(result), array, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("xp", "dtype"), [(np, "float32"), (np, "float64"), (jnp, "float32")])
def test_iou_of_hand_worked_boxes(xp, dtype):
    a, b, expected = map(np.array, zip(*IOU_CASES.values(), strict=True))  # [N, 4], [N, 4], [N]
    a, b = xp.asarray(a, dtype=dtype), xp.asarray(b, dtype=dtype)
    for iou in (boxes.iou_xyxy(a, b), boxes.iou_xyxy(b, a)):
        assert iou.dtype == dtype
        np.testing.assert_allclose(iou, expected, rtol=1e-6, err_msg=str([*IOU_CASES]))


coordinate = st.integers(-64, 64)
any_box = st.tuples(coordinate, coordinate, coordinate, coordinate).map(
    lambda box: np.array(box, np.float64) / 16
)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(any_box, any_box, st.sampled_from([0.25, 2.0, 8.0]), coordinate)
def test_iou_is_symmetric_bounded_and_free_of_units(a, b, unit, shift):
    iou = boxes.iou_xyxy(a, b)
    assert 0 <= iou <= 1
    assert iou == boxes.iou_xyxy(b, a)
    # Powers of two and integers: exact, whatever the box.
    assert iou == boxes.iou_xyxy(a * unit + shift, b * unit + shift)
    assert (iou == 1) == (np.array_equal(a, b) and a[2] > a[0] and a[3] > a[1])


def test_gradient_of_iou():
    gradient = jax.jit(jax.grad(boxes.iou_xyxy, argnums=(0, 1)))
    for name, (a, b, _) in IOU_CASES.items():
        assert np.isfinite(gradient(np.array(a, np.float32), np.array(b, np.float32))).all(), name
    # Unit squares, b moved right by s: IoU = (1 - s) / (1 + s), so the slope in s is -2 / (1+s)^2.
    of_a, of_b = gradient(*np.array([[0, 0, 1, 1], [0.5, 0, 1.5, 1]], np.float32))
    np.testing.assert_allclose(of_b[0] + of_b[2], -2 / 1.5**2, rtol=1e-6)
    np.testing.assert_allclose(of_a[0] + of_a[2], 2 / 1.5**2, rtol=1e-6)
