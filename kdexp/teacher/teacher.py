"""The frozen teacher: always in eval, never part of what is trained or saved."""

import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial

import torch
from torch import Tensor, nn

from kdexp.contracts import Batch, Kind, Outputs, Split, SplitName
from kdexp.features import Reader
from kdexp.teacher.saved_outputs import SavedOutputs
from kdexp.torch_threads import torch_threads

Statistics = tuple[Sequence[float], Sequence[float]]
"""Mean and standard deviation per channel (or one for all), of inputs scaled to [0, 1]."""
BLOCK = 32
"""Samples of one forward pass of a teacher on a CPU.

The last bits of what a network says of a sample depend on the size of the batch and on the number of threads, which
decide the paths through the matrix kernels. So that an output is a function of the sample alone (and cached outputs are
to the bit those that would be given now), every pass is over exactly so many samples, some of them zeros if need be, by
a single thread; the threads share the blocks out among themselves, which is also faster than to share every operator.
A multiple of 32 has no rest that vectorised kernels would do in another way than the other rows.
"""
_QUICK_SECONDS = 3e-4
"""A block that takes less is sooner done than handed to another thread."""
PRECISIONS = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""Names of `Trainer`'s precisions -> what autocast computes in."""


class Teacher:
    """One frozen network, or several whose probabilities are averaged.

    It is deliberately not an `nn.Module`: a LightningModule that holds it does not register it, so that it enters no
    optimizer, no checkpoint and no DDP bucket, and no ``train()`` call reaches it.

    Args:
        networks: each maps (N, ...) float inputs to (N, C) logits, or is a file of outputs (`SavedOutputs`), which are
            those of samples of a data set. They are frozen and put in eval mode here.
        kind: what the logits mean; decides how several networks are averaged.
        data: statistics that normalised the inputs which `__call__` will get.
        expects: for each network the statistics that it was trained with; by default the same.
        precision: one of `PRECISIONS`; None: that of the autocast in which the teacher is run.
        dense: whether logits are (N, C, ...). On a CPU a forward pass is then over one sample, not over `BLOCK`.

    Attributes:
        networks: the frozen networks.
        paths: of the features that are read.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        *,
        kind: Kind = "multiclass",
        data: Statistics | None = None,
        expects: Sequence[Statistics] | None = None,
        precision: str | None = None,
        dense: bool = False,
    ) -> None:
        self.networks = [network.eval().requires_grad_(False) for network in networks]
        self._readers = [Reader(network) for network in self.networks]
        self._kind, self._precision, self._block = kind, precision, 1 if dense else BLOCK
        self.paths: tuple[str, ...] = ()
        self._seconds = math.inf  # of a block on a CPU, the least so far
        if data is None or expects is None:
            self._conversions = [_Affine(1.0, 0.0) for _ in networks]
        else:
            self._conversions = [_conversion(data, own) for own in expects]

    def read(self, paths: Sequence[str]) -> None:
        """From now on give the features at these paths as well (see `kdexp.features`).

        Raises:
            ValueError: several networks, which have no features in common.
        """
        if paths and len(self.networks) > 1:
            raise ValueError(f"feature_loss needs a teacher of one network, got {len(self.networks)}")
        for reader in self._readers:
            reader.close()
        self.paths = tuple(dict.fromkeys(paths))
        self._readers = [Reader(network, paths) for network in self.networks]

    def to(self, device: torch.device | str) -> "Teacher":
        """Move all networks; Lightning does not, because it does not see them."""
        for network in self.networks:
            network.to(device)
        return self

    def __call__(self, inputs: Tensor, temperature: float = 1.0) -> Outputs:
        """The teacher's outputs for a normalised batch.

        Args:
            inputs: (N, ...) float, normalised with the data set's statistics.
            temperature: T at which the caller softens the logits; see `combine`.

        Returns:
            Outputs with logits (N, C, ...) float32 and the features that `read` names, without a gradient.
        """
        return self.combine(self.member_outputs(inputs), temperature)

    def member_outputs(self, inputs: Tensor) -> list[Outputs]:
        """What each of the networks says; see `__call__`.

        On a CPU an output does not depend on the other samples of the batch, its size or the number of threads: see
        `BLOCK`.

        Raises:
            ValueError: one of them is a file of outputs.
        """
        if not self.takes_any_inputs:
            raise ValueError("teacher must be a network where inputs are not the data set's own, got saved outputs")
        return self._computed(inputs)

    def _computed(self, inputs: Tensor) -> list[Outputs]:
        """What each of those says that are networks."""
        if inputs.device.type != "cpu":
            return self._forward(inputs, self._autocast(inputs.device.type))
        autocast = self._autocast("cpu")  # a property of the calling thread
        blocks = list(torch.split(inputs, self._block))
        missing = len(blocks) * self._block - len(inputs)
        if missing:
            blocks[-1] = torch.cat([blocks[-1], blocks[-1].new_zeros(missing, *inputs.shape[1:])])
        run = partial(self._forward_and_time, autocast=autocast)
        threads = torch.get_num_threads()
        if threads > 1 and self._seconds > _QUICK_SECONDS:
            outputs = list(_single_threads(threads, os.getpid()).map(run, blocks))
        else:
            with torch_threads(1):
                outputs = list(map(run, blocks))
        return [_joined(parts, len(inputs)) for parts in zip(*outputs, strict=True)]

    def member_outputs_of(self, split: SplitName, batch: Batch) -> list[Outputs]:
        """What each says of samples of the data set, also where it is a file of outputs.

        Args:
            split: where the samples are from.
            batch: normalised with the data set's statistics, with the samples' ids.
        """
        if self.takes_any_inputs:
            return self.member_outputs(batch.inputs)
        index, computed = batch.known_index("saved outputs of the teacher"), iter(self._computed(batch.inputs))
        return [
            Outputs(network.of(split, index)) if isinstance(network, SavedOutputs) else next(computed)
            for network in self.networks
        ]

    def replaying(self, split: SplitName, batches: Iterable[Batch]) -> Callable[[Tensor], Outputs]:
        """What gives the outputs for the inputs of these batches, in their order, where it is given no ids."""
        if self.takes_any_inputs:
            return self
        each = (self.combine(self.member_outputs_of(split, batch)) for batch in batches)
        return lambda inputs: next(each)

    @property
    def takes_any_inputs(self) -> bool:
        """Whether all of it are networks: none is a file with the outputs of known samples."""
        return not any(isinstance(network, SavedOutputs) for network in self.networks)

    def knows(self, name: SplitName, split: Split) -> bool:
        """Whether there are outputs of all samples of a split."""
        saved = (network for network in self.networks if isinstance(network, SavedOutputs))
        return all(network.missing(name, split) == 0 for network in saved)

    def _forward_and_time(self, inputs: Tensor, autocast: Callable[[], torch.autocast]) -> list[Outputs]:
        started = time.perf_counter()
        outputs = self._forward(inputs, autocast)
        self._seconds = min(self._seconds, time.perf_counter() - started)
        return outputs

    @torch.no_grad()
    def _forward(self, inputs: Tensor, autocast: Callable[[], torch.autocast]) -> list[Outputs]:
        with autocast():
            found = [
                read(convert(inputs))
                for network, read, convert in zip(self.networks, self._readers, self._conversions, strict=True)
                if not isinstance(network, SavedOutputs)
            ]
        return [Outputs(outputs.logits.float(), outputs.features) for outputs in found]

    def _autocast(self, device: str) -> Callable[[], torch.autocast]:
        if self._precision is not None:
            wanted = PRECISIONS[self._precision]
            return partial(torch.autocast, device, dtype=wanted, enabled=wanted is not None)
        dtype = torch.get_autocast_dtype(device)
        return partial(torch.autocast, device, dtype=dtype, enabled=torch.is_autocast_enabled(device))

    def network_inputs(self, inputs: Tensor) -> list[Tensor]:
        """What each network gets for (N, ...) inputs: normalized with the statistics that it was trained with."""
        return [convert(inputs) for convert in self._conversions]

    def differentiable(self, inputs: Tensor, temperature: float = 1.0) -> Tensor:
        """The logits of `__call__`, with a gradient with respect to the inputs: for who attacks the teacher."""
        members = [read(convert(inputs)) for read, convert in zip(self._readers, self._conversions, strict=True)]
        return self.combine(members, temperature).logits

    def combine(self, members: Sequence[Outputs], temperature: float = 1.0) -> Outputs:
        """The outputs of several networks as one.

        Args:
            members: the outputs of each.
            temperature: T at which the caller softens the logits. It matters for several teachers only: their mean is
                taken over the probabilities at T, and the logits returned are those whose softmax (sigmoid) at T is
                that mean. Averaging logits instead would be another, sharper distribution (Hinton et al. 2015, sec. 1
                average the predictions).
        """
        if len(members) == 1:
            return members[0]
        soft = torch.stack([member.logits for member in members]).float() / temperature
        if self._kind == "multiclass":
            mean = soft.log_softmax(2).logsumexp(0) - math.log(len(members))
        else:
            # logit(mean of sigmoids), from the logarithms of both outcomes, so that certainty stays finite
            yes = nn.functional.logsigmoid(soft).logsumexp(0)
            no = nn.functional.logsigmoid(-soft).logsumexp(0)
            mean = yes - no
        return Outputs(mean * temperature)


@cache
def _single_threads(count: int, process: int) -> ThreadPoolExecutor:
    """So many threads, each of which computes its operators alone; a forked process has none of its parent's."""

    def alone() -> None:
        torch.get_num_threads()  # before its first use a thread's number is set to everybody's
        torch.set_num_threads(1)

    pool = ThreadPoolExecutor(count, "teacher", initializer=alone)
    # The initialisers run now, because each sets what later threads start with: it is put right here.
    start = threading.Barrier(count)
    list(pool.map(lambda _: start.wait(), range(count)))
    torch.set_num_threads(count)
    return pool


