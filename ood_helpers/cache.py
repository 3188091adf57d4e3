"""A cache of training runs on disk, so that a notebook opened again starts at once."""

import ast
import copy
import dataclasses
import functools
import hashlib
import importlib.util
import io
import itertools
import operator
import os
import sys
import types
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ood_helpers.arrays import whole
from ood_helpers.data import Sampler, World
from ood_helpers.files import write_whole
from ood_helpers.losses import Loss
from ood_helpers.models import check_plain, free_layers
from ood_helpers.training import History, train

_PACKAGE = Path(__file__).parent
_PLAIN = (type(None), bool, int, float, complex, str, bytes, range)  # what `repr` says all about


def cached_train(
    models: nn.Module | Sequence[nn.Module],
    world: World,
    loss: Loss,
    ood: Sampler | None = None,
    *,
    steps: int = 1500,
    batch: int = 64,
    lr: float = 1e-3,
    cosine: bool = False,
    seed: int | Sequence[int] | Tensor = 0,
    penalty: Callable | None = None,
    penalty_weight: float | Sequence[float] | Tensor = 1.0,
) -> History:
    """`train` with the same arguments (but no callback) and the same result; a run made before is loaded from disk instead.

    world, loss and ood must be this package's (or functools.partial of them), and activations torch's, since only their code
    is part of the key: ValueError otherwise. Files live in the folder named by the environment variable OOD_CACHE (default
    ~/.cache/ood_helpers), one per run, named by a hash of everything that matters: the networks' numbers, which of them are
    frozen, activations, world, loss, settings, the versions of torch and numpy, and the source of this package's modules that
    these name or that train, with all that they import (after an edit of the package restart the kernel). They are written in
    one piece, so a crash leaves no half file, and read without unpickling code; one that is damaged (its checksum is wrong) or
    foreign is trained anew with a warning. Several notebooks may share the folder. Where nothing can be written, one warning
    says so and the course runs on.
    """
    networks = [models] if isinstance(models, nn.Module) else list(models)
    check_plain({f"network {e}": model for e, model in enumerate(networks)})  # a tied one would be filled with another's weights
    settings: dict[str, Any] = {
        "steps": steps, "batch": batch, "lr": lr, "cosine": cosine, "seed": seed, "penalty": penalty,
        "penalty_weight": penalty_weight,
    }  # fmt: skip
    key = _key(models, world, loss, ood, settings)
    path = _file(key)
    history = _load(path, key, networks)
    if history is None:
        history = train(models, world, loss, ood, **settings)
        _save(path, key, networks, history)
    return history


def cached_by(train, networks, **settings):
    """train(networks, **settings) -> History, a function of this package that trains in place, or what it gave before, from disk.

    For networks that `train` of `training` does not take, such as convolutional ones: a list of modules of this package or of
    torch. The settings are what `cached_train` takes as such; all else as there.
    """
    met = {__name__}
    for module in (part for network in networks for part in network.modules()):
        if not type(module).__module__.startswith("torch.nn.") and not _name(type(module), met):
            raise ValueError(f"a cached run takes only modules of this package and of torch.nn, not {type(module).__name__}")
    numbers = [_describe(dict(network.state_dict()), met) for network in networks]
    frozen = [[parameter.requires_grad for parameter in network.parameters()] for network in networks]
    described = [list(map(str, networks)), numbers, frozen, _describe(train, met), _describe(settings, met)]
    versions = [torch.__version__, np.__version__, str(torch.get_default_dtype())]
    key = hashlib.sha256(repr([described, versions, _code(met)]).encode()).hexdigest()
    path = _file(key)
    history = _load(path, key, networks)
    if history is None:
        history = train(networks, **settings)
        _save(path, key, networks, history)
    return history


def cached_snapshots(
    models: Sequence[nn.Module],
    world: World,
    loss: Loss,
    moments: Sequence[int],
    ood: Sampler | None = None,
    *,
    batch: int = 64,
    lr: float = 1e-3,
    cosine: bool = False,
    seed: int | Sequence[int] | Tensor = 0,
    penalty: Callable | None = None,
    penalty_weight: float | Sequence[float] | Tensor = 1.0,
) -> dict[int, Sequence[nn.Module]]:
    """What `train` makes of a list of networks, kept after each number of steps in `moments`: moment -> list of networks.

    The other arguments, the cache and the errors are those of `cached_train`; the given networks stay as they are. ValueError
    if `moments` is not a list of different whole numbers of at least 1.
    """
    moments = [whole("moments", moment, 1) for moment in moments]
    if not moments or len(set(moments)) < len(moments):
        raise ValueError(f"moments must be different numbers of steps, at least one; got {moments}")
    check_plain({f"network {e}": model for e, model in enumerate(models)})
    kept = {moment: copy.deepcopy(models) for moment in moments}
    networks = list(itertools.chain(*kept.values()))
    settings: dict[str, Any] = {
        "batch": batch, "lr": lr, "cosine": cosine, "seed": seed, "penalty": penalty, "penalty_weight": penalty_weight,
    }  # fmt: skip
    key = _key(models, world, loss, ood, settings | {"moments": moments})
    path = _file(key)
    if _load(path, key, networks) is None:
        learners = copy.deepcopy(models)

        def keep(step, _losses):
            for own, learner in zip(kept.get(step + 1, []), learners, strict=False):
                own.load_state_dict(learner.state_dict())

        history = train(learners, world, loss, ood, steps=max(moments), callback=keep, **settings)
        _save(path, key, networks, history)
    return kept


