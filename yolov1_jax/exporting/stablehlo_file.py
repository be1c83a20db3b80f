"""FILE.stablehlo: the network as JAX serialises it, and its metadata, in a zip archive."""

import json
import pathlib
import zipfile

import jax

from yolov1_jax.exporting.network import Network


def write(path: pathlib.Path, network: Network) -> None:
    """Writes it for CPU, CUDA and TPU, see `detector.load_exported`."""
    export = jax.export.export(jax.jit(network.of_images), platforms=("cpu", "cuda", "tpu"))
    exported = export(network.images())
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps(network.metadata))
        archive.writestr("network.bin", bytes(exported.serialize()))
