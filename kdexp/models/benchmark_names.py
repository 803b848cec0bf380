"""The parameter names of the CIFAR-100 distillation benchmark, in whose checkpoints its teachers are published.

RepDistiller (https://github.com/HobbitLong/RepDistiller, models/) has the networks of Tian et al. 2020 (arXiv
1910.10699); mdistiller (https://github.com/megvii-research/mdistiller, mdistiller/models/cifar) has the same with the
same names. Each rule is a regular expression and its replacement; a family's rules are applied in their order and turn
the benchmark's names into those of kdexp's networks, or of torchvision's and timm's for its ResNet18, 34 and 50.
"""

from collections.abc import Mapping, Sequence

_SHUFFLE = [
    (r"^conv1\.", "stem.0."),
    (r"^bn1\.", "stem.1."),
    (r"^layer(\d)\.", r"stage\1."),
    (r"^linear\.", "classifier."),
]
# Of ShuffleV2: the first block of a stage has a branch of two convolutions and one of three.
_FIRST = [(1, "shortcut.0"), (2, "shortcut.1"), (3, "branch.0"), (4, "branch.1"), (5, "branch.2")]

BENCHMARK_NAMES: Mapping[str, Sequence[tuple[str, str]]] = {
    "the CIFAR-100 benchmark's resnet": [
        (r"^conv1\.", "stem.0."),
        (r"^bn1\.", "stem.1."),
        (r"^layer(\d)\.", r"stage\1."),
        (r"^fc\.", "classifier."),
        (r"(?<=\.)conv(\d)\.", r"conv\1.0."),
        (r"(?<=\.)bn(\d)\.", r"conv\1.1."),
        (r"(?<=\.)downsample\.", "shortcut."),
    ],
    "the CIFAR-100 benchmark's wrn": [
        (r"^conv1\.", "stem."),
        (r"^bn1\.", "norm.0."),
        (r"^block(\d)\.layer\.", r"stage\1."),
        (r"^fc\.", "classifier."),
        (r"(?<=\.)bn(\d)\.", r"norm\1."),
        (r"(?<=\.)convShortcut\.", "shortcut."),
    ],
    "the CIFAR-100 benchmark's vgg": [(rf"^block{number}\.", f"stage{number + 1}.") for number in reversed(range(5))],
    "the CIFAR-100 benchmark's MobileNetV2": [
        (r"^conv1\.", "stem."),
        (r"^conv2\.", "last."),
        (r"^blocks\.([01])\.", r"stage1.\1."),
        (r"^blocks\.2\.", "stage2."),
        (r"^blocks\.3\.", "stage3.0."),
        (r"^blocks\.4\.", "stage3.1."),
        (r"^blocks\.5\.", "stage4.0."),
        (r"^blocks\.6\.", "stage4.1."),
        (r"^classifier\.0\.", "classifier."),
        (r"(?<=\.)conv\.([01])\.", r"expand.\1."),
        (r"(?<=\.)conv\.3\.", "depthwise.0."),
        (r"(?<=\.)conv\.4\.", "depthwise.1."),
        (r"(?<=\.)conv\.6\.", "project.0."),
        (r"(?<=\.)conv\.7\.", "project.1."),
    ],
    "the CIFAR-100 benchmark's ShuffleV1": [
        *_SHUFFLE,
        *((rf"(?<=\.)conv{k}\.", f"branch.{place}.0.") for k, place in ((1, 0), (2, 2), (3, 3))),
        *((rf"(?<=\.)bn{k}\.", f"branch.{place}.1.") for k, place in ((1, 0), (2, 2), (3, 3))),
    ],
    "the CIFAR-100 benchmark's ShuffleV2": [
        *_SHUFFLE,
        (r"^conv2\.", "last.0."),
        (r"^bn2\.", "last.1."),
        *((rf"(\.0)\.conv{k}\.", rf"\1.{branch}.0.") for k, branch in _FIRST),
        *((rf"(\.0)\.bn{k}\.", rf"\1.{branch}.1.") for k, branch in _FIRST),
        *((rf"(?<=\.)conv{k}\.", f"branch.{k - 1}.0.") for k in (1, 2, 3)),
        *((rf"(?<=\.)bn{k}\.", f"branch.{k - 1}.1.") for k in (1, 2, 3)),
    ],
    "the CIFAR-100 benchmark's ResNet": [(r"^linear\.", "fc."), (r"(?<=\.)shortcut\.", "downsample.")],
}
"""Name of a family, for messages -> its rules."""
