"""What kdexp assumes of Lightning's private code, looked at before a part of a Trainer is replaced.

Where Lightning has changed, its own part stays, and one line says so: the numbers are the same.
"""

import ast
import inspect
import logging
import re
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from itertools import zip_longest
from operator import attrgetter
from pkgutil import resolve_name

import pytorch_lightning as pl

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Assumptions:
    """What a replacement assumes. What is not part of the trainer is named ``module:Class.function``.

    Attributes:
        replacement: what is in the place of Lightning's own, and what happens without it, for the message.
        classes: attribute path of the trainer -> the class of what is there.
        signatures: class or function -> names of its parameters.
        attributes: attribute path of the trainer, or a class that takes no arguments -> attributes of what is there.
        calls: function -> what it calls, in the order of its source; hooks as ``WHOSE.NAME``.
    """

    replacement: str
    classes: Mapping[str, str] = field(default_factory=dict)
    signatures: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, str] = field(default_factory=dict)
    calls: Mapping[str, str] = field(default_factory=dict)

    def broken(self, trainer: pl.Trainer) -> list[str]:
        """The assumptions that the installed Lightning breaks, a sentence each."""
        found = []
        for path, name in self.classes.items():
            kind, expected = type(_attribute(trainer, path)), _named(name)
            if kind is not expected:
                got = "no such class" if expected is None else f"{kind.__module__}:{kind.__qualname__}"
                found.append(f"class: trainer.{path} must be of {name}, got {got}")
        for name, parameters in self.signatures.items():
            function = _named(name)
            now = "nothing" if function is None else f"({' '.join(inspect.signature(function).parameters)})"
            if now != f"({parameters})":
                found.append(f"signature: {name} must take ({parameters}), got {now}")
        for owner, names in self.attributes.items():
            made = (_named(owner) or object)() if ":" in owner else _attribute(trainer, owner)
            missing = [name for name in names.split() if _attribute(made, name) is _MISSING]
            found += [f"attribute: {owner} must have {name}, got nothing" for name in missing]
        for name, order in self.calls.items():
            pairs = zip_longest(order.split(), _calls(_named(name)), fillvalue="nothing")
            changed = [pair for pair in pairs if pair[0] != pair[1]]
            if changed:
                found.append(f"order of calls: {name} must call {changed[0][0]}, got {changed[0][1]} there")
        return found

    def hold(self, trainer: pl.Trainer) -> bool:
        """Whether the replacement can be used; rank 0 says why it cannot, once in a process."""
        found = self.broken(trainer)
        if found and trainer.is_global_zero:
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            _warn_once(
                f"warning: Lightning {version('pytorch-lightning')} has changed: {self.replacement}: {found[0]}{more}"
            )
        return not found


_MISSING = object()


def _attribute(owner: object, path: str) -> object:
    try:
        return attrgetter(path)(owner)
    except AttributeError:
        return _MISSING


def _named(name: str) -> Callable[..., object] | None:
    """A class or function of Lightning's; None where there is none of this name."""
    try:
        found: Callable[..., object] = resolve_name(name)
    except (ImportError, AttributeError):
        return None
    return found


@cache
def _calls(function: Callable[..., object] | None) -> tuple[str, ...]:
    """Names of what a function calls, in the order of its source; none where that cannot be read."""
    if function is None:
        return ()
    try:
        source = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError):
        return ()
    calls = [node for node in ast.walk(source) if isinstance(node, ast.Call)]
    calls.sort(key=lambda node: (node.end_lineno, node.end_col_offset))
    return tuple(map(_called, calls))


def _called(node: ast.Call) -> str:
    name = ast.unparse(node.func).rpartition(".")[2]
    kind = re.fullmatch(r"_call_(\w+?)_hooks?", name)
    words = [word.value for word in node.args if isinstance(word, ast.Constant) and isinstance(word.value, str)]
    return f"{kind[1]}.{words[0]}" if kind and words else name


@cache
def _warn_once(message: str) -> None:
    log.warning(message)


_LOOP = "pytorch_lightning.loops.training_epoch_loop:_TrainingEpochLoop"
_OPTIMIZATION = "pytorch_lightning.loops.optimization.automatic:_AutomaticOptimization"
_PRECISION = "pytorch_lightning.plugins.precision:Precision"
_STRATEGY = "pytorch_lightning.strategies:Strategy"
_COUNTED = "fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer"

