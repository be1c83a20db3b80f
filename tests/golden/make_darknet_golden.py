"""Writes what Darknet's C program computes: darknet_golden.npz.

    git clone https://github.com/pjreddie/darknet && git -C darknet checkout f6afaab
    python tests/golden/make_darknet_golden.py darknet

needs gcc. The networks, images and objects are those of darknet_cases.py. The file holds

    resized          float32 [3, 16, 16], an image of a height whose last row is almost black
    NAME_output      the output for that image (of the network's size)
    NAME_test        detections of `yolo test`: class, score, x, y, w, h relative to the image
    NAME_valid       lines of the results files of `yolo valid`, each after the name of its file
    LOSS_delta       `delta` of [detection] alone, for each of LOSSES
    trained          the .weights file of "paper" after five updates, as bytes
"""

import os
import pathlib
import sys
import tempfile

import numpy as np
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from golden import darknet_cases as cases
from golden.darknet_program import Network, compile_darknet, detections, read_resized, results

FOLDER = pathlib.Path(__file__).resolve().parent


def main(source: pathlib.Path, folder: pathlib.Path) -> None:
    darknet = compile_darknet(source, folder / "darknet.so")
    os.chdir(folder)
    Image.fromarray(cases.image(*cases.IMAGE_SIZE)).save("scene.png")
    golden = {"resized": read_resized(darknet, "scene.png", 16, 16)}
    assert golden["resized"][:, -1].max() < 1e-4, "the last row is not almost black"
    for name, cfg in cases.CFGS.items():
        paths = f"{name}.cfg", f"{name}.weights"
        pathlib.Path(paths[0]).write_text(cfg)
        pathlib.Path(paths[1]).write_bytes(cases.weights_file(name))
        network = Network(darknet, *paths)
        network.save("copy.weights")
        assert pathlib.Path("copy.weights").read_bytes() == cases.weights_file(name)
        side = 32 if name == "released" else 16
        pixels = read_resized(darknet, "scene.png", side, side)
        golden[f"{name}_output"] = network.output(pixels, cases.NUM_OUTPUTS[name])
        golden[f"{name}_test"] = detections(darknet, *paths, "scene.png")
        golden[f"{name}_valid"] = np.array(results(darknet, *paths, ["scene.png"] * 8))
    for name in cases.LOSSES:
        pathlib.Path("loss.cfg").write_text(cases.loss_cfg(name))
        detection = Network(darknet, "loss.cfg")
        golden[f"{name}_delta"] = detection.delta(cases.loss_inputs(), cases.truth(2, 3))
    network = Network(darknet, "paper.cfg", "paper.weights", clear=True)
    images = cases.train_images().transpose(0, 3, 1, 2) / np.float32(255)
    for i in range(2 * cases.NUM_UPDATES):  # subdivisions=2
        half = slice(0, 2) if i % 2 == 0 else slice(2, 4)
        network.train(np.ascontiguousarray(images[half]), cases.truth(2, 3)[half])
    network.save("trained.weights")
    golden["trained"] = np.fromfile("trained.weights", np.uint8)
    np.savez_compressed(FOLDER / "darknet_golden.npz", **golden)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(folder))
