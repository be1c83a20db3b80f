"""The mesh, the two shardings, and a batch on its way to the devices. Four fake devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolov1_jax.errors import UserError
from yolov1_jax.training.sharding import (
    batch_sharding,
    check_batch_size,
    data_mesh,
    replicated_sharding,
    shard_batch,
)


def test_the_mesh_has_every_device():
    mesh = data_mesh()
    assert mesh.axis_names == ("data",)
    assert set(mesh.devices.flat) == set(jax.devices())
    assert jax.device_count() == 4  # else the rest of this file shows little


def test_each_device_gets_its_rows():
    batch = {
        "image": np.arange(8 * 2 * 2 * 3, dtype=np.uint8).reshape(8, 2, 2, 3),
        "valid": np.arange(16).reshape(8, 2) % 3 == 0,
    }
    sharded = shard_batch(batch, batch_sharding(data_mesh()))
    assert sharded.keys() == batch.keys()
    for name, array in sharded.items():
        assert array.dtype == batch[name].dtype
        np.testing.assert_array_equal(array, batch[name])
        for position, shard in enumerate(array.addressable_shards):
            assert shard.device == data_mesh().devices[position]
            np.testing.assert_array_equal(shard.data, batch[name][2 * position : 2 * position + 2])


def test_replicated_means_whole_on_every_device():
    array = jax.device_put(jnp.arange(6.0), replicated_sharding(data_mesh()))
    assert len(array.addressable_shards) == 4
    for shard in array.addressable_shards:
        np.testing.assert_array_equal(shard.data, np.arange(6.0))


def test_a_mean_is_that_of_the_global_batch():
    mesh = data_mesh()
    mean = jax.jit(
        lambda batch: batch.mean(axis=0),
        in_shardings=batch_sharding(mesh),
        out_shardings=replicated_sharding(mesh),
    )
    array = np.arange(24.0, dtype=np.float32).reshape(8, 3)
    sharded = shard_batch({"a": array}, batch_sharding(mesh))["a"]
    for shard in mean(sharded).addressable_shards:
        np.testing.assert_array_equal(shard.data, [10.5, 11.5, 12.5])


@pytest.mark.parametrize("batch_size", [4, 32])
def test_an_even_batch_passes(batch_size):
    check_batch_size(batch_size, "config.train.batch_size")


@pytest.mark.parametrize("batch_size", [1, 6, 31])
def test_an_uneven_batch_is_refused(batch_size):
    with pytest.raises(UserError) as caught:
        check_batch_size(batch_size, "config.eval.batch_size")
    assert str(caught.value) == (
        f"config.eval.batch_size={batch_size} cannot be split evenly over 4 devices: "
        "choose a multiple of 4"
    )
