"""A stream of the device for each of several students, so that a GPU may compute their steps side by side."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch

from kdexp.training.distiller import Distiller


class Streams:
    """Each student's stream. What is computed there is that student's alone until it is joined.

    A CPU has none: PyTorch's own stand-in does nothing, and a student's turn is what it would be without. Nor has an
    Apple GPU, as far as PyTorch goes.
    """

    def __init__(self) -> None:
        self._own: WeakKeyDictionary[Distiller, Any] = WeakKeyDictionary()

    @contextmanager
    def turn(self, module: Distiller) -> Iterator[None]:
        """While the block lasts, work goes to the student's stream, behind all that the current one has so far."""
        device = torch.get_device_module(module.device)
        if not hasattr(device, "Stream"):
            yield
            return
        if module not in self._own:
            self._own[module] = device.Stream()
        self._own[module].wait_stream(device.current_stream())
        with device.stream(self._own[module]):
            yield

    def join(self, modules: Iterable[Distiller]) -> None:
        """Let what the current stream is given next come after all that these students' streams have so far.

        So memory that it gives back is not written to while one of them still reads it.
        """
        for module in modules:
            if module in self._own:
                torch.get_device_module(module.device).current_stream().wait_stream(self._own[module])
