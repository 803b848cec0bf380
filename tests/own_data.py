"""The smallest data of a user's own, for tests that walk over all options of conf/dataset."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CLASSES = ("cat", "dog")


def images(folder: Path, n: int = 10) -> list[Path]:
    """A flat folder of class folders."""
    paths = [folder / "images" / name / f"{i}.png" for name in CLASSES for i in range(n)]
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 8), (100 * (number // n), 20 * (number % n) % 256, 250)).save(path)
    return paths


def image_folder(folder: Path) -> list[str]:
    images(folder)
    return [f"dataset.source.root={folder}/images"]


def table(folder: Path) -> list[str]:
    with (folder / "my.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("x", "label"), *((i, CLASSES[i % 2]) for i in range(20))])
    return [f"dataset.source.file={folder}/my.csv", "dataset.source.label=label"]


def texts(folder: Path, n: int = 80) -> list[str]:
    """Questions for a place or a number, with quotes, umlauts and words as labels."""
    places, things = ("Köln", "Rome", 'the "old" town', "Kairo, Egypt"), ("days", "miles", "people", "words")
    rows = [
        (f"Where {'on earth ' * (i % 3)}is {places[i % 4]} ?", "Ort") if i % 2 else
        (f"How many {things[i // 2 % 4]} {'and more ' * (i % 5)}are there ?", "Zahl")
        for i in range(n)
    ]  # fmt: skip
    with (folder / "fragen.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("Frage", "Art"), *rows])
    return [f"dataset.source.file={folder}/fragen.csv", "dataset.source.label=Art", "dataset.source.text=Frage"]


def arrays(folder: Path) -> list[str]:
    np.savez(folder / "my.npz", x=np.arange(20.0)[:, None], y=np.arange(20) % 2)
    return [f"dataset.source.file={folder}/my.npz"]


def image_csv(folder: Path) -> list[str]:
    paths = images(folder)
    with (folder / "labels.csv").open("w", newline="") as file:
        rows = ((path.relative_to(folder), path.parent.name) for path in paths)
        csv.writer(file).writerows([("file", "kind"), *rows])
    return [f"dataset.source.file={folder}/labels.csv", "dataset.source.image=file", "dataset.source.label=kind"]


def image_masks(folder: Path) -> list[str]:
    for path in images(folder):
        mask = folder / "masks" / path.relative_to(folder / "images")
        mask.parent.mkdir(parents=True, exist_ok=True)
        values = np.zeros((8, 12), np.uint8)
        values[2:5, 3:9] = 255
        Image.fromarray(values).save(mask)
    return [f"dataset.source.root={folder}", "dataset.source.classes={background: 0, vessel: 255}"]


def huggingface(folder: Path) -> list[str]:
    """A table of the library's in two splits, as save_to_disk writes it."""
    library = pytest.importorskip("datasets", reason="pip install 'kdexp[huggingface]'")
    library.disable_progress_bars()
    features = library.Features({"x": library.Value("float32"), "kind": library.ClassLabel(names=list(CLASSES))})
    rows = {"x": [float(i) for i in range(20)], "kind": [i % 2 for i in range(20)]}
    split = library.Dataset.from_dict(rows, features=features)
    library.DatasetDict({"train": split, "test": split.select(range(6))}).save_to_disk(str(folder / "hf"))
    return [f"dataset.source.folder={folder}/hf", "dataset.source.label=kind"]


def kitti_road(folder: Path) -> None:
    """Images of a road as KITTI's are laid out, with what is not judged at the top."""
    random = np.random.default_rng(0)
    for kind in ("um", "umm", "uu"):
        for i in range(5):
            mask = np.full((40, 60, 3), (255, 0, 0), np.uint8)
            mask[20:, 20:45] = 255, 0, 255
            mask[:2] = 0
            image = random.integers(0, 255, mask.shape, np.uint8)
            for name, pixels in (("image_2", image), ("gt_image_2", mask)):
                file = f"{kind}_road_00000{i}.png" if name == "gt_image_2" else f"{kind}_00000{i}.png"
                (folder / "training" / name).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(folder / "training" / name / file)


EXAMPLES: dict[str, Callable[[Path], list[str]]] = {
    "image_folder": image_folder, "image_csv": image_csv, "csv": table, "arrays": arrays, "image_masks": image_masks,
    "huggingface": huggingface,
}  # fmt: skip
"""Option of conf/dataset -> what writes such data into a folder and gives the settings that name them."""


def example(override: str, folder: Path) -> list[str]:
    """The settings that an override needs besides; none where it chooses no data of a user's own."""
    group, _, name = override.partition("=")
    return EXAMPLES[name](folder) if group == "dataset" and name in EXAMPLES else []
