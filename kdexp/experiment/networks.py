"""Student, peers and teachers as networks."""

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import cast

import torch
from torch import Tensor, nn

from kdexp.config import trust
from kdexp.config.compose import plain
from kdexp.config.objects import instantiate, target
from kdexp.config.require import Group, Values, require
from kdexp.contracts import FeatureLayers, NetworkFeatures, SeesTrainingInputs, Splits, Task
from kdexp.data.settings import Dataset
from kdexp.experiment.members import new_task, tile_large_images
from kdexp.features import input_of_classifier, side
from kdexp.models.complexity import dry_run
from kdexp.models.pretrained_stem import resizing
from kdexp.models.timm_models import without_sources
from kdexp.teacher.settings import TEACHER_KEYS

# Keys of a student's and a teacher's configuration that are not arguments of its network.
NETWORK_KEYS = ("feature_layers", "init_from_teacher", "members", *TEACHER_KEYS)


def build_network(
    member: Values, setting: str, dataset: Dataset, task: Values, *, pretrained: bool | None = None
) -> nn.Module:
    """Build a network and see that it takes the data set's inputs and gives its outputs.

    Args:
        member: its part of the configuration.
        setting: its name, for messages.
        dataset: the configuration of the data set.
        task: the configuration of what a batch becomes, which says what shape the outputs have.
        pretrained: whether it begins with published weights; None: as its configuration says. False for a network whose
            weights all come from a file: then nothing is fetched, whatever its configuration says of where.

    Raises:
        ValueError: it does not.
    """
    arguments, size = _arguments(member, setting, dataset, pretrained)
    made = new_task(task, dataset)
    others = _for_task(made, dataset.input_shape)
    try:
        hook = None if size is None else resizing(size)
        built: nn.Module = instantiate(arguments, _slot(setting))
        require(
            isinstance(built, nn.Module), arguments["_target_"], "must make a torch.nn.Module", type(built).__name__
        )
        if hook is not None:
            built.register_forward_pre_hook(hook)
    except (ValueError, FileNotFoundError) as error:
        names = {"resize", "name", *arguments}
        is_setting = re.split("[ =.]", str(error), maxsplit=1)[0] in names
        prefix = f"{setting}.arguments" if is_of_module(member) else setting
        hint = others if "input_shape must be (" in str(error) else ""  # it is made for inputs of another kind
        raise ValueError(f"{prefix}.{error}{hint}" if is_setting else f"{setting}: {error}{hint}") from error
    if not _is_file(built) and bool(_see_inputs(built)) != ("texts" in made.supports):
        rule = "must read texts" if "texts" in made.supports else "must not read texts"
        if rule == "must not read texts" and dataset.source.get("text", "") is None:
            rule += " where dataset.source.text names no column of them,"
        raise ValueError(f"{setting} {rule} with dataset={dataset.name}, got {type(built).__name__}{others}")
    _check_outputs(built, setting, dataset, made, member)
    tile_large_images(built, made)
    return built.train()


def _check_outputs(built: nn.Module, setting: str, dataset: Dataset, task: Task, member: Values) -> None:
    shape = task.logits_shape(dataset.input_shape)
    if member.get("classes"):
        shape = (member["num_classes"], *shape[1:])
    try:
        outputs = _outputs(built, dataset.input_shape, is_dense=len(shape) > 1)
    except Exception as error:  # whatever a network makes of inputs that it is not for
        reason = (str(error) or type(error).__name__).splitlines()[0]
        if reason.startswith("the outputs of "):  # it takes the inputs, and gives what it must not
            raise ValueError(f"{setting}: {reason}") from error
        way = f" (+{setting}.resize=SIZE resizes images for it)" if len(dataset.input_shape) == 3 else ""
        raise ValueError(
            f"{setting} must take inputs of dataset.input_shape{way}, got {list(dataset.input_shape)}: {reason}"
        ) from error
    found = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
    if found != (2, *shape):
        wanted = ", ".join(map(str, shape))
        is_near = isinstance(found, tuple) and len(found) == 1 + len(shape) and "images" not in task.supports
        hint = "" if is_near else _for_task(task, dataset.input_shape)
        raise ValueError(f"{setting} must give (N, {wanted}) logits for dataset={dataset.name}, got {found}{hint}")


def prepare(built: nn.Module, splits: Callable[[], Splits]) -> None:
    """Show a network what it is going to be trained on, if it is to see it; only then the data are wanted."""
    for module in _see_inputs(built):
        inputs, index = splits().train.inputs, splits().train.index
        assert isinstance(inputs, Tensor)
        module.prepare(inputs[index])


def _see_inputs(built: nn.Module) -> list[SeesTrainingInputs]:
    return [module for module in built.modules() if isinstance(module, SeesTrainingInputs)]


def _for_task(task: Task, input_shape: Sequence[int]) -> str:
    """What to say to who took a network that is made for another task."""
    names = getattr(task, "networks", lambda input_shape: ())(input_shape)
    verb = "is" if len(names) == 1 else "are"
    return f"; for task={type(task).__name__.lower()} there {verb} {', '.join(names)}" if names else ""


