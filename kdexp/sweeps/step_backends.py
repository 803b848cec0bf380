"""The step of several students of one architecture as one batched computation (`torch.func`).

The students' parameters and buffers become views of stacked tensors, with a dimension for the student; forward pass,
loss and backward pass are then done for all of them at once, where a loop would call every small operator for each.
Alpha and the temperature are numbers of each student, its batch may be its own (`vmap`). Optimizers, schedules, logs
and checkpoints stay each student's own. Sums are taken in another order than alone: results agree within rounding, not
to the bit.
"""

import copy
import logging
import statistics
import time
import warnings
from collections.abc import Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from kdexp.contracts import Batch, Outputs
from kdexp.sweeps.cuda_streams import Streams
from kdexp.training.distiller import Distiller
from kdexp.training.terms import PrecomputedStep

log = logging.getLogger(__name__)

BACKENDS = ("auto", "loop", "streams", "vmap")
_ROUNDS = 7
"""So many rounds of each kind are measured before `auto` decides; of their times the median counts."""


class Backend:
    """How students that wait for their next step take it.

    loop: one after the other. streams: each in a stream of its own, which on a CPU is the same. vmap: together.

    Args:
        name: one of `BACKENDS`; auto takes some steps in each way and decides for the fastest one.

    Attributes:
        chosen: the way they take; None while auto has not decided.
    """

    def __init__(self, name: str) -> None:
        self.chosen = None if name == "auto" else name
        self._way = ""  # of this round
        self._seconds: dict[str, list[float]] = {}
        self._streams = Streams()
        self._kinds: WeakKeyDictionary[Distiller, Hashable] = WeakKeyDictionary()
        self._owners: WeakKeyDictionary[Distiller, Stack] = WeakKeyDictionary()
        self._unfit: set[Hashable] = {None}

    @contextmanager
    def round(self, modules: Sequence[Distiller], batches: Sequence[Batch]) -> Iterator[None]:
        """While the block lasts, each of the students takes its step, each in a `turn`.

        Args:
            modules: which have not begun it.
            batches: of each; the same object where they are the same.
        """
        if not self._seconds:
            ways = [way for way in BACKENDS[1:] if way != "streams" or modules[0].device.type == "cuda"]
            self._seconds = {way: [] for way in ways}
        self._way = self.chosen or min(self._seconds, key=lambda way: len(self._seconds[way]) > _ROUNDS)
        started = time.perf_counter()
        if self._way == "vmap":
            self._step(modules, batches)
        elif self._way == "streams":
            for module, batch in zip(modules, batches, strict=True):
                if module.cache is None:
                    module.teacher_on_train(batch)  # what several of them look at is to be there before their turns
        yield
        if self._way == "streams":
            self._streams.join(modules)
        if self.chosen is None:
            torch.get_device_module(modules[0].device).synchronize()
            self._seconds[self._way].append(time.perf_counter() - started)
            if all(len(seconds) > _ROUNDS for seconds in self._seconds.values()):
                self._decide(len(modules))

    def turn(self, module: Distiller) -> AbstractContextManager[None]:
        """While the block lasts, a student of the round takes its step."""
        return self._streams.turn(module) if self._way == "streams" else nullcontext()

    def join(self, module: Distiller) -> None:
        """A student has done more than its step, and others may look at what it made."""
        if self._way == "streams":
            self._streams.join([module])

    def _decide(self, students: int) -> None:
        took = {way: 1e3 * statistics.median(seconds[1:]) for way, seconds in self._seconds.items()}  # less the first
        self.chosen = min(took, key=lambda way: took[way])
        found = ", ".join(f"{milliseconds:.1f} ms ({way})" for way, milliseconds in took.items())
        log.info("fused: %s, a step of %d students takes %s", self.chosen, students, found)

    def _step(self, modules: Sequence[Distiller], batches: Sequence[Batch]) -> None:
        alike: dict[tuple[Hashable, tuple[bool, ...]], dict[Distiller, Batch]] = {}
        for module, batch in zip(modules, batches, strict=True):
            if module not in self._kinds:
                self._kinds[module] = kind(module)
            if self._kinds[module] not in self._unfit and not module.measures_gradients():
                counted = tuple(weight > 0 for weight in module.logit_weights().values())
                alike.setdefault((self._kinds[module], counted), {})[module] = batch
        for (found, _), members in alike.items():
            if len(members) == 1:
                continue
            try:
                with warnings.catch_warnings():
                    # What vmap has no rule for it does one by one: that costs time, which auto measures.
                    # https://github.com/pytorch/pytorch/blob/main/aten/src/ATen/functorch/BatchedFallback.cpp
                    warnings.filterwarnings("ignore", message="There is a performance drop because")
                    self._stack(tuple(members)).step(list(members.values()))
            except Exception as error:  # whatever vmap does not support
                self._unfit.add(found)
                log.info("fused: not vmap, it failed: %s", str(error).splitlines()[0] or type(error).__name__)

    def _stack(self, modules: tuple[Distiller, ...]) -> "Stack":
        stack = self._owners.get(modules[0])
        # One of another composition may hold what the parameters were before some of them went elsewhere.
        if stack is None or stack.modules != modules or any(self._owners.get(m) is not stack for m in modules):
            stack = Stack(modules)
            self._owners.update(dict.fromkeys(modules, stack))
        return stack