FAST_EPOCH_LOOP = Assumptions(
    "Lightning's own loop trains, with the same numbers, instead of kdexp's faster one",
    classes={
        "fit_loop.epoch_loop": _LOOP,
        "fit_loop.epoch_loop.automatic_optimization": _OPTIMIZATION,
    },
    signatures={
        _LOOP: "trainer min_steps max_steps",
        f"{_LOOP}.advance": "self data_fetcher",
        f"{_LOOP}.on_advance_end": "self data_fetcher",
        f"{_LOOP}._broadcast_sigterm_tensor": "self",
        f"{_LOOP}._num_ready_batches_reached": "self",
    },
    attributes={
        "precision_plugin": "train_step_context",
        "fit_loop.epoch_loop": "min_steps max_steps restarting batch_idx _batches_that_stepped",
        "fit_loop.epoch_loop.batch_progress": (
            "is_last_batch increment_ready increment_started increment_processed increment_completed"
        ),
        "fit_loop.epoch_loop.scheduler_progress": "increment_ready increment_completed",
        f"{_COUNTED}.step": "increment_ready increment_completed",
        f"{_COUNTED}.zero_grad": "increment_ready increment_started increment_completed",
        "pytorch_lightning.loops.fetchers:_PrefetchDataFetcher": "done",
    },
    calls={
        f"{_LOOP}.run": "reset on_run_start advance on_advance_end on_iteration_done",
        f"{_LOOP}.advance": (
            "_should_check_val_fx increment_progress_to_evaluation_end is_available is_initialized"
            " _broadcast_sigterm_tensor isinstance next next convert_input _on_before_batch_transfer"
            " strategy.batch_to_device increment_ready on_batch_start warn callback.on_train_batch_start"
            " lightning_module.on_train_batch_start strategy.on_train_batch_start increment_by increment_started"
            " OrderedDict _build_kwargs OrderedDict profile run run increment_processed update_lr_schedulers"
            " _num_ready_batches_reached update_lr_schedulers callback.on_train_batch_end"
            " lightning_module.on_train_batch_end on_batch_end increment_completed update_train_step_metrics"
        ),
        f"{_LOOP}.on_advance_end": (
            "_should_check_val_fx _should_accumulate lightning_module.on_validation_model_zero_grad run"
            " update_lr_schedulers _should_accumulate _save_loggers_on_train_batch_end"
        ),
        f"{_LOOP}._update_learning_rates": (
            "_get_monitor_value list MisconfigurationException rank_zero_warn increment_ready"
            " lightning_module.lr_scheduler_step increment_completed"
        ),
        f"{_OPTIMIZATION}.run": (
            "_make_closure _should_accumulate _block_parallel_sync_behavior closure _optimizer_step consume_result"
            " asdict"
        ),
        f"{_OPTIMIZATION}._optimizer_step": (
            "_should_accumulate increment_ready lightning_module.optimizer_step increment_completed"
        ),
        f"{_OPTIMIZATION}._on_before_zero_grad": (
            "increment_ready callback.on_before_zero_grad lightning_module.on_before_zero_grad increment_started"
        ),
        f"{_OPTIMIZATION}._optimizer_zero_grad": "lightning_module.optimizer_zero_grad increment_completed",
        f"{_OPTIMIZATION}._training_step": (
            "values strategy.training_step post_training_step RuntimeError from_training_step_output"
        ),
        "pytorch_lightning.loops.optimization.automatic:Closure.closure": (
            "enable_grad _step_fn warn _zero_grad_fn _backward_fn"
        ),
        "pytorch_lightning.core.optimizer:LightningOptimizer.step": (
            "_on_before_step callable MisconfigurationException optimizer_step _on_after_step"
        ),
        f"{_STRATEGY}.batch_to_device": "_apply_batch_transfer_handler move_data_to_device",
        "pytorch_lightning:LightningModule._apply_batch_transfer_handler": (
            "batch.transfer_batch_to_device batch.on_after_batch_transfer"
        ),
        f"{_STRATEGY}.optimizer_step": "isinstance optimizer_step",
        f"{_STRATEGY}.training_step": "train_step_context _forward_redirection training_step",
        f"{_STRATEGY}.backward": "pre_backward pre_backward backward post_backward post_backward",
        f"{_PRECISION}.optimizer_step": "partial step",
        f"{_PRECISION}._wrap_closure": "closure _after_closure",
        f"{_PRECISION}._after_closure": (
            "callback.on_before_optimizer_step lightning_module.on_before_optimizer_step _clip_gradients"
        ),
        "pytorch_lightning.plugins.precision:MixedPrecision.optimizer_step": (
            "super optimizer_step isinstance MisconfigurationException closure _optimizer_handles_unscaling unscale_"
            " _after_closure step update"
        ),
    },
)
"""Of `kdexp.training.fast_epoch_loop`: what a step does, and in which order, is spread over these functions."""

_CONNECTOR = "pytorch_lightning.trainer.connectors.signal_connector:_SignalConnector"
_LAUNCHER = "pytorch_lightning.strategies.launchers:_SubprocessScriptLauncher"

CHILD_RANKS = Assumptions(
    "Lightning's own handling of signals and ranks is used, which may wait for a rank that is gone",
    classes={"_signal_connector": _CONNECTOR},
    signatures={
        _CONNECTOR: "trainer",
        f"{_CONNECTOR}.register_signal_handlers": "self",
        _LAUNCHER: "cluster_environment num_processes num_nodes",
        f"{_LAUNCHER}.launch": "self function args trainer kwargs",
        f"{_LAUNCHER}._call_children_scripts": "self",
        "lightning_fabric.utilities.distributed:_set_num_threads_if_needed": "num_processes",
    },
    attributes={"strategy": "launcher _launcher"},
    calls={
        f"{_LAUNCHER}.launch": (
            "validate_settings _call_children_scripts _launch_process_observer _set_num_threads_if_needed function"
        )
    },
)
"""Of `kdexp.training.child_ranks`."""


def use_fast_epoch_loop(trainer: pl.Trainer) -> None:
    """Give a Trainer kdexp's loop over training batches, if Lightning is as that assumes."""
    if FAST_EPOCH_LOOP.hold(trainer):
        from kdexp.training.fast_epoch_loop import Steps  # here: it imports what may be gone

        trainer.fit_loop.epoch_loop = Steps(trainer)


def use_child_ranks(trainer: pl.Trainer) -> None:
    """Let kdexp handle a Trainer's signals and ranks, if Lightning is as that assumes."""
    if CHILD_RANKS.hold(trainer):
        from kdexp.training.child_ranks import take_over  # here: likewise

        take_over(trainer)
