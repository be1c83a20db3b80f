"""A run folder with checkpoints of a narrow network with random weights; nothing is trained."""

import jax
import numpy as np

from yolov1_jax import config as configs
from yolov1_jax.data.synthetic import SyntheticSource
from yolov1_jax.training import build, run_folder
from yolov1_jax.training.checkpoint import Checkpoints


def tiny_config(**changes):
    """A network of 4 to 64 channels on 64 pixels and a 2 x 2 grid; `changes`: data__root=..."""
    changes = {
        "image_size": 64,
        "data__eval": ("eval:6",),
        "model__grid_size": 2,
        "model__width_multiplier": 0.0625,
        "model__head_channels": 1024,
        "model__class_names": SyntheticSource.class_names,
        # The reference's loss and predictions.
        "model__prediction": "raw",
        "loss__box": "squared_roots",
        "loss__confidence": "squared",
        "loss__class_loss": "squared",
        "loss__class_target": "all",
        "train__keep_checkpoints": 5,
        "eval__batch_size": 4,
        **changes,
    }
    config = configs.shipped_config("quickstart")
    for key, value in changes.items():
        config = configs.replace(config, key.replace("__", "."), value)
    return config


def random_state(config, seed):
    """A train state of random numbers, which no compiler was needed for."""
    rng = np.random.default_rng(seed)

    def fill(leaf):
        if leaf.ndim > 1:  # a kernel, of a size that keeps activations near 1 (He et al. 2015)
            values = rng.normal(0, np.sqrt(2 / np.prod(leaf.shape[:-1])), leaf.shape)
        else:  # variances among them, which are positive
            values = rng.uniform(0.5, 1.5, leaf.shape)
        return jax.numpy.asarray(values.astype(leaf.dtype))

    return jax.tree.map(fill, build.Setup(config).abstract_state())


def save_run(workdir, scores, config=None, variables=None):
    """Saves a checkpoint for every {step: score or None}.

    The weights are a function of the step, unless there are `variables`.
    """
    config = config or tiny_config()
    run_folder.write_config(workdir, config)
    with Checkpoints(run_folder.checkpoints_dir(workdir), keep=5) as checkpoints:
        for step, score in scores.items():
            state = random_state(config, step)
            if variables is not None:
                state = state._replace(**jax.tree.map(jax.numpy.asarray, variables))
            checkpoints.save(step, state, {}, score=score)
        checkpoints.wait()
    return workdir
