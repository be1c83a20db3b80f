import functools
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import fixed_numbers
from golden.differences import largest
from golden.jax_detector import fixed_variables, model_of, torch_names
from golden.resnet_cases import CASES

from yolov1_jax.errors import UserError
from yolov1_jax.models.yolov1 import YOLOv1, normalize

IMAGENET = {"pixel_mean": (0.485, 0.456, 0.406), "pixel_std": (0.229, 0.224, 0.225)}
GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "resnet_golden.npz")

tiny = functools.partial(
    YOLOv1, num_classes=3, backbone_name="resnet18", width_multiplier=0.125, head_channels=64
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_training_pass_equals_pytorch_in_float64(case):
    golden = {key: GOLDEN[f"{case.name}/{key}"] for key in ("train", "running")}
    norms, along = (GOLDEN[f"{case.name}/{key}"] for key in ("gradient_norms", "gradients_along"))
    with jax.enable_x64(True):
        model = model_of(case, jnp.float64)
        images = fixed_numbers.images(case.name, case.image_shape)
        variables = fixed_variables(model, images)
        direction = fixed_numbers.uniform("output direction", golden["train"].shape)

        @jax.jit
        def gradients_and_output(params, batch_stats):
            def objective(params):
                raw, updated = model.apply(
                    {"params": params, "batch_stats": batch_stats},
                    images,
                    train=True,
                    mutable=["batch_stats"],
                )
                return jnp.sum(raw * direction), (raw, updated["batch_stats"])

            return jax.grad(objective, has_aux=True)(params)

        gradients, (raw, batch_stats) = gradients_and_output(**variables)
        assert raw.dtype == jnp.float64
        assert largest(raw, golden["train"]) < 1e-9
        running = np.concatenate(list(torch_names(batch_stats).values()))
        np.testing.assert_allclose(running, golden["running"], rtol=1e-9, atol=1e-9)
        for i, (name, gradient) in enumerate(torch_names(gradients).items()):
            weights = fixed_numbers.uniform("gradient " + name, gradient.shape)
            assert np.linalg.norm(gradient) == pytest.approx(norms[i], rel=1e-9), name
            assert np.sum(gradient * weights) == pytest.approx(along[i], abs=1e-9 * norms[i]), name


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
    exact, coarse = (tiny(grid_size=2, dtype=dtype) for dtype in (jnp.float32, jnp.bfloat16))
    variables = fixed_variables(coarse, images)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float32")}

    @functools.partial(jax.jit, static_argnums=0)
    def apply(model, variables):
        return model.apply(variables, images, train=False)

    raw, expected = np.asarray(apply(coarse, variables)), np.asarray(apply(exact, variables))
    assert raw.dtype == np.float32
    assert 1e-4 < largest(raw, expected) < 0.05
    # The outputs themselves are not rounded to the 8 bits of bfloat16.
    assert np.any(raw != raw.astype(jnp.bfloat16).astype(np.float32))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_only_training_updates_the_batch_statistics(dtype):
    images = fixed_numbers.images("statistics", (2, 32, 32, 3))
    model = tiny(grid_size=1, dtype=dtype)
    before = fixed_variables(model, images)

    @functools.partial(jax.jit, static_argnums=1)
    def updated(variables, train):
        return model.apply(variables, images, train=train, mutable=["batch_stats"])[1]

    after = updated(before, False)["batch_stats"]
    jax.tree.map(np.testing.assert_array_equal, after, before["batch_stats"])
    for leaf, old in zip(
        jax.tree.leaves(updated(before, True)), jax.tree.leaves(before["batch_stats"]), strict=True
    ):
        assert leaf.dtype == jnp.float32
        assert np.all(np.asarray(leaf) != old)


@pytest.mark.parametrize(("size", "grid", "boxes"), [(448, 7, 2), (448, 14, 3), (224, 7, 1)])
def test_output_shape(size, grid, boxes):
    model = YOLOv1(num_classes=20, backbone_name="resnet50", grid_size=grid, boxes_per_cell=boxes)
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.uint8)
    raw, _ = jax.eval_shape(
        lambda x: model.init_with_output(jax.random.key(0), x, train=False), images
    )
    assert raw.shape == (2, grid, grid, boxes * 5 + 20)
    assert raw.dtype == jnp.float32


def test_width_multiplier_scales_backbone_and_head():
    model = YOLOv1(num_classes=20, head_neck_channels=256, width_multiplier=0.25)
    images = jnp.zeros((1, 448, 448, 3), jnp.uint8)
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), images, False))["params"]
    assert params["backbone"]["conv1"]["kernel"].shape == (7, 7, 3, 16)
    assert params["head"]["conv1"]["kernel"].shape == (3, 3, 128, 256)
    assert params["head"]["predict"]["kernel"].shape == (1, 1, 64, 30)


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
    values = normalize(images, **IMAGENET, dtype=jnp.bfloat16)
    assert values.dtype == jnp.float32
    for channel in np.moveaxis(np.asarray(values), -1, 0):
        assert len(np.unique(channel)) == 85


@pytest.mark.parametrize(
    ("fields", "shape", "message"),
    [
        ({"backbone_name": "resnet19"}, (1, 64, 64, 3), "resnet18, resnet34, resnet50.*resnet19"),
        ({}, (1, 64, 96, 3), "square images, not 64 x 96"),
        ({"grid_size": 5}, (1, 64, 64, 3), "grid_size=5 is not possible with image_size=64"),
    ],
)
def test_mistakes_are_explained(fields, shape, message):
    with pytest.raises(UserError, match=re.compile(message)):
        jax.eval_shape(
            lambda: tiny(**fields).init(jax.random.key(0), jnp.zeros(shape, jnp.uint8), False)
        )
