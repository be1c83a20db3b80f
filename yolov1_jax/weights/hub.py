"""Fetches weights from the Hugging Face hub with its own client, an extra of the installation.

A name is hf://OWNER/MODEL[@REVISION][/FILE]; REVISION is a branch, tag or commit, by default main,
and FILE by default model.safetensors. The client keeps what it fetches in HF_HOME, by default
~/.cache/huggingface, and needs no network for what is there.
"""

import re

from yolov1_jax.config import UserError

PREFIX = "hf://"
_WITHOUT = "set config.model.pretrained to a file of weights, or to none for random weights"
_PART = r"[A-Za-z0-9][\w.-]*"
_NAME = re.compile(
    rf"{PREFIX}({_PART}/{_PART})(?:@([\w.-]+))?(?:/({_PART}(?:/{_PART})*))?", re.ASCII
)


def download(name: str) -> str:
    """The path of a file of the hub on this machine, fetched if it is not there yet.

    Raises:
      UserError: the name has another form, the client is not installed, or fetching fails.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise UserError(f"expected {PREFIX}OWNER/MODEL[@REVISION][/FILE], found {name!r}")
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise UserError(
            f"{name} needs the client of the hub: pip install 'yolov1_jax[hub]', or {_WITHOUT}"
        ) from error
    repository, revision, file = match.groups()
    try:
        return hf_hub_download(repository, file or "model.safetensors", revision=revision or "main")
    except Exception as error:  # the client and the network fail in many types
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(
            f"{name} cannot be fetched ({reason}): connect to the network, or {_WITHOUT}"
        ) from error