def _is_file(built: nn.Module) -> bool:
    return getattr(built, "of_known_samples", False)  # of `kdexp.teacher.saved_outputs`


def _outputs(built: nn.Module, input_shape: Sequence[int], *, is_dense: bool) -> object:
    if is_dense or _is_file(built):  # to run it on large images takes seconds
        return dry_run(built, input_shape, n=2)
    with torch.no_grad():
        return built.eval()(torch.zeros(2, *input_shape))


def _arguments(member: Values, setting: str, dataset: Dataset, pretrained: bool | None) -> tuple[Group, int | None]:
    """What a network's constructor gets, with its ``_target_``; and the size that images are resized to before it."""
    arguments = {key: value for key, value in plain(member).items() if key not in NETWORK_KEYS}
    takes = inspect.signature(trust.find(arguments.get("_target_"), _slot(setting), f"{setting}.")).parameters
    if is_of_module(arguments):
        told = {key: arguments[key] for key in ("num_classes", "input_shape") if key in takes}
        others = {key: arguments[key] for key in ("_target_", "resize") if key in arguments}
        arguments = {**told, **arguments["arguments"], **others}
    if pretrained is not None and "pretrained" in arguments:
        arguments = (arguments if pretrained else without_sources(arguments)) | {"pretrained": pretrained}
    if pretrained is False and "tokenizer" in arguments:
        arguments["tokenizer"] = arguments["tokenizer"] | {"file": None}
    size = None if "resize" in takes else arguments.pop("resize", None)
    if size is not None:  # a network for images of another size than the data set's
        if len(dataset.input_shape) != 3:
            raise ValueError(f"{setting}.resize must be null where inputs are no images, got {size}")
        if "input_shape" in arguments:
            arguments["input_shape"] = [*dataset.input_shape[:-2], size, size]
    return arguments, size


def _slot(setting: str) -> str:
    """Of `kdexp.config.trust.SLOTS`: a teacher may be a file, too; nothing else that is built here may."""
    return "teacher" if setting.partition(".")[0] == "teacher" else "network"


def is_of_module(member: Values) -> bool:
    """Whether a network is a class of a person's own that was named on the command line (student=module)."""
    return "arguments" in member and member.get("target") == member.get("_target_")


def description(member: Values, setting: str, dataset: Dataset, deployed_by: Sequence[str], of_data: Values) -> Values:
    """What a file of weights says of its network, so that it can be built and used without anything else.

    Args:
        member: its part of the configuration, the student's or a peer's.
        setting: that named the network, for messages.
        dataset: the configuration of the data set.
        deployed_by: the feature losses that put another network with parts of the teacher in its place (SimKD).
        of_data: what the data say of themselves, `kdexp.experiment.data.Data.description`.

    Returns:
        Plain values: ``architecture``, the importable name of its constructor; ``settings``, its arguments; ``resize``,
        the size of images that its inputs are resized to, or None; ``deployed_by``; ``task``, what the logits mean;
        ``num_outputs``, how many a row has;
        ``input_shape`` (of one sample, without N), ``mean`` and ``std`` (inputs, images in [0, 1], were normalised
        with), ``kdexp_version``; and what `of_data` says.
    """
    arguments, size = _arguments(member, setting, dataset, False)
    return {
        "kdexp_version": version("kdexp"),
        "architecture": arguments.pop("_target_"),
        "settings": arguments,
        "resize": size,
        "deployed_by": list(deployed_by),
        "task": dataset.kind,
        "num_outputs": dataset.num_outputs,
        **of_data,
        **{key: list(getattr(dataset, key)) for key in ("input_shape", "mean", "std")},
    }


def deployed(loss: Values) -> Callable[[NetworkFeatures, NetworkFeatures], nn.Module] | None:
    """What makes the network that a feature loss puts in the student's place; most leave it where it is."""
    found: Callable[[NetworkFeatures, NetworkFeatures], nn.Module] | None = getattr(
        target(loss, "feature_loss"), "deployed", None
    )
    return found


def side_of(setting: str, member: Values, built: nn.Module, input_shape: Sequence[int]) -> NetworkFeatures:
    """A network with the layers where its features are read.

    Args:
        setting: that named the network, for messages.
        member: its part of the configuration.
        built: the network.
        input_shape: of one sample, without N.
    """
    own = getattr(built, "layers", None)  # of a network that is deployed in the student's place, or of one of texts
    is_typed = _see_inputs(built) and plain(member)["feature_layers"] != "auto"
    layers = own if isinstance(own, FeatureLayers) and not is_typed else _layers(setting, member)
    try:
        found = side(built, layers, torch.zeros(2, *input_shape))
    except ValueError as error:
        raise ValueError(f"{setting}.feature_layers: {error}") from error
    if plain(member).get("classes"):  # its classifier has them in its own order
        found = replace(found, layers=replace(found.layers, classifier=None))
    return found


