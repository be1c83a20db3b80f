"""FILE.tflite: JAX's StableHLO through LiteRT's converter, which needs no TensorFlow."""

import json
import pathlib
import zipfile

import jax
from litert_converter import converter_api_ext as litert
from litert_converter.mlir import ir, passmanager

from yolov1_jax.exporting.network import Network


def write(path: pathlib.Path, network: Network) -> None:
    """Writes the network, and behind it a zip archive of metadata.json, as TFLite metadata are.

    The batch size is fixed. LiteRT has no sort, which NMS needs, and its converter stores float16
    as float32.
    """
    lowered = jax.jit(network.of_images).lower(network.images())
    names = sorted(lowered.out_info)  # the order in which JAX returns a dict
    with ir.Context() as context:
        litert.prepare_mlir_context(context)
        module = ir.Module.parse(lowered.as_text())
        litert.set_signature(module.operation, "serving_default", ["images"], names)
        passes = passmanager.PassManager()
        litert.run_convert_to_tfl_passes(module, passes, litert.ConvertToTFLConfig())
        path.write_bytes(litert.export_flatbuffer_to_bytes(module.operation))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("metadata.json", json.dumps(network.metadata))
