"""Results side by side, and why two protocols disagree: what `yolov1_jax.compare` prints."""
