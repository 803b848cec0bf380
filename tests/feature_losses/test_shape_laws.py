"""What every public function and class of the losses must obey: shapes that do not fit are refused.

The docstrings say what fits, and the law reads them there, so that a new function is tested without an edit here. In
``student_maps: (N, C, H, W)`` and ``teacher_maps: (N, C, H', W')`` a size that stands in both must be the same, and one
that stands in a single argument is free. ``...`` are further dimensions that arguments share, ``*`` are any.
"""

import copy
import inspect
import itertools
import pkgutil
import re
import typing
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module

import pytest
import torch
from pairs import CNN, MLP, RNN, SHAPE, deployed, encoders, leaves, make_batch, make_pair, outputs_of
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

import kdexp.feature_losses
import kdexp.losses
from kdexp.contracts import Kind
from kdexp.feature_losses.adapters import BatchNorm, Connector
from kdexp.feature_losses.crd import Negatives
from kdexp.feature_losses.maps import Regressor
from kdexp.feature_losses.ofd import Margin
from kdexp.feature_losses.reviewkd import Fusion
from kdexp.losses.dkd import DKD
from kdexp.models.cnn import cnn
from kdexp.models.mlp import mlp
from kdexp.models.rnn import rnn


def public(package):
    """What a user may call: all that its modules define under a name without an underscore."""
    modules = [import_module(f"{package.__name__}.{found.name}") for found in pkgutil.iter_modules(package.__path__)]
    own = [(module.__name__, value) for module in modules for value in vars(module).values()]
    own = [value for module, value in own if getattr(value, "__module__", "") == module and callable(value)]
    return [value for value in own if not value.__name__.startswith("_")]


def takes_tensors(function):
    """Of its own: a ``**tensors`` takes those of others, by the names that they have there."""
    parameters = inspect.signature(function).parameters.values()
    return any("Tensor" in str(p.annotation) and p.kind is not p.VAR_KEYWORD for p in parameters)


FUNCTIONS = [f for f in public(kdexp.losses) + public(kdexp.feature_losses) if inspect.isfunction(f)]
FUNCTIONS = [function for function in FUNCTIONS if takes_tensors(function)]
SOFT_LOSSES = [value for value in public(kdexp.losses) if inspect.isclass(value) and issubclass(value, nn.Module)]
SOFT_LOSSES = [loss for loss in SOFT_LOSSES if not hasattr(loss, "compares")]  # rows of logits: the others' tests say
CLASSES = [value for value in public(kdexp.feature_losses) if inspect.isclass(value)]
FEATURE_LOSSES = [value for value in CLASSES if hasattr(value, "forward") and "pair" in value.__init__.__annotations__]
# What feature losses are made of: how to build it, and the sizes that this gives to words of its docstring.
PARTS = {
    BatchNorm: (lambda: BatchNorm(5), {"C": 5}),
    Connector: (lambda: Connector((2, 5, 4, 4), (2, 6, 3, 3)), {"C": 5}),
    Fusion: (lambda: Fusion(5, 6, 7, deeper=True), {"channels": 5, "middle": 6}),
    Margin: (lambda: Margin(5), {"C": 5}),
    Negatives: (lambda: Negatives(torch.tensor([0, 1] * 20), 4), {}),
    Regressor: (lambda: Regressor((2, 5, 4, 4), (2, 6, 3, 3)), {"C": 5}),
}
OTHERS = {
    "ReusedClassifier": "a network, which takes what the student takes",
    "Compared": "in every feature loss",
    "ComparedTokens": "in every feature loss of tokens",
}
# Lists of tensors have so many stages: of the student, and of the teacher within each of them.
STAGES = {"I": 2, "J": 3}
NOT_VMAPPED = {"mgd": "draws a mask", "permuted": "draws an order", "PermutedKD": "draws an order", "kdsvd": "no rule"}
COMPILED = ["kd", "dkd", "cross_entropy", "ofd", "at", "sp", "hcl", "fsp"]


def by_name(value):
    return getattr(value, "__name__", None)


def test_the_laws_know_every_class():
    assert {value.__name__ for value in CLASSES} - {value.__name__ for value in [*FEATURE_LOSSES, *PARTS]} == {*OTHERS}
    assert (len(FUNCTIONS) > 45, len(SOFT_LOSSES) > 15, len(FEATURE_LOSSES) > 20) == (True, True, True)