class Stack:
    """Students that are stepped together.

    Args:
        modules: of one `kind`, with the same terms of weight 0; their parameters and buffers become views.
    """

    def __init__(self, modules: tuple[Distiller, ...]) -> None:
        self.modules = modules
        students = [module.student for module in modules]
        self._base = copy.deepcopy(students[0]).to("meta")
        self._loss = copy.deepcopy(modules[0].soft_loss)
        self._parameters = {
            name: _stacked([dict(student.named_parameters())[name] for student in students])
            for name, _ in students[0].named_parameters()
        }
        self._buffers = {
            name: _stacked([dict(student.named_buffers())[name] for student in students])
            for name, _ in students[0].named_buffers()
        }
        for name, parameter in students[0].named_parameters():
            self._parameters[name].requires_grad_(parameter.requires_grad)
        self._trained = [stack for stack in self._parameters.values() if stack.requires_grad]
        self._tried = False

    def step(self, batches: Sequence[Batch]) -> None:
        """Compute the next step of each student and leave it in `Distiller.ahead`.

        Args:
            batches: of each; the same object where they are the same.

        Raises:
            RuntimeError: an operator cannot be batched, or draws random numbers.
        """
        if not self._tried:  # what cannot be done is found out before batch norm's statistics have moved
            self._run(batches, {name: buffer.clone() for name, buffer in self._buffers.items()})
            self._tried = True
        totals, logits, values = self._run(batches, self._buffers)
        gradients = torch.autograd.grad(totals.sum(), self._trained)
        # Laid out like the parameters: a fused optimizer takes that for granted.
        laid_out = [torch.empty_like(stack).copy_(own) for stack, own in zip(self._trained, gradients, strict=True)]
        of_each = zip(*(gradient.unbind() for gradient in laid_out), strict=True)
        rows = zip(self.modules, logits.detach().unbind(), values.detach().unbind(), of_each, strict=True)
        for module, own, parts, slopes in rows:
            weights = module.logit_weights()
            terms = dict(zip(weights, zip(weights.values(), parts.unbind(), strict=True), strict=True))
            module.ahead = PrecomputedStep(own, terms, slopes)

    def _run(self, batches: Sequence[Batch], buffers: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Of each student the loss (K,), the logits (K, N, C) and the values of its terms (K, terms)."""
        modules = self.modules
        device = batches[0].inputs.device
        inputs, inputs_dim = _together([batch.inputs for batch in batches])
        target, target_dim = _together([batch.target for batch in batches])
        known: dict[tuple[int, float], Outputs | None] = {}
        teacher_logits: Tensor | None = None
        teacher_dim: int | None = None
        if self._loss is not None:
            for module, batch in zip(modules, batches, strict=True):
                key = id(batch), module.temperature
                if key not in known:
                    known[key] = module.teacher_on_train(batch)
            found = [known[id(batch), module.temperature] for module, batch in zip(modules, batches, strict=True)]
            if logits := [outputs.logits for outputs in found if outputs is not None]:
                teacher_logits, teacher_dim = _together(logits)
        weights = torch.tensor([list(module.logit_weights().values()) for module in modules], device=device)
        counted = [weight > 0 for weight in modules[0].logit_weights().values()]  # of all: see `kind`
        temperatures = torch.tensor([module.temperature for module in modules], device=device)

        def one(
            parameters: dict[str, Tensor],
            buffers: dict[str, Tensor],
            weight: Tensor,
            temperature: Tensor,
            inputs: Tensor,
            target: Tensor,
            teacher_logits: Tensor | None,
        ) -> tuple[Tensor, Tensor, Tensor]:
            logits = functional_call(self._base, (parameters, buffers), (inputs,))
            student, batch = Outputs(logits), Batch(inputs, target)
            values = [modules[0].task.hard(student, batch)]
            if self._loss is not None:
                self._loss.temperature = temperature
                teacher = Outputs(logits.detach() if teacher_logits is None else teacher_logits)
                values.append(modules[0].task.soft(self._loss, student, teacher, batch))
            total = sum(w * value for w, value, counts in zip(weight.unbind(), values, counted, strict=True) if counts)
            assert isinstance(total, Tensor)
            return total, logits, torch.stack(values)

        dims = (0, 0, 0, 0, inputs_dim, target_dim, teacher_dim)
        with modules[0].trainer.precision_plugin.train_step_context():
            stacked = self._parameters, buffers, weights, temperatures
            return vmap(one, in_dims=dims)(*stacked, inputs, target, teacher_logits)


def kind(module: Distiller) -> Hashable | None:
    """What must be the same of students that are stepped together; None for one that cannot be."""
    loss = module.soft_loss
    if type(module) is not Distiller or len(module.feature_losses):
        return None
    # Lightning scales the loss of a step to add gradients up, or for float16; these gradients are not made from it.
    if module.trainer.accumulate_grad_batches != 1 or getattr(module.trainer.precision_plugin, "scaler", None):
        return None
    settings = _settings(loss) if loss is not None else ()
    if settings is None or (loss is not None and list(loss.children())):
        return None
    shapes = [(name, tuple(t.shape), t.dtype) for name, t in module.student.state_dict().items()]
    return repr(module.student), tuple(shapes), type(loss), settings, module.task


def _settings(loss: nn.Module) -> tuple[tuple[str, object], ...] | None:
    """What a loss is, but for its temperature; None when it holds more than plain values."""
    own = {name: value for name, value in vars(loss).items() if name not in vars(nn.Module()) and name != "temperature"}
    is_plain = all(isinstance(value, int | float | str | type(None)) for value in own.values())
    return tuple(own.items()) if is_plain and not loss.state_dict() and not hasattr(loss, "on_epoch") else None


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    """A stack of tensors, of which they become views; with strides as before, which an optimizer's state has too."""
    first = tensors[0]
    stack = first.new_empty_strided((len(tensors), *first.shape), (first.numel(), *first.stride()))
    for tensor, own in zip(tensors, stack.unbind(), strict=True):
        own.copy_(tensor.detach())
        tensor.data = own
    return stack


def _together(tensors: Sequence[Tensor]) -> tuple[Tensor, int | None]:
    """One tensor for all students, and its dimension for vmap."""
    if all(tensor is tensors[0] for tensor in tensors):
        return tensors[0], None
    return torch.stack(list(tensors)), 0