def _layers(setting: str, member: Values) -> FeatureLayers | None:
    """Where features are read in a network of conf/student or conf/teacher; None: they are to be found."""
    given = plain(member)["feature_layers"]
    if given == "auto":
        return None
    try:
        return FeatureLayers(**given)
    except TypeError as error:
        rule = "must be auto, or have stages, penultimate, classifier and perhaps preact"
        raise ValueError(f"{setting}.feature_layers {rule}, got {given}") from error


def penultimate(setting: str, member: Values, built: nn.Module, input_shape: Sequence[int]) -> str | None:
    """The path of what a network's classifier gets (see `kdexp.features`); None of one without a linear layer.

    Args:
        setting: that named the network, for messages.
        member: its part of the configuration.
        built: the network.
        input_shape: of one sample, without N.
    """
    if isinstance(getattr(built, "layers", None), FeatureLayers) or _layers(setting, member) is not None:
        return side_of(setting, member, built, input_shape).layers.penultimate
    return input_of_classifier(built, torch.zeros(2, *input_shape))


_INIT = "student.init_from_teacher"


def init_from_teacher(student: nn.Module, teacher: nn.Module, chosen: Sequence[int]) -> None:
    """Give a student weights of its teacher's to begin with, as DistilBERT and PKD have it.

    Its block i gets those of the teacher's block of the i-th number. Of what is outside the blocks (embeddings,
    positions, classifier) it gets all that has the same name and shape; of the vocabularies of text networks that one,
    too, where all embeddings agree.

    Args:
        student: with ``blocks``; changed in place.
        teacher: likewise, as wide as the student.
        chosen: from 0 at the input, one for each of the student's blocks.

    Raises:
        ValueError: they do not fit; one line.
    """
    blocks = [getattr(network, "blocks", None) for network in (student, teacher)]
    for network, found in zip((student, teacher), blocks, strict=True):
        if not isinstance(found, nn.ModuleList | nn.Sequential):
            rule = "must be null where a network has no blocks"
            raise ValueError(f"{_INIT} {rule}, got {list(chosen)} with {type(network).__name__}")
    own, goal = (len(cast(nn.Sequential, found)) for found in blocks)
    if len(chosen) != own or any(not 0 <= number < goal for number in chosen):
        rule = f"must be {own} of the teacher's blocks, from 0 to {goal - 1}, one for each of the student's"
        raise ValueError(f"{_INIT} {rule}, got {list(chosen)}")
    state, given = student.state_dict(), teacher.state_dict()
    for number, source in enumerate(chosen):
        for name in [name for name in state if name.startswith(f"blocks.{number}.")]:
            taken = f"blocks.{source}.{name.split('.', 2)[2]}"
            if taken not in given or given[taken].shape != state[name].shape:
                shapes = f"{_shape(state[name])} of {name} for {_shape(given.get(taken))} of {taken}"
                raise ValueError(f"{_INIT} must be null where student and teacher have other blocks, got {shapes}")
            state[name] = given[taken]
    free = {f"{path}.{name}" for path, part in student.named_modules() for name in getattr(part, "any_size", ())}
    others = [name for name in state if not name.startswith("blocks.") and name in given and name not in free]
    agree = {name for name in others if given[name].shape == state[name].shape}
    if len(agree) == len(others):
        agree |= free & given.keys()
    student.load_state_dict(state | {name: given[name] for name in agree})


def _shape(tensor: Tensor | None) -> str:
    return "nothing" if tensor is None else str(tuple(tensor.shape))


def laid_out(built: nn.Module, channels_last: bool | str, device: torch.device) -> nn.Module:
    """The network, its weights in the memory format that is set; images follow in the first convolution."""
    if is_channels_last(built, channels_last, device):
        built.to(memory_format=torch.channels_last)
    return built


def is_channels_last(built: nn.Module, wanted: bool | str, device: torch.device) -> bool:
    """Whether a network's weights and feature maps have their channels last.

    With auto on a CPU, where it makes the network faster, which the widths of its convolutions decide and no clock, so
    that the same settings give the same numbers again: a network with spatial convolutions of fewer than eight channels
    is slower so, and one of more than 256 hardly gains (scripts/bench_channels_last.py; docs/benchmarks.md). On a GPU
    auto is false.

    Args:
        built: the network.
        wanted: a setting, ``trainer.channels_last`` or a teacher's ``recipe.channels_last``: true, false or auto.
        device: where it runs.
    """
    if wanted != "auto":
        return bool(wanted)
    if device.type != "cpu":
        return False
    convolutions = [module for module in built.modules() if isinstance(module, nn.Conv2d)]
    spatial = [layer for layer in convolutions if layer.groups == 1 and layer.kernel_size != (1, 1)]
    return bool(convolutions) and all(8 <= layer.out_channels <= 256 for layer in spatial)


def device_for(accelerator: str) -> torch.device:
    """Where work that needs no Trainer is done."""
    return torch.device("cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu")