class Call:
    """A function with arguments that fit, and the words of the shape of each tensor, by the place where it stands.

    Args:
        function: to be called.
        arguments: by name; tensors, or lists of them.
        words: place -> words.
        fixed: words whose sizes something else says.
        forms: place -> further numbers of dimensions that the tensor may have.
    """

    def __init__(self, function, arguments, words, fixed=(), forms=None):
        self.function, self.arguments, self.words = function, arguments, words
        self._fixed, self._forms = {*fixed}, forms or {}

    def __call__(self, arguments):
        return self.function(**arguments)

    def bound(self, place):
        """The words whose size is said elsewhere."""
        others = (words for other, words in self.words.items() if other != place)
        return self._fixed.union(*others)

    def misfits(self):
        """(place, what is wrong there, arguments with something there that does not fit)."""
        for place, words in self.words.items():
            tensor = get(self.arguments, place)
            for what, wrong in misfits(tensor, words, self.bound(place)):
                if wrong.ndim == tensor.ndim or wrong.ndim not in self._forms.get(place, ()):
                    yield place, what, put(self.arguments, place, wrong)
        for name in {place[0] for place in self.words if len(place) > 1}:
            stages = self.arguments[name]
            yield (name,), "a stage is missing", put(self.arguments, (name,), stages[:-1])
            yield (name,), "a further stage", put(self.arguments, (name,), [*stages, stages[-1]])
        for name, hint in typing.get_type_hints(self.function).items():
            if hint in (float, float | Tensor) and name in self.arguments:
                yield (name,), "not a scalar", put(self.arguments, (name,), torch.full((1, 5), 0.5))

    def others(self):
        """Arguments that fit too: with another size where nothing else says it."""
        for place, words in self.words.items():
            for at, word in enumerate(sizes_of(words)):
                if not word.isdigit() and word not in self.bound(place):
                    yield put(self.arguments, place, get(self.arguments, place).repeat_interleave(2, at))


def sizes_of(words):
    return [word for word in words if word not in ("...", "*")]


def misfits(tensor, words, bound):
    """(what is wrong, the wrong tensor) for a tensor of which others bind some words."""
    if words[:1] == ["*"]:
        return
    sizes, rest = sizes_of(words), [*words, ""][len(sizes_of(words))]
    for place, word in enumerate(sizes):
        if word in bound or word.isdigit():
            if tensor.shape[place] > 1:
                yield f"{word} is broadcast", tensor.narrow(place, 0, 1)
            yield f"{word} is larger", tensor.repeat_interleave(2, place)
    if len(sizes) > 1 and bound & {*sizes[:2]}:
        yield "transposed", tensor.transpose(0, 1)
    if tensor.ndim and (tensor.ndim == len(sizes) or rest in bound):
        yield "a dimension is missing", tensor[..., 0]
    if not rest or rest in bound:
        yield "a further dimension", tensor.unsqueeze(-1)
        yield "a further dimension before the others", tensor.unsqueeze(0)


def get(values, place):
    for key in place:
        values = values[key]
    return values


def put(values, place, value):
    """A copy with another value at the place."""
    key, *within = place
    values = copy.copy(values)
    values[key] = put(values[key], within, value) if within else value
    return values


def of_docstring(function, fixed=()):
    """The call of a function with what its annotations and its docstring want.

    Args:
        function: to be called.
        fixed: the sizes of some words.
    """
    texts, numbers = documented(function), itertools.count(4)
    sizes = defaultdict(lambda: next(numbers), {**STAGES, **dict(fixed)})
    hints, words, forms, fixed = typing.get_type_hints(function), {}, {}, {*sizes}

    def tensor(name, *stage):
        shapes, integer = texts.get(name, ([], False))
        assert shapes, f"the docstring of {function.__qualname__} must give the shape of {name}"
        place = (name, *stage)
        words[place] = [numbered(word, stage) for word in shapes[0]]
        forms[place] = {len(shape) for shape in shapes}
        shape = [sizes[word] for word in sizes_of(words[place])]
        return torch.randint(0, 2, shape) if integer else torch.rand(shape) + 0.5

    def argument(name, hint, default):
        if hint == Sequence[Sequence[Tensor]]:
            return [[tensor(name, i, j) for j in range(STAGES["J"])] for i in range(STAGES["I"])]
        if hint == Sequence[Tensor]:
            return [tensor(name, i) for i in range(STAGES["I"])]
        if hint in (Tensor, Tensor | None):
            return tensor(name)
        if hint in (Sequence[int], list[int]):
            named = sizes_of(texts[name][0][0])
            fixed.update(named)
            return [sizes[word] for word in named]
        if default is not inspect.Parameter.empty:
            return default
        ready = {float: 2.0, float | Tensor: 2.0, Sequence[float]: (1.0, 2.0), Kind: "multiclass"}
        return ready.get(hint, nn.Identity())

    parameters = inspect.signature(function).parameters.values()
    arguments = {p.name: argument(p.name, hints[p.name], p.default) for p in parameters}
    return Call(function, arguments, words, fixed, forms)