def _joined(parts: Sequence[Outputs], length: int) -> Outputs:
    """The blocks' outputs as one, without the samples that filled the last block up; features as a cache has them."""
    features = {
        # With channels last a sum over pixels would have another order than that over kept features.
        path: torch.cat([part.features[path] for part in parts])[:length].contiguous()
        for path in parts[0].features
    }
    return Outputs(torch.cat([part.logits for part in parts])[:length], features)


class _Affine:
    """x -> scale * x + shift, with per-channel tensors made once for each device."""

    def __init__(self, scale: Tensor | float, shift: Tensor | float) -> None:
        self._scale, self._shift = scale, shift

    def __call__(self, inputs: Tensor) -> Tensor:
        if isinstance(self._scale, Tensor) and isinstance(self._shift, Tensor):
            self._scale, self._shift = self._scale.to(inputs.device), self._shift.to(inputs.device)
            shape = (-1, *[1] * (inputs.ndim - 2))  # (C, H, W) images, (F,) features
            return inputs * self._scale.view(shape) + self._shift.view(shape)
        return inputs


def _conversion(data: Statistics, expects: Statistics) -> _Affine:
    """From (x - mean) / std to (x - own mean) / own std."""
    (mean, std), (own_mean, own_std) = (map(torch.tensor, data), map(torch.tensor, expects))
    if torch.equal(mean, own_mean) and torch.equal(std, own_std):
        return _Affine(1.0, 0.0)
    return _Affine(std / own_std, (mean - own_mean) / own_std)
