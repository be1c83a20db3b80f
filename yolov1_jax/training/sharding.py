"""The devices and the two shardings of data parallel training.

The batch is split over all devices of all processes along its first axis; everything else is
replicated. Under jit a mean over the batch, BatchNorm's included, is the mean of the global batch.
"""

import os
from collections.abc import Mapping

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from yolov1_jax.config import UserError


def start_devices() -> str:
    """Starts JAX's devices and says how many of what: "2 x NVIDIA H100"; UserError for none."""
    try:
        devices = jax.devices()
    except Exception as error:  # of many types, by backend
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            "expected a device for JAX, found none with "
            f"JAX_PLATFORMS={os.environ.get('JAX_PLATFORMS', '')!r} ({reason}): unset that "
            "variable, or install the extra cuda12, cuda13 or tpu"
        ) from error
    cores = f", {os.cpu_count()} cores" if devices[0].platform == "cpu" else ""
    return f"{len(devices)} x {devices[0].device_kind}{cores}"


def shardings() -> tuple[NamedSharding, NamedSharding]:
    """The shardings of a batch, over every device of every process, and of everything else."""
    # Explicit axes, the default, refuse the gathers of the target grid.
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    return NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())


def check_batch_size(batch_size: int, name: str) -> None:
    """Raises UserError unless the batch size is a multiple of the number of devices."""
    if batch_size % jax.device_count():
        raise UserError(
            f"{name}={batch_size} cannot be split evenly over {jax.device_count()} devices: "
            f"choose a multiple of {jax.device_count()}"
        )


def agreed(value: bool) -> bool:
    """The value that process 0 has, in every process; all of them must call it."""
    if jax.process_count() == 1:
        return value
    return bool(multihost_utils.broadcast_one_to_all(value))


def shard_batch(batch: Mapping[str, np.ndarray], sharding: NamedSharding) -> dict[str, jax.Array]:
    """This process's rows of a batch -> global arrays, split over the devices."""
    return {
        name: jax.make_array_from_process_local_data(sharding, array)
        for name, array in batch.items()
    }