def documented(function):
    """Parameter -> the shapes that its docstring gives, each a list of words, and whether it is of integers."""
    section = inspect.getdoc(function).partition("Args:\n")[2].partition("\n\n")[0]
    found, shapes = {}, []
    for name, text in re.findall(r"^    (\w+): (.*(?:\n        .*)*)", section, re.MULTILINE):
        if "the same shape" not in text:
            shapes = re.findall(r"\(([\w', .*+]+)\)", text) if not text.startswith("scalar") else [""]
            shapes = [[word.strip() for word in shape.split(",") if word.strip()] for shape in shapes]
        found[name] = (sorted(shapes, key=lambda shape: "..." not in shape), "int64" in text)
    if "target" in found:
        found["target"] = ([["N", "..."]], True)
    return found


def numbered(word, stage):
    """H_ij of the stages 0 and 1 is H_01: j is in the inner list, any other letter in the outer one."""
    return re.sub("(?<=_)[a-z]+", lambda letters: "".join(str(stage[letter == "j"]) for letter in letters[0]), word)


def obeys(call):
    """It takes what fits, and refuses what does not in one line that says what is wrong."""
    call(call.arguments)
    for others in call.others():
        call(others)
    said = {(place, what): refusal(lambda: call(wrong)) for place, what, wrong in call.misfits()}  # noqa: B023
    names = "|".join(call.arguments)
    form = rf"({names}|logits).* must .+, got .+"
    assert not {at: text for at, text in said.items() if not re.fullmatch(form, text)}


def refusal(action):
    """What it says when it refuses."""
    try:
        action()
    except ValueError as error:
        return str(error)
    return "accepted"


@pytest.mark.parametrize("function", FUNCTIONS, ids=by_name)
def test_a_function_takes_what_its_docstring_says_and_refuses_what_does_not_fit(function):
    obeys(of_docstring(function))


@pytest.mark.parametrize("part", PARTS, ids=by_name)
def test_a_part_of_feature_losses_takes_what_its_docstring_says_and_refuses_what_does_not_fit(part):
    make, sizes = PARTS[part]
    obeys(of_docstring(make().forward, sizes))


def stacked(call, function):
    """The tensors of a call twice, with other values; and the function of one set of them."""

    def of_tensors(*tensors):
        arguments = call.arguments
        for place, tensor in zip(call.words, tensors, strict=True):
            arguments = put(arguments, place, tensor)
        return function(arguments)

    tensors = [get(call.arguments, place) for place in call.words]
    return [torch.stack((x, 2 * x if x.is_floating_point() else x)) for x in tensors], of_tensors


def vmaps(call, function):
    twice, one = stacked(call, function)
    expected = [one(*(tensor[i] for tensor in twice)) for i in range(2)]
    expected = [torch.stack(each) for each in zip(*expected, strict=True)] if type(expected[0]) is tuple else expected
    found = torch.func.vmap(one)(*twice)
    torch.testing.assert_close(found, tuple(expected) if type(found) is tuple else torch.stack(expected))


@pytest.mark.parametrize("function", [f for f in FUNCTIONS if f.__name__ not in NOT_VMAPPED], ids=by_name)
def test_vmap_works_through_the_checks_of_a_function(function):
    call = of_docstring(function)
    if inspect.signature(function).return_annotation is None:
        pytest.skip("gives nothing")
    vmaps(call, call)


@pytest.mark.parametrize("name", COMPILED)
def test_a_function_is_compiled_as_one_graph_for_all_batch_sizes_and_still_refuses(name):
    (function,) = (function for function in FUNCTIONS if function.__name__ == name)
    call, counter = of_docstring(function), CompileCounter()
    torch._dynamo.reset()
    compiled = torch.compile(function, backend=counter, fullgraph=True, dynamic=True)
    larger = call.arguments
    for place, words in call.words.items():
        if words[0] == "N":
            larger = put(larger, place, torch.cat((get(larger, place), get(larger, place))))
    for arguments in (call.arguments, larger):
        assert torch.equal(compiled(**arguments), function(**arguments))
    assert counter.frame_count == 1
    _, _, wrong = next(iter(call.misfits()))
    with pytest.raises(RuntimeError, match=r"raised exception ValueError\(.* must .*, got "):
        compiled(**wrong)
    torch._dynamo.reset()


