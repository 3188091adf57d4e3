"""A cache of training runs on disk, so that a notebook opened again starts at once."""

import dataclasses
import functools
import hashlib
import io
import os
import types
import warnings
from pathlib import Path

import joblib
import numpy as np
import torch
from torch import nn

from ood_helpers.files import write_whole
from ood_helpers.training import History, train

# a change in any of these makes old runs foreign
CODE = ("data.py", "images.py", "models.py", "losses.py", "horizon.py", "training.py", "cache.py", "files.py")


def cached_train(models, world, loss, ood=None, **settings):
    """`train` with the same arguments (but no callback) and the same result; a run made before is loaded from disk instead.

    world, loss and ood must be this package's (or functools.partial of them), since only their code is part of the key:
    ValueError otherwise. Files live in the folder named by the environment variable OOD_CACHE (default
    ~/.cache/ood_helpers), one per run, named by a hash of everything that matters: initial weights, architecture, world,
    loss, settings, torch's version and this package's code. They are written in one piece, so a crash leaves no half file, and
    read without unpickling code; one that is damaged (its checksum is wrong) or foreign is trained anew with a warning. Several
    notebooks may share the folder. Where nothing can be written, one warning says so and the course runs on.
    """
    networks = [models] if isinstance(models, nn.Module) else list(models)
    key = _key(networks, world, loss, ood, settings)
    path = _file(key)
    history = _load(path, key, networks)
    if history is None:
        history = train(models, world, loss, ood, **settings)
        _save(path, key, networks, history)
    return history


def _file(key):
    """Where the run with this key is kept; None if no folder is named and the user has no home."""
    try:
        return Path(os.environ.get("OOD_CACHE") or "~/.cache/ood_helpers").expanduser() / f"{key}.pt"
    except RuntimeError:
        return None


def _key(networks, world, loss, ood, settings):
    code = [(Path(__file__).parent / name).read_bytes() for name in CODE]
    states = [[value.detach().numpy() for value in model.state_dict().values()] for model in networks]
    inputs = [_describe(value) for value in (world, loss, ood, settings)]
    return joblib.hash([torch.__version__, code, [str(model) for model in networks], states, inputs])


def _describe(value):
    """A value as plain data that says all about it: names for this package's code, contents for everything else."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.Tensor):
        return value.detach().numpy()
    if isinstance(value, list | tuple):
        return [_describe(v) for v in value]
    if isinstance(value, dict):
        return {k: _describe(v) for k, v in value.items()}
    if isinstance(value, functools.partial):
        return ["partial", _describe(value.func), _describe(value.args), _describe(value.keywords)]
    if isinstance(value, types.MethodType):
        return [value.__func__.__qualname__, _describe(value.__self__)]
    if getattr(value, "__module__", "").startswith("ood_helpers."):
        if isinstance(value, types.FunctionType) and value.__qualname__.isidentifier():
            return f"{value.__module__}.{value.__qualname__}"
        if dataclasses.is_dataclass(value):
            return [type(value).__qualname__, _describe(vars(value))]
    raise ValueError(
        f"a cached run takes only this package's worlds and losses and plain numbers, not {value!r}; call train() instead"
    )


def _load(path, key, networks):
    """Fill the networks from the file and return the run's History; None if there is no file, or (with a warning) no good one."""
    if path is None:
        return None
    try:
        content = path.read_bytes()
    except OSError:  # there is none, or it may not be read
        return None
    try:
        saved = torch.load(io.BytesIO(_checked(content)), weights_only=True)
        if saved["key"] != key:
            raise ValueError("it belongs to another run")
        history = History(**saved["history"])
        if [_shapes(state) for state in saved["states"]] != [_shapes(model.state_dict()) for model in networks]:
            raise ValueError("its weights have other shapes")
        for model, state in zip(networks, saved["states"], strict=True):
            model.load_state_dict(state)
        return history
    except Exception as error:  # whatever is wrong with the file, the remedy is the same
        warnings.warn(f"cached training {path.name} cannot be used ({type(error).__name__}); training again", stacklevel=3)
        return None


def _shapes(state):
    return {name: value.shape for name, value in state.items()}


def _save(path, key, networks, history):
    if path is None:
        _say_once("the trained networks cannot be kept, there is no home folder; set OOD_CACHE to a folder. Going on without")
        return
    saved = {"key": key, "states": [model.state_dict() for model in networks], "history": vars(history)}
    buffer = io.BytesIO()
    torch.save(saved, buffer)
    try:
        write_whole(path, _sealed(buffer.getvalue()))
    except OSError as error:
        _say_once(f"the trained networks cannot be kept in {path.parent} ({error.strerror}); going on without")


def _sealed(content):
    """Bytes with their checksum in front: torch.load does not notice when a part of a file was never written."""
    return hashlib.sha256(content).digest() + content


def _checked(content):
    """The bytes that `_sealed` was given; ValueError if they are not whole."""
    checksum, content = content[:32], content[32:]
    if hashlib.sha256(content).digest() != checksum:
        raise ValueError("its checksum is wrong")
    return content


@functools.cache
def _say_once(message):
    """A warning at the caller of `cached_train`, the first time only: every cell of a notebook would repeat it."""
    warnings.warn(message, stacklevel=4)
