"""Files of weights on the Hugging Face hub, fetched by the hub's own client.

A name is hf://OWNER/MODEL[@REVISION][/FILE]; FILE is model.safetensors where none is given, and
REVISION, a branch, tag or commit, is "main". The client keeps what it has fetched (in HF_HOME, by
default ~/.cache/huggingface), and gives it again without the network.

It is asked for only by those who name a file of the hub, and is an extra of the installation.
"""

import logging
import re
from collections.abc import Callable

from yolov1_jax.errors import UserError

PREFIX = "hf://"
DEFAULT_FILE = "model.safetensors"
_PART = r"[A-Za-z0-9][\w.-]*"
_NAME = re.compile(rf"({_PART}/{_PART})(?:@([\w.-]+))?(?:/({_PART}(?:/{_PART})*))?", re.ASCII)


def is_hub_name(origin: str) -> bool:
    """Whether it names a file of the hub, well or badly, and no path."""
    return origin.startswith(PREFIX)


def parse(name: str) -> tuple[str, str, str]:
    """ "hf://timm/resnet18.tv_in1k" -> ("timm/resnet18.tv_in1k", "main", "model.safetensors").

    Raises:
      UserError: it is not of that form.
    """
    match = _NAME.fullmatch(name.removeprefix(PREFIX))
    if match is None:
        raise UserError(
            f"expected weights named {PREFIX}OWNER/MODEL[@REVISION][/FILE], found {name!r}: "
            f"such as {PREFIX}timm/resnet18.tv_in1k"
        )
    return match[1], match[2] or "main", match[3] or DEFAULT_FILE


def client(name: str) -> Callable[..., str]:
    """The hub's client, an extra of the installation: `huggingface_hub.hf_hub_download`.

    Raises:
      UserError: it is not installed, and the file `name` needs it.
    """
    try:
        from huggingface_hub import hf_hub_download  # which sets up its logger, too
    except ImportError as error:
        raise UserError(
            f"{name} needs the client of the hub, which is not installed: "
            "pip install 'yolov1_jax[hub]', or give the path of a file"
        ) from error
    return hf_hub_download


def download(name: str) -> str:
    """The path of a file of the hub on this machine, fetched if it is not there yet.

    Raises:
      UserError: the name is malformed, the client is not installed, there is no such file, or the
        hub cannot be reached.
    """
    repository, revision, file = parse(name)
    fetch = client(name)
    logger = logging.getLogger("huggingface_hub")  # a line for each of its attempts
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        return fetch(repository, file, revision=revision)
    # The client has exceptions of its own, those of its HTTP library, and OSError.
    except Exception as error:
        reason = " ".join(str(error).split()).rstrip(".")[:200]
        raise UserError(
            f"{name} could not be fetched ({type(error).__name__}: {reason}): check the name and "
            "the network, or give the path of a file"
        ) from error
    finally:
        logger.setLevel(level)