# Task, words of the logits and of the target, and the target's dtype.
TARGETS = {
    "class numbers": ("multiclass", ["N", "C", "..."], ["N", "..."], torch.int64),
    "after mixup": ("multiclass", ["N", "C", "..."], ["N", "C", "..."], torch.float32),
    "binary": ("binary", ["N", "1", "..."], ["N", "..."], torch.int64),
    "multilabel": ("multilabel", ["N", "C", "..."], ["N", "C", "..."], torch.float32),
}


def soft_call(loss_class, kind, further=()):
    """The call of a soft loss; what its docstring says it does not use is None."""
    kind, of_logits, of_target, dtype = TARGETS[kind]
    parameters = inspect.signature(loss_class).parameters
    if "kind" in parameters and kind != "multiclass" and loss_class.__name__ in ("LogitStandardization", "PermutedKD"):
        pytest.skip("multiclass alone")
    given = {"kind": kind, "temperature": 2.0, "loss": DKD()}
    loss = loss_class(**{name: value for name, value in given.items() if name in parameters})
    sizes = {"N": 6, "C": 5, "1": 1}
    words = {("student_logits",): of_logits, ("teacher_logits",): of_logits, ("target",): of_target}
    shapes = {place: [*(sizes[word] for word in sizes_of(w)), *further] for place, w in words.items()}
    arguments = {name: torch.rand(shapes[name,]) for name in ("student_logits", "teacher_logits")}
    target = torch.rand(shapes["target",]) if dtype.is_floating_point else torch.randint(0, 2, shapes["target",])
    said = loss_class.forward.__doc__.lower()
    forms = {("target",): {2 + len(further)} if kind == "binary" else ()}
    call = Call(loss.forward, {**arguments, "target": target}, words, forms=forms)
    for name, unused in (("target", "target is not used"), ("teacher_logits", "teacher's logits are not used")):
        if unused in said:
            torch.manual_seed(0)
            value = call(call.arguments)
            call.arguments[name] = None
            del call.words[name,]
            torch.manual_seed(0)
            assert torch.equal(call(call.arguments), value)
    return call


@pytest.mark.filterwarnings("ignore:loss=.* has no gradient with 2 classes")
@pytest.mark.parametrize("further", [(), (3, 2)], ids=["rows", "dense"])
@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("loss_class", SOFT_LOSSES, ids=by_name)
def test_a_soft_loss_takes_what_its_task_says_and_refuses_what_does_not_fit(loss_class, kind, further):
    obeys(soft_call(loss_class, kind, further))


@pytest.mark.parametrize("loss_class", SOFT_LOSSES, ids=by_name)
def test_a_soft_loss_refuses_class_numbers_of_another_dtype_if_it_uses_them(loss_class):
    call = soft_call(loss_class, "class numbers")
    if call.arguments["target"] is None:
        return
    for dtype in (torch.float32, torch.int32, torch.bool):
        name = str(dtype).removeprefix("torch.")
        with pytest.raises(ValueError, match=rf"^target must be int64 class numbers .*, got {name} \(6,\)$"):
            call(put(call.arguments, ("target",), call.arguments["target"].to(dtype)))


@pytest.mark.parametrize("loss_class", [c for c in SOFT_LOSSES if c.__name__ not in NOT_VMAPPED], ids=by_name)
def test_vmap_works_through_the_checks_of_a_soft_loss_with_a_temperature_for_each_student(loss_class):
    call = soft_call(loss_class, "class numbers")
    loss = call.function.__self__
    if hasattr(loss, "temperature"):
        call.arguments["temperature"], call.words["temperature",] = torch.tensor(1.5), []

    def one(arguments):
        arguments = dict(arguments)
        if "temperature" in arguments:
            loss.temperature = arguments.pop("temperature")
        return call.function(**arguments)

    vmaps(call, one)


FEATURES = {2: ["N", "C"], 3: ["N", "L", "C"], 4: ["N", "C", "H", "W"]}
PAIRS = {
    "maps": lambda: make_pair(cnn(5, SHAPE, width=4), cnn(5, SHAPE, width=6), CNN, CNN),
    "sequences": lambda: make_pair(rnn(5, SHAPE, hidden=6), rnn(5, SHAPE, hidden=8), RNN, RNN),
    "vectors": lambda: make_pair(mlp(5, SHAPE, hidden=[7]), mlp(5, SHAPE, hidden=[9]), MLP, MLP),
    "sequences with padding": lambda: encoders(6, 8),
}


