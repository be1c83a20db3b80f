"""A batch on its way to four fake devices. test_step.py shows that the loss is that of one."""

import jax
import numpy as np

from yolov1_jax.training.sharding import batch_sharding, data_mesh, shard_batch


def test_each_device_gets_its_rows():
    devices = data_mesh().devices
    assert set(devices.flat) == set(jax.devices())
    assert len(jax.devices()) == 4
    batch = {
        "image": np.arange(8 * 2 * 2 * 3, dtype=np.uint8).reshape(8, 2, 2, 3),
        "valid": np.arange(16).reshape(8, 2) % 3 == 0,
    }
    sharded = shard_batch(batch, batch_sharding(data_mesh()))
    assert sharded.keys() == batch.keys()
    for name, array in sharded.items():
        assert array.dtype == batch[name].dtype
        for position, shard in enumerate(array.addressable_shards):
            assert shard.device == devices[position]
            np.testing.assert_array_equal(shard.data, batch[name][2 * position : 2 * position + 2])
