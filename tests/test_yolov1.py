import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import fixed_numbers
from golden.differences import largest
from golden.jax_detector import fixed_variables, model_of, torch_names
from golden.resnet_cases import CASES

from yolov1_jax.models.yolov1 import YOLOv1, normalize

GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "resnet_golden.npz")


@pytest.mark.slow
def test_training_pass_equals_pytorch_in_float64():
    """ResNet-50 with torchlake's head; test_reference_training.py trains all with the plain."""
    case = CASES[2]
    golden = {key: GOLDEN[f"{case.name}/{key}"] for key in ("train", "running")}
    norms, along = (GOLDEN[f"{case.name}/{key}"] for key in ("gradient_norms", "gradients_along"))
    with jax.enable_x64(True):
        model = model_of(case, jnp.float64)
        images = fixed_numbers.images(case.name, case.image_shape)
        direction = fixed_numbers.uniform("output direction", golden["train"].shape)

        @jax.jit
        @functools.partial(jax.grad, has_aux=True)
        def gradients_and_output(params, batch_stats):
            variables = {"params": params, "batch_stats": batch_stats}
            raw, updated = model.apply(variables, images, train=True, mutable=["batch_stats"])
            return jnp.sum(raw * direction), (raw, updated["batch_stats"])

        variables = fixed_variables(model, images)
        found = gradients_and_output(variables["params"], variables["batch_stats"])
    gradients, (raw, batch_stats) = found
    assert raw.dtype == jnp.float64
    assert largest(raw, golden["train"]) < 1e-9
    running = np.concatenate(list(torch_names(batch_stats).values()))
    np.testing.assert_allclose(running, golden["running"], rtol=1e-9, atol=1e-9)
    found_norms, found_along = fixed_numbers.fingerprint("gradient ", torch_names(gradients))
    np.testing.assert_allclose(found_norms, norms, rtol=1e-9)
    np.testing.assert_array_less(np.abs(found_along - along), 1e-9 * norms)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_evaluation_pass_equals_pytorch_in_float32(case):
    model = model_of(case, jnp.float32)
    images = fixed_numbers.images(case.name, case.image_shape)
    variables = fixed_variables(model, images)
    raw = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, images)
    assert raw.dtype == jnp.float32
    assert largest(raw, GOLDEN[f"{case.name}/eval"]) < 1e-5


def test_bfloat16_computes_coarsely_with_float32_parameters_and_output():
    images = fixed_numbers.images("bfloat16", (2, 64, 64, 3))
    narrow = functools.partial(
        YOLOv1, num_classes=3, backbone_name="resnet18", width_multiplier=0.125, head_channels=64
    )
    exact, coarse = (narrow(grid_size=2, dtype=dtype) for dtype in (jnp.float32, jnp.bfloat16))
    variables = fixed_variables(coarse, images)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float32")}
    apply = jax.jit(lambda v: [model.apply(v, images, train=False) for model in (coarse, exact)])
    raw, expected = map(np.asarray, apply(variables))
    assert raw.dtype == np.float32
    assert 1e-4 < largest(raw, expected) < 0.05
    # The outputs themselves are not rounded to the 8 bits of bfloat16.
    assert np.any(raw != raw.astype(jnp.bfloat16).astype(np.float32))


def shapes(size, **options):
    """Shapes of the parameters, and of the output for two images of this size."""
    model = YOLOv1(**{"num_classes": 20, "backbone_name": "resnet50", **options})
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.uint8)
    raw, variables = jax.eval_shape(
        lambda x: model.init_with_output(jax.random.key(0), x, train=False), images
    )
    return variables["params"], raw.shape


@pytest.mark.parametrize(("size", "grid", "boxes"), [(448, 7, 2), (448, 14, 3), (224, 7, 1)])
def test_output_shape(size, grid, boxes):
    _, raw = shapes(size, grid_size=grid, boxes_per_cell=boxes)
    assert raw == (2, grid, grid, boxes * 5 + 20)


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50", "darknet", "fast"])
@pytest.mark.parametrize("head", ["convolutional", "connected", "local"])
@pytest.mark.parametrize("norm", ["torch", "none"])
def test_every_head_on_every_backbone(backbone, head, norm):
    params, raw = shapes(
        448,
        backbone_name=backbone,
        head=head,
        head_neck_channels=256,
        head_hidden=64,
        norm=norm,
        boxes_per_cell=3,
        width_multiplier=0.1,
    )
    assert raw == (2, 7, 7, 35)
    assert ("hidden" in params["head"]) == (head != "convolutional")
    assert params["head"]["neck"]["kernel"].ndim == (6 if head == "local" else 4)
    assert ("bn1" in params["head"]) == (norm != "none")


def test_width_multiplier_scales_every_layer():
    full, half = (
        jax.tree.leaves(shapes(448, head_neck_channels=256, width_multiplier=width)[0])
        for width in (1.0, 0.5)
    )
    for leaf, narrow in zip(full, half, strict=True):
        # All but the kernels' sides, the three colours and the 30 numbers of a cell.
        factors = [1 if side in (1, 3, 7, 30) else 2 for side in leaf.shape]
        assert leaf.shape == tuple(f * n for f, n in zip(factors, narrow.shape, strict=True))


def test_normalize_by_hand():
    images = jnp.array([[0, 255, 51]], jnp.uint8).reshape(1, 1, 1, 3)
    plain = normalize(images, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    np.testing.assert_allclose(plain.ravel(), [0, 1, 0.2], rtol=1e-6)
    scaled = normalize(images, (0.5, 0.5, 0.1), (0.25, 0.5, 0.1))
    np.testing.assert_allclose(scaled.ravel(), [-2, 1, 1], rtol=1e-6)
    floating = normalize(images.astype(jnp.float32), (0.5, 0.5, 0.1), (0.25, 0.5, 0.1))
    np.testing.assert_array_equal(floating, scaled)


def test_normalize_tells_all_pixel_values_apart_whatever_the_parameters_type():
    images = jnp.arange(255, dtype=jnp.uint8).reshape(1, 5, 17, 3)
    values = normalize(images, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), dtype=jnp.bfloat16)
    assert values.dtype == jnp.float32
    for channel in np.moveaxis(np.asarray(values), -1, 0):
        assert len(np.unique(channel)) == 85