def _file(key):
    """Where the run with this key is kept; None if no folder is named and the user has no home."""
    try:
        return Path(os.environ.get("OOD_CACHE") or "~/.cache/ood_helpers").expanduser() / f"{key}.pt"
    except RuntimeError:
        return None


def _key(models, world, loss, ood, settings):
    """A hash of everything that decides what a run gives."""
    met = {__name__}  # modules of this package
    networks = _describe_network(models, met) if isinstance(models, nn.Module) else [_describe_network(m, met) for m in models]
    described = [networks, _describe(world, met)]
    settings = {name: _counted(value) for name, value in sorted(settings.items())}
    parts = (world.sample, world.boundary if ood is None else ood, loss, settings)
    described += [_describe(part, met) for part in parts]
    versions = [torch.__version__, np.__version__, str(torch.get_default_dtype())]
    return hashlib.sha256(repr([described, versions, _code(met)]).encode()).hexdigest()


_WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def _counted(value):
    """A setting with numpy's and torch's whole numbers as Python's: `train` takes either for the same."""
    if isinstance(value, list | tuple):
        return type(value)(map(_counted, value))
    if isinstance(value, Tensor) and value.dim() == 0 and value.dtype in _WHOLE:
        return value.item()
    return int(value) if isinstance(value, np.integer) else value


def _describe(value, met):
    """A value as lists of strings that say all about it: names for this package's code, contents for everything else.

    The modules of the names are added to the set `met`.
    """
    kind = type(value)
    if kind in _PLAIN:
        return [kind.__name__, repr(value)]
    if kind in (Tensor, nn.Parameter) and value.layout == torch.strided and value.device.type == "cpu":
        plain = value.detach().resolve_conj().resolve_neg().clone(memory_format=torch.contiguous_format)
        numbers = plain.reshape(-1).view(torch.uint8).numpy()
        return ["tensor", str(value.dtype), list(value.shape), hashlib.sha256(numbers.tobytes()).hexdigest()]
    if isinstance(value, np.generic | np.ndarray) and not value.dtype.hasobject:
        return [kind.__name__, repr(value.dtype), list(value.shape), hashlib.sha256(value.tobytes()).hexdigest()]
    if kind in (list, tuple):
        return [kind.__name__, *(_describe(v, met) for v in value)]
    if kind is dict:
        return ["dict", *([_describe(k, met), _describe(v, met)] for k, v in value.items())]
    if kind is functools.partial:
        keywords = dict(sorted(value.keywords.items()))
        return ["partial", *(_describe(part, met) for part in (value.func, value.args, keywords, vars(value)))]
    if kind is types.MethodType:
        return ["method", _describe(value.__func__, met), _describe(value.__self__, met)]
    if kind is types.FunctionType and (name := _name(value, met)) and not value.__closure__:
        return ["function", name, _describe(value.__defaults__, met), _describe(value.__kwdefaults__, met)]
    if dataclasses.is_dataclass(value) and (name := _name(kind, met)):
        return ["instance", name, _describe(vars(value), met)]
    raise ValueError(
        f"a cached run takes only this package's worlds and losses and plain numbers, not {value!r}; call train() instead"
    )


def _name(value, met):
    """The full name of a function or class of this package; None unless that name, looked up, is this very one."""
    module, name = str(value.__module__), value.__qualname__
    try:
        found = operator.attrgetter(name)(sys.modules[module])
    except (AttributeError, KeyError):  # a lambda, or made inside a function
        return None
    if found is not value or not module.startswith(f"{_PACKAGE.name}."):
        return None
    met.add(module)
    return f"{module}.{name}"


def _describe_network(model, met):
    """What decides how a network is trained: its numbers, which of them are frozen, and its activations, torch's own."""
    held = [*model.named_parameters(), *model.named_buffers()]
    numbers = [[name, p.requires_grad, _describe(p, met)] for name, p in held]
    activations = [module for layer in free_layers(model)[1::2] for module in layer.modules()]
    for module in activations:
        if getattr(nn, type(module).__name__, None) is not type(module):
            raise ValueError(f"a cached run takes only activations of torch.nn, not {module}; call train() instead")
    public = [{k: v for k, v in vars(m).items() if k[0] != "_" and k != "training"} for m in activations]
    return [numbers, [[type(m).__name__, _describe(said, met)] for m, said in zip(activations, public, strict=True)]]


def _code(met):
    """The source, as hashes by name, of these modules and of every module of this package that they import, and so on."""
    found, todo = {}, set(met)
    while todo:
        name = todo.pop()
        source = _source(name)
        found[name] = hashlib.sha256(source).hexdigest()
        todo |= _imports(name, source) - found.keys()
    return sorted(found.items())


def _file_of(name):
    """The file of a module or package of this package; None if there is no such module."""
    path = _PACKAGE.parent.joinpath(*name.split("."))
    files = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in files if file.is_file()), None) if name.split(".")[0] == _PACKAGE.name else None


def _source(name):
    return _file_of(name).read_bytes()


@functools.cache
def _imports(name, source):
    """The modules of this package that a module with this source imports, anywhere in it: a set of full names."""
    package = name if _file_of(name).name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            origin = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            names = {f"{origin}.{alias.name}" for alias in node.names}
            found |= {each if _file_of(each) else origin for each in names}
    return {each for each in found if _file_of(each)}


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
