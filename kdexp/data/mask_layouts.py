"""Where known sets of road scenes keep their images and masks, and what their masks mean."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class MaskLayout:
    """How a data set is laid out.

    Attributes:
        parts: train, val and test, as far as they have masks -> the folders of its images and of its masks.
        mask_of: the stem of an image's file name -> that of its mask.
        classes: name of a class -> its ids or colours; see `kdexp.data.image_masks.load`.
        ignore: the ids or colours of what has no label.
    """

    parts: Mapping[str, tuple[str, str]]
    mask_of: Callable[[str], str]
    classes: Mapping[str, Any]
    ignore: Sequence[Any]


_CITYSCAPES_IDS = {
    "road": 7,
    "sidewalk": 8,
    "building": 11,
    "wall": 12,
    "fence": 13,
    "pole": 17,
    "traffic light": 19,
    "traffic sign": 20,
    "vegetation": 21,
    "terrain": 22,
    "sky": 23,
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
}

_CAMVID_COLOURS = {
    "sky": [[128, 128, 128]],
    "building": [[0, 128, 64], [128, 0, 0], [64, 192, 0], [64, 0, 64], [192, 0, 128]],
    "pole": [[192, 192, 128], [0, 0, 64]],
    "road": [[128, 64, 128], [128, 0, 192], [192, 0, 64]],
    "pavement": [[0, 0, 192], [64, 192, 128], [128, 128, 192]],
    "tree": [[128, 128, 0], [192, 192, 0]],
    "sign": [[192, 128, 128], [128, 128, 64], [0, 64, 64]],
    "fence": [[64, 64, 128]],
    "car": [[64, 0, 128], [64, 128, 192], [192, 128, 192], [192, 64, 128], [128, 64, 64]],
    "pedestrian": [[64, 64, 0], [192, 128, 64], [64, 0, 192], [64, 128, 64]],
    "bicyclist": [[0, 128, 192], [192, 0, 192]],
}

LAYOUTS = {
    # Cordts et al. 2016, arXiv:1604.01685: leftImg8bit and gtFine, the labelIds. The 34 ids become the 19 classes that
    # are trained on, in the order of the trainIds. The masks of the test part are withheld.
    "cityscapes": MaskLayout(
        parts={part: (f"leftImg8bit/{part}", f"gtFine/{part}") for part in ("train", "val")},
        mask_of=lambda stem: f"{stem.removesuffix('leftImg8bit')}gtFine_labelIds",
        classes=_CITYSCAPES_IDS,
        ignore=[number for number in range(34) if number not in _CITYSCAPES_IDS.values()],
    ),
    # Brostow et al. 2009 in 11 classes, as the authors of SegNet (arXiv:1511.00561) gave it out, 367 / 101 / 233:
    # train, trainannot and so on, the masks in ids.
    "camvid": MaskLayout(
        parts={part: (part, f"{part}annot") for part in ("train", "val", "test")},
        mask_of=str,
        classes={name: number for number, name in enumerate(_CAMVID_COLOURS)},
        ignore=[len(_CAMVID_COLOURS)],
    ),
    # The same with the original masks, in 32 colours: train, train_labels and so on. SegNet's 11 classes join them.
    "camvid_colours": MaskLayout(
        parts={part: (part, f"{part}_labels") for part in ("train", "val", "test")},
        mask_of=lambda stem: f"{stem}_L",
        classes=_CAMVID_COLOURS,
        ignore=[[0, 0, 0]],
    ),
    # Fritsch et al. 2013, the road benchmark of KITTI, 289 images: training/image_2 and the masks of the road (not of
    # the lane) in training/gt_image_2. Black is what is not judged, as another carriageway. Those of testing/ are
    # withheld.
    "kitti_road": MaskLayout(
        parts={"train": ("training/image_2", "training/gt_image_2")},
        mask_of=lambda stem: stem.replace("_", "_road_", 1),
        classes={"background": [255, 0, 0], "road": [255, 0, 255]},
        ignore=[[0, 0, 0]],
    ),
}
