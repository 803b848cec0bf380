"""The bytes of one sample's teacher outputs."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdexp.contracts import Outputs

ALL_CLASSES, TOP_K = 1000, 100
"""With more classes than the first, only so many logits as the second are kept, unless the setting says otherwise."""


class OutputCodec:
    """What is kept of one sample, and how it is turned into bytes and back.

    Args:
        members: networks of the teacher.
        shape: of one sample's logits, (C,) or dense (C, ...).
        features: path -> shape of one sample's features.
        precision: "fp16" or "fp32".
        top_k: how many of the C logits are kept of each network; None: all.

    With `top_k` a sample's largest logits are kept with their classes, and of all others two numbers: their mean m, and
    their log-mean-exp above it, d = log(mean(exp(z))) - m. All the other classes are then given the same logit,
    ``m + d / T`` at temperature T. Their probability taken together is exact at T = 1 and for T to infinity, and in
    between if the other logits are distributed normally; how it is shared out among them is lost.
    """

    def __init__(
        self,
        members: int,
        shape: Sequence[int],
        features: Mapping[str, Sequence[int]],
        precision: str,
        top_k: int | None = None,
    ) -> None:
        kind = {"fp16": "<f2", "fp32": "<f4"}[precision]
        self.shape, self.top_k = tuple(shape), top_k
        fields: list[tuple[str, str, tuple[int, ...]]] = []
        if top_k is None:
            fields.append(("logits", kind, (members, *self.shape)))
        else:
            fields += [("logits", kind, (members, top_k)), ("classes", "<i4", (members, top_k))]
            fields.append(("rest", "<f4", (members, 2)))
        self.paths = {f"feature {place}": path for place, path in enumerate(features)}
        fields += [(name, kind, tuple(features[path])) for name, path in self.paths.items()]
        self.dtype = np.dtype(fields)

    def encode(self, members: Sequence[Outputs]) -> NDArray[np.void]:
        """(N,) records of a batch's outputs.

        Raises:
            ValueError: a number that half precision cannot hold.
        """
        logits = torch.stack([member.logits for member in members], 1).float()
        records = np.empty(len(logits), self.dtype)
        kept = {name: members[0].features[path] for name, path in self.paths.items()}
        if self.top_k is None:
            kept["logits"] = logits
        else:
            top = logits.topk(self.top_k, 2)
            others = logits.scatter(2, top.indices, torch.nan).double()
            count = logits.shape[2] - self.top_k
            mean = others.nansum(2) / count
            above = others.nan_to_num(-torch.inf).logsumexp(2) - math.log(count) - mean
            kept |= {"logits": top.values, "classes": top.indices, "rest": torch.stack([mean, above], 2)}
        for name, tensor in kept.items():
            values = tensor.cpu().float().numpy() if name != "classes" else tensor.cpu().numpy()
            with np.errstate(over="ignore"):
                records[name] = values
            if name != "classes" and np.isinf(records[name]).any() and not np.isinf(values).any():
                raise ValueError(
                    "teacher.cache_precision must be fp32 for a teacher with outputs above 65504, got fp16"
                )
        return records

    def decode(self, fields: Mapping[str, Tensor], temperature: float) -> list[Outputs]:
        """The outputs of each network, from the fields of a batch's records."""
        logits = fields["logits"].float()
        if self.top_k is not None:
            mean, above = fields["rest"].unbind(2)
            rest = (mean + above / temperature).unsqueeze(2)
            logits = rest.expand(-1, -1, *self.shape).scatter(2, fields["classes"].long(), logits)
        features = {path: fields[name].float() for name, path in self.paths.items()}
        return [Outputs(member, features) for member in logits.unbind(1)]