# Those that read the attention of transformers.
OF_ATTENTION = {"MiniLM"}


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("loss_class", FEATURE_LOSSES, ids=by_name)
def test_a_feature_loss_refuses_other_features_than_it_was_built_for(loss_class, kind):
    pair = deployed(loss_class, PAIRS[kind]())
    try:
        loss = loss_class(pair)
    except ValueError as error:
        pytest.skip(str(error))
    batch = make_batch(10)  # which no number of channels is: a transposed feature is another one
    student, teacher = (leaves(outputs) for outputs in outputs_of(loss, pair, batch))
    loss(student, teacher, batch)
    before, said = copy.deepcopy(loss.state_dict()), {}
    for initial in (False, True) if hasattr(loss, "in_init_stage") else (False,):
        loss.in_init_stage = initial
        for *what, wrong in wrong_features(student, teacher):
            said[initial, *what] = refusal(lambda: loss(*wrong, batch))  # noqa: B023
    assert said
    form = r"(student|teacher)\.features\['\S+'\] must have shape .+, got .+"
    assert not {at: text for at, text in said.items() if not re.fullmatch(form, text)}
    torch.testing.assert_close(loss.state_dict(), before, rtol=0, atol=0)


def wrong_features(student, teacher):
    """(network, path, what is wrong there, the outputs of the student and of the teacher)."""
    for network, outputs in (("student", student), ("teacher", teacher)):
        for path, feature in outputs.features.items():
            for what, wrong in misfits(feature, FEATURES[feature.ndim], {"N", "C"}):
                other = outputs._replace(features={**outputs.features, path: wrong})
                yield network, path, what, (other, teacher) if network == "student" else (student, other)


@pytest.mark.parametrize("loss_class", FEATURE_LOSSES, ids=by_name)
def test_a_feature_loss_refuses_a_batch_of_other_samples_if_it_uses_it(loss_class):
    pair = deployed(loss_class, PAIRS["sequences with padding" if loss_class.__name__ in OF_ATTENTION else "maps"]())
    loss, batch = loss_class(pair), make_batch()
    outputs = [leaves(each) for each in outputs_of(loss, pair, batch)]
    if "batch is not used" in loss_class.forward.__doc__:
        loss(*outputs, None)
        return
    for _, wrong in misfits(batch.index, ["N"], {"N"}):
        with pytest.raises(ValueError, match=r"^batch.index must have shape \(6,\), got \(.*\)$"):
            loss(*outputs, replace(batch, index=wrong))


@pytest.mark.parametrize("loss_class", FEATURE_LOSSES, ids=by_name)
def test_a_feature_loss_takes_maps_of_another_size_or_refuses_them_in_one_line(loss_class):
    pair = deployed(loss_class, PAIRS["sequences with padding" if loss_class.__name__ in OF_ATTENTION else "maps"]())
    loss, batch = loss_class(pair), make_batch()
    student, teacher = (leaves(outputs) for outputs in outputs_of(loss, pair, batch))
    larger = {p: f.repeat_interleave(2, 2) if f.ndim == 4 else f for p, f in teacher.features.items()}
    said = refusal(lambda: loss(student, teacher._replace(features=larger), batch).item())
    assert re.fullmatch(r"accepted|\S+ must have shape .+, got .+", said)


# The other ones take any form of what the classifier reads, or do not look at it.
COMPARE_VECTORS = {"CC", "CRD", "Cosine", "FeatureMSE", "PKT", "RKD", "SRRL", "SimKD"}


@pytest.mark.parametrize("loss_class", FEATURE_LOSSES, ids=by_name)
def test_a_feature_loss_of_vectors_is_not_built_for_maps(loss_class):
    pair = PAIRS["maps"]()
    sides = [replace(each, layers=replace(each.layers, penultimate="stage3")) for each in (pair.student, pair.teacher)]
    said = refusal(lambda: loss_class(deployed(loss_class, replace(pair, student=sides[0], teacher=sides[1]))))
    form = r"feature_loss=\w+ needs vectors from feature_layers.penultimate, got \(\d+, 2, 2\) from 'stage3'"
    refused = re.fullmatch(form, said)
    assert (refused is not None) == (loss_class.__name__ in COMPARE_VECTORS), said
