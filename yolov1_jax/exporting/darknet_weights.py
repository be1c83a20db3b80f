"""FILE.weights of Darknet."""

import pathlib

from yolov1_jax.training.build import RestoredRun, detection_layer
from yolov1_jax.training.run_folder import replacing
from yolov1_jax.weights import darknet


def write(output: pathlib.Path, restored: RestoredRun, form: str) -> None:
    """Writes the header of the file that the run began with, if that is still there, and counts on.

    So a file that was only read comes back as it was.
    """
    config, header = restored.setup.config, darknet.Header()
    origin = config.model.pretrained
    if config.model.pretrained_format == form and origin and pathlib.Path(origin).is_file():
        header = darknet.read_header(origin)
    if restored.step > 0:
        header = darknet.Header(seen=header.seen + restored.step * config.train.batch_size)
    with replacing(output) as temporary:
        num_bytes = darknet.write_darknet(
            temporary,
            restored.variables,
            header,
            detection=detection_layer(config),
            backbone_only=form == "darknet_backbone",
        )
    print(f"{output}: {form}, {header}, {num_bytes:,} bytes")
