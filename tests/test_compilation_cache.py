"""The compilation cache is on where it can be, and never in the way."""

import os
import pathlib

import jax
import platformdirs
import pytest

from yolov1_jax.training.compilation_cache import use_compilation_cache

NAMES = (
    "jax_compilation_cache_dir",
    "jax_compilation_cache_max_size",
    "jax_persistent_cache_min_compile_time_secs",
)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The user's cache folder, in a process where nothing is set; nothing is compiled here."""
    before = {name: getattr(jax.config, name) for name in NAMES}
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda *_, **__: tmp_path / "cache")
    jax.config.update("jax_compilation_cache_dir", None)
    yield tmp_path
    for name, value in before.items():
        jax.config.update(name, value)


def test_it_is_in_the_users_cache_folder_and_limited(home):
    use_compilation_cache()
    assert jax.config.jax_compilation_cache_dir == str(home / "cache" / "compiled")
    assert jax.config.jax_compilation_cache_max_size == 2**30


def test_what_the_user_has_set_stays(home):
    jax.config.update("jax_compilation_cache_dir", "/elsewhere")
    use_compilation_cache()
    assert jax.config.jax_compilation_cache_dir == "/elsewhere"


def no_home(*_, **__):
    raise RuntimeError("could not determine the home directory")


@pytest.mark.parametrize("cache_path", [no_home, lambda *_, **__: pathlib.Path(os.devnull)])
def test_without_a_folder_it_stays_off(home, monkeypatch, cache_path):
    monkeypatch.setattr(platformdirs, "user_cache_path", cache_path)
    use_compilation_cache()
    assert jax.config.jax_compilation_cache_dir is None
