"""Representations inside a network: read by forward hooks, so that no network is edited to be distilled.

A path is that of ``named_modules()``, where an empty one is the network itself, with additions: a negative number
counts from the end of an `nn.Sequential` (``stage1.-1``); ``PATH:input`` is what the module at PATH gets instead of
what it gives; ``PATH:channels_last`` reads maps (N, H, W, C), as a Swin Transformer has them, as (N, C, H, W).
"""

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import dropwhile
from typing import TypeVar

import torch
from torch import Tensor, nn

from kdexp.contracts import FeatureLayers, NetworkFeatures, Outputs, TeacherStudentPair

Given = TypeVar("Given")
_INPUT, _CHANNELS_LAST, _MASK = ":input", ":channels_last", "tokens.mask"


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
        self.taken()
        return Outputs(self._network(inputs), self.taken(), self._network)

    def taken(self) -> dict[str, Tensor]:
        """What the hooks saw since the last call, for whoever runs the network without this reader."""
        features, self._seen.features = self._seen.features, {}
        return features

    def close(self) -> None:
        """Take the hooks off."""
        for hook in self._hooks:
            hook.remove()

    def _hook(self, path: str) -> torch.utils.hooks.RemovableHandle:
        is_last, of_input = path.endswith(_CHANNELS_LAST), path.removesuffix(_CHANNELS_LAST).endswith(_INPUT)
        module = find(self._network, path.removesuffix(_CHANNELS_LAST).removesuffix(_INPUT))

        def keep(by: nn.Module, features: Tensor) -> None:
            if by is module:  # and not a copy of the network, an average of its weights say, which has the hooks too
                self._seen.features[path] = features.movedim(-1, 1) if is_last else features

        def before(by: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            # An activation that works in place is about to overwrite what it gets.
            keep(by, inputs[0].clone() if getattr(by, "inplace", False) else inputs[0])

        def after(by: nn.Module, inputs: tuple[Tensor, ...], output: Tensor | tuple[Tensor, ...]) -> None:
            keep(by, _first(output))

        return module.register_forward_pre_hook(before) if of_input else module.register_forward_hook(after)


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
    for name in path.split(".") if path else []:
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


def side(network: nn.Module, layers: FeatureLayers | None, inputs: Tensor) -> NetworkFeatures:
    """See what a network's representations look like.

    Args:
        network: it is run once, in eval mode; its mode and its buffers stay as they are.
        layers: where to read; None: at the network's own ``layers`` if it has such an attribute, else they are found:
            see `discover`.
        inputs: (2, ...), zeros will do.

    Raises:
        ValueError: a path that the network does not have, or whose output is not a tensor.
    """
    if layers is None:
        own = getattr(network, "layers", None)
        layers = own if isinstance(own, FeatureLayers) else discover(network, inputs)
    paths = [*layers.stages, *layers.preact, *(path for path in (layers.penultimate, layers.mask) if path is not None)]
    if layers.classifier is not None:
        find(network, layers.classifier)
    logits, features, _ = _run(network, paths, inputs)
    for path in paths:
        if not isinstance(features.get(path), Tensor):
            found = type(features.get(path)).__name__
            raise ValueError(f"a layer must give a tensor when the network runs, got {path!r}, which gives {found}")
    return NetworkFeatures(
        network, layers, {path: tuple(each.shape) for path, each in [*features.items(), ("", logits)]}
    )


def pair_of(
    student: nn.Module,
    teacher: nn.Module,
    inputs: Tensor,
    *,
    target: Tensor | None = None,
    student_layers: FeatureLayers | None = None,
    teacher_layers: FeatureLayers | None = None,
) -> TeacherStudentPair:
    """What a feature loss is built from, for two networks of one's own.

        loss = FitNet(pair_of(student, teacher, images))

    Args:
        student: see `side`.
        teacher: see `side`.
        inputs: (N, ...), of which the shape and dtype alone are used.
        target: (samples,) int64 or (samples, C), the labels of the whole training set, for a loss that wants them
            (CRD).
        student_layers: where to read in the student; None: see `side`.
        teacher_layers: where to read in the teacher; None: see `side`.

    Raises:
        ValueError: layers that are not found, or not in the network: see `side` and `discover`.
    """
    probe = inputs.new_zeros(2, *inputs.shape[1:])
    num_outputs = _run(student, (), probe).logits.shape[1]
    target = torch.empty(0, dtype=torch.int64) if target is None else target
    return TeacherStudentPair(
        side(student, student_layers, probe), side(teacher, teacher_layers, probe), target, num_outputs
    )


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


def discover(network: nn.Module, inputs: Tensor) -> FeatureLayers:
    """Find the layers of any network, where its yaml says ``feature_layers: auto``.

    The classifier is the last linear layer that runs, and the penultimate features are what it gets. The stages are
    those that timm names in the network's ``feature_info``; without it, the last module of each image size; without
    maps of several sizes, the last three blocks of a transformer, or hidden layers. A stem (a first stage of a single
    layer, where later ones have several) is no stage. The preact of a stage is the input of the activation that it ends
    with; a stage that ends without one, such as a transformer's block, is its own.

    The mask of a network that reads texts is ``tokens.mask`` (`kdexp.models.text_tokens.Tokens`).

    A dense network without a linear layer has no classifier and no penultimate features. Its stages are those of the
    first module in it that gives maps of several sizes: its encoder.

    Raises:
        ValueError: no linear layer, or nothing that looks like stages.
    """
    ran = _trace(network, inputs)
    classifier = _classifier(ran)
    if classifier is None and _run(network, (), inputs).logits.dim() != 4:
        raise ValueError(f"the layers of {_name(network)} must be given: it has no linear layer, got auto")
    stages = _stages_of_encoder(network, ran) if classifier is None else _stages(network, ran, classifier)
    if not stages:
        raise ValueError(f"the layers of {_name(network)} must be given: no stages were found, got auto")
    preacts = _activations(network, stages, inputs)
    return FeatureLayers(
        stages=[_marked(stage, ran) for stage in stages],
        preact=[f"{preacts[stage]}{_INPUT}" if stage in preacts else _marked(stage, ran) for stage in stages],
        penultimate=None if classifier is None else f"{classifier}{_INPUT}",
        classifier=classifier,
        mask=next((one.path for one in ran if one.path.endswith(_MASK) and isinstance(one.module, nn.Identity)), None),
    )


def input_of_classifier(network: nn.Module, inputs: Tensor) -> str | None:
    """The path of what the last linear layer gets; None of a network without a linear layer."""
    classifier = _classifier(_trace(network, inputs))
    return None if classifier is None else f"{classifier}{_INPUT}"


@dataclass(frozen=True)
class _Ran:
    """A module that ran: where it is, the shape of what it gave, and the channels of its last layer with weights."""

    path: str
    module: nn.Module
    shape: tuple[int, ...]
    channels: int

    @property
    def is_channels_last(self) -> bool:
        """Whether it gave maps (N, H, W, C); not where that cannot be told from (N, C, H, W)."""
        return len(self.shape) == 4 and self.shape[1] != self.channels == self.shape[3]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the maps that it gave; (1, 1) of anything else."""
        if len(self.shape) != 4:
            return 1, 1
        height, width = self.shape[1:3] if self.is_channels_last else self.shape[2:]
        return height, width


def _trace(network: nn.Module, inputs: Tensor) -> list[_Ran]:
    """All modules below the network that give a tensor, in the order in which they end."""
    ran: list[_Ran] = []
    channels = 0

    def after(path: str, module: nn.Module, output: Tensor) -> None:
        nonlocal channels
        channels = _channels(module) or channels
        ran.append(_Ran(path, module, tuple(output.shape), channels))

    with _hooked(network, after):
        _run(network, (), inputs)
    return ran


@contextmanager
def _hooked(network: nn.Module, after: Callable[[str, nn.Module, Tensor], None]) -> Iterator[None]:
    """Meanwhile call ``after(path, module, output)`` for every module below the network that gives a tensor."""

    def hook(path: str) -> Callable[[nn.Module, object, object], None]:
        def call(module: nn.Module, inputs: object, output: object) -> None:
            given = _first(output)
            if isinstance(given, Tensor):
                after(path, module, given)

        return call

    hooks = [module.register_forward_hook(hook(path)) for path, module in network.named_modules() if path]
    try:
        yield
    finally:
        for handle in hooks:
            handle.remove()


def _first(output: Given | tuple[Given, ...]) -> Given:
    """What a module gives; of a recurrent layer, which gives (states, last states), the states."""
    return output[0] if isinstance(output, tuple) else output


def _channels(module: nn.Module) -> int:
    """How many channels a layer with weights gives; 0 for any other module."""
    normalized = getattr(module, "normalized_shape", None)
    if normalized:
        return int(normalized[-1])
    names = ("out_features", "out_channels", "num_features", "num_channels")
    has_weights = any(True for _ in module.parameters(recurse=False))
    return next((int(getattr(module, name)) for name in names if has_weights and hasattr(module, name)), 0)


def _classifier(ran: list[_Ran]) -> str | None:
    return next((one.path for one in reversed(ran) if isinstance(one.module, nn.Linear)), None)


def _marked(stage: str, ran: list[_Ran]) -> str:
    (last, *_) = (one for one in reversed(ran) if one.path == stage)
    return f"{stage}{_CHANNELS_LAST}" if last.is_channels_last else stage


def _stages(network: nn.Module, ran: list[_Ran], classifier: str) -> list[str]:
    known = {one.path for one in ran}
    info = getattr(network, "feature_info", None)
    named = [str(entry["module"]) for entry in info if isinstance(entry, Mapping)] if isinstance(info, list) else []
    named = [path for path in named if path in known]
    maps = named or _ends_of_sizes(ran, fewest=3)
    maps = maps if len(maps) > 1 else _ends_of_sizes(ran, fewest=2)
    if len(maps) > 1:
        return _without_stem(network, maps)
    lists = [m for m in network.named_modules() if isinstance(m[1], nn.Sequential | nn.ModuleList) and len(m[1]) > 1]
    children = [[f"{path}.{name}" if path else name for name in module._modules] for path, module in lists]
    sequences = [[one.path for one in ran if one.path in own and len(one.shape) == 3] for own in children]
    blocks = max(sequences, key=len, default=[]) or maps
    # No maps and no tokens: hidden layers.
    every = {path for own in children for path in own}
    return blocks[-3:] or [one.path for one in ran if one.path in every and one.path != classifier][-3:]


def _stages_of_encoder(network: nn.Module, ran: list[_Ran]) -> list[str]:
    parts: dict[str, list[_Ran]] = {}
    for one in ran:
        parts.setdefault(one.path.partition(".")[0], []).append(one)
    encoder = next((part for part in parts.values() if len({one.size for one in part} - {(1, 1)}) > 1), ran)
    return _without_stem(network, _ends_of_sizes(encoder, fewest=2))


def _ends_of_sizes(ran: list[_Ran], fewest: int) -> list[str]:
    """The last module of each size of maps on which a layer with weights works.

    Args:
        ran: see `_trace`.
        fewest: a module that holds others of so many sizes is looked into; any other is a whole.
    """
    known = {one.path for one in ran}

    def parent(path: str) -> str:
        while path and (path := path.rpartition(".")[0]) not in known:
            pass
        return path

    def inside(path: str) -> Iterator[_Ran]:
        for one in (one for one in ran if parent(one.path) == path):
            parts = {part.size for part in ran if parent(part.path) == one.path}
            if len(parts - {(1, 1)}) >= fewest:
                yield from inside(one.path)
            yield one

    weighted = {one.size for one in ran if _channels(one.module)}
    ends: dict[tuple[int, int], str] = {}
    for one in inside(""):
        smallest = min((height * width for height, width in ends), default=math.inf)
        if one.size in weighted and 1 < one.size[0] * one.size[1] <= smallest:
            ends[one.size] = one.path
    return list(ends.values())


def _without_stem(network: nn.Module, stages: list[str]) -> list[str]:
    """Without the first stages that are single layers, where later ones are blocks."""

    def is_layer(stage: str) -> bool:
        layers = (m for m in find(network, stage).modules() if isinstance(m, nn.Linear | nn.modules.conv._ConvNd))
        return sum(1 for _ in layers) < 2

    return list(dropwhile(is_layer, stages)) or stages


def _activations(network: nn.Module, stages: Iterable[str], inputs: Tensor) -> dict[str, str]:
    """Stage -> the activation that gives what the stage gives, for stages that end in one."""
    found: dict[str, str] = {}
    last: tuple[str, Tensor | None] = "", None

    def after(path: str, module: nn.Module, output: Tensor) -> None:
        nonlocal last
        if _is_activation(module):
            last = path, output
        if path in stages:
            found.pop(path, None)
            if last[1] is output:
                found[path] = last[0]

    with _hooked(network, after):
        _run(network, (), inputs)
    return found


def _is_activation(module: nn.Module) -> bool:
    """Whether it is one of PyTorch's or timm's activations, each value for itself."""
    where = type(module).__module__
    alone = where == "torch.nn.modules.activation" and not isinstance(module, _NOT_BY_VALUE)
    return alone or where.startswith("timm.layers.activations")


_NOT_BY_VALUE = (nn.MultiheadAttention, nn.Softmax, nn.Softmax2d, nn.LogSoftmax, nn.Softmin, nn.GLU)


def _name(network: nn.Module) -> str:
    return type(network).__name__
