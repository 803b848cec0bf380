"""Representations inside a network: read by forward hooks, so that no network is edited to be distilled.

A path is that of ``named_modules()``, with two additions: a negative number counts from the end of an `nn.Sequential`
(``stage1.-1``), and ``PATH:input`` is what the module at PATH gets instead of what it gives.
"""

import threading
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kdexp.contracts import Layers, Outputs, Side

_INPUT = ":input"


class Reader:
    """Runs a network and gives its logits with the features that its hooks saw.

    Args:
        network: what to run; it gets its hooks here.
        paths: what to read; nothing is hooked when empty.

    Raises:
        ValueError: a path that the network does not have.
    """

    def __init__(self, network: nn.Module, paths: Iterable[str] = ()) -> None:
        self._network = network
        self._seen = _Seen()
        self._hooks = [self._hook(path) for path in dict.fromkeys(paths)]

    def __call__(self, inputs: Tensor) -> Outputs:
        """(N, ...) inputs to logits (N, C) and the features at the paths."""
        features: dict[str, Tensor] = {}
        self._seen.features = features
        return Outputs(self._network(inputs), features)

    def close(self) -> None:
        """Take the hooks off."""
        for hook in self._hooks:
            hook.remove()

    def _hook(self, path: str) -> torch.utils.hooks.RemovableHandle:
        module = find(self._network, path.removesuffix(_INPUT))

        def before(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            self._seen.features[path] = inputs[0]

        def after(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            # A recurrent layer gives (states, last states).
            self._seen.features[path] = output[0] if isinstance(output, tuple) else output

        if path.endswith(_INPUT):
            return module.register_forward_pre_hook(before)
        return module.register_forward_hook(after)


class _Seen(threading.local):
    """What the hooks saw; a teacher is run by several threads at once."""

    def __init__(self) -> None:
        self.features: dict[str, Tensor] = {}


def find(network: nn.Module, path: str) -> nn.Module:
    """The module at a path.

    Raises:
        ValueError: there is none.
    """
    module = network
    for name in path.split("."):
        children = list(module._modules)
        if isinstance(module, nn.Sequential) and name.startswith("-") and name[1:].isdigit():
            place = len(children) - int(name[1:])
            name = children[place] if place >= 0 else name
        child = module._modules.get(name)
        if child is None:
            has = ", ".join(children) or "nothing"
            raise ValueError(f"a layer must be a module of the network, got {path!r}: {name!r} is not among {has}")
        module = child
    return module


def side(network: nn.Module, layers: Layers | None, inputs: Tensor) -> Side:
    """See what a network's representations look like.

    Args:
        network: it is run once, in eval mode; its mode and its buffers stay as they are.
        layers: where to read; None finds them: see `discover`.
        inputs: (2, ...), zeros will do.

    Raises:
        ValueError: a path that the network does not have, or whose output is not a tensor.
    """
    layers = discover(network, inputs) if layers is None else layers
    paths = [*layers.stages, *layers.preact, layers.penultimate]
    find(network, layers.classifier)
    features = _run(network, paths, inputs).features
    for path in paths:
        if not isinstance(features.get(path), Tensor):
            found = type(features.get(path)).__name__
            raise ValueError(f"a layer must give a tensor when the network runs, got {path!r}, which gives {found}")
    return Side(network, layers, {path: tuple(feature.shape) for path, feature in features.items()})


def _run(network: nn.Module, paths: Iterable[str], inputs: Tensor) -> Outputs:
    training = {module: module.training for module in network.modules()}
    reader = Reader(network, paths)
    try:
        with torch.no_grad():
            device = next(network.parameters(), inputs).device
            network.eval()
            return reader(inputs.to(device))
    finally:
        reader.close()
        for module, was in training.items():
            module.training = was


def discover(network: nn.Module, inputs: Tensor) -> Layers:
    """Find the layers of any classifier, for networks whose yaml says ``feature_layers: auto``.

    The classifier is the last linear layer that runs, and the penultimate features are what it gets. The stages are
    those that timm names in the network's ``feature_info``; without it, the last module of each image size; without
    maps, the last three blocks of a transformer or hidden layers.

    Raises:
        ValueError: no linear layer, or nothing that looks like stages.
    """
    ran: list[tuple[str, nn.Module, tuple[int, ...]]] = []

    def note(path: str) -> Any:
        def after(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            tensor = output[0] if isinstance(output, tuple) else output
            if isinstance(tensor, Tensor):
                ran.append((path, module, tuple(tensor.shape)))

        return after

    hooks = [module.register_forward_hook(note(path)) for path, module in network.named_modules() if path]
    try:
        _run(network, (), inputs)
    finally:
        for hook in hooks:
            hook.remove()
    linear = [path for path, module, _ in ran if isinstance(module, nn.Linear)]
    if not linear:
        raise ValueError(f"the layers of {_name(network)} must be given: it has no linear layer, got auto")
    stages = _stages(network, ran, linear[-1])
    if not stages:
        raise ValueError(f"the layers of {_name(network)} must be given: no stages were found, got auto")
    return Layers(stages, penultimate=f"{linear[-1]}{_INPUT}", classifier=linear[-1])


def _stages(network: nn.Module, ran: list[tuple[str, nn.Module, tuple[int, ...]]], classifier: str) -> list[str]:
    known = {path for path, _, _ in ran}
    info = getattr(network, "feature_info", None)
    named = [str(entry["module"]) for entry in info if isinstance(entry, Mapping)] if isinstance(info, list) else []
    named = [path for path in named if path in known]
    if named:
        return named
    sizes: dict[tuple[int, ...], str] = {}
    for path, _, shape in ran:
        height, width = shape[2:] if len(shape) == 4 else (1, 1)
        smallest = min((h * w for h, w in sizes), default=height * width)
        if 1 < height * width <= smallest:  # a pool that ends the trunk may repeat points up to its own size
            # A module that holds others ends after them, and what it gives is what its last part gives.
            sizes[height, width] = path
    if sizes:
        return list(sizes.values())
    # No maps: the blocks of a transformer, or hidden layers; the children of the longest list of alike modules.
    lists = [
        (path, module)
        for path, module in network.named_modules()
        if isinstance(module, nn.Sequential | nn.ModuleList) and len(module) > 1
    ]
    blocks = [f"{path}.{name}" if path else name for path, module in lists for name in module._modules]
    vectors = [path for path, _, shape in ran if path in blocks and path != classifier and len(shape) >= 2]
    return vectors[-3:]


def _name(network: nn.Module) -> str:
    return type(network).__name__
