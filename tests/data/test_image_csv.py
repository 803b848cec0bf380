"""Images by a csv file with their names and labels."""

import csv
import json

import pytest
from own_data import images

from kdexp.config.compose import compose
from kdexp.data.image_csv import load

HEADER = ("file", "red", "bright", "kind")


def written(folder, rows=None, name="my.csv"):
    paths = images(folder)
    rows = rows or [(p.relative_to(folder), i // 10, i % 2, ("no", "yes")[i % 2]) for i, p in enumerate(paths)]
    with (folder / name).open("w", newline="") as file:
        csv.writer(file).writerows([HEADER, *rows])
    return {"file": name, "image": "file", "data_dir": str(folder), "size": 8}


def test_several_label_columns_are_rows_of_0_and_1(tmp_path):
    source = load(label=["red", "bright"], **written(tmp_path))
    assert source.classes == ["red", "bright"]
    assert (len(source.train_inputs), len(source.test_inputs)) == (16, 4)
    seen = set()
    for inputs, target in ((source.train_inputs, source.train_target), (source.test_inputs, source.test_target)):
        for i, row in enumerate(target.tolist()):
            red, green = (int(inputs[i][channel, 0, 0]) for channel in (0, 1))
            assert row == [red / 100, green / 20 % 2]
            seen.add((red, green))
    assert len(seen) == 20


def test_one_label_column_holds_classes_by_name(tmp_path):
    source = load(label="kind", **written(tmp_path))
    assert source.classes == ["no", "yes"]
    assert source.test_target.bincount().tolist() == [2, 2]


def test_images_may_lie_in_another_folder_and_test_have_its_own_file(tmp_path):
    settings = written(tmp_path)
    written(tmp_path, [("0.png", 0, 0, "no"), ("1.png", 0, 1, "yes")], "other.csv")
    source = load(label="kind", **settings | {"file": "other.csv", "folder": "images/cat", "test": "other.csv"})
    assert source.test_target.tolist() == source.train_target.tolist() == [0, 1]


def test_the_task_is_inferred(tmp_path):
    written(tmp_path)
    settings = ["dataset=image_csv", f"dataset.source.file={tmp_path}/my.csv", "dataset.source.image=file",
                "dataset.source.label=[red,bright]", "dataset.source.size=8"]  # fmt: skip
    dataset = compose(settings, output_dir=tmp_path).dataset
    assert (dataset.kind, dataset.num_classes, list(dataset.input_shape)) == ("multilabel", 2, [3, 8, 8])


@pytest.mark.parametrize(
    ("settings", "row", "words"),
    [
        ({"image": "path"}, None, r"image must name columns of my.csv \(file, red, bright, kind\), got 'path'"),
        ({"label": ["red", "dim"]}, None, "label must name columns of my.csv .* got 'dim'"),
        ({"label": []}, None, "label must name columns of my.csv .* got none"),
        ({}, ("gone.png", 0, 0, "no"), r"image: not found: \S*/gone.png \(line 2 of my.csv\)"),
        ({}, ("my.csv", 0, 0, "no"), r"image must name whole images, got \S*/my.csv \(line 2 of my.csv\)"),
        ({}, ("", 0, 0, "no"), "image must be given in each row, got none in line 2 of my.csv"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, settings, row, words):
    rows = [row, ("images/cat/0.png", 0, 1, "yes"), ("images/cat/1.png", 0, 1, "no")] if row else None
    with pytest.raises((ValueError, FileNotFoundError), match=f"^dataset.source.{words}$"):
        load(**{"label": "kind"} | written(tmp_path, rows) | settings)


def test_a_multilabel_run_of_images(command, tmp_path):
    written(tmp_path)
    command("kdexp-train", "dataset=image_csv", "dataset.source.file=my.csv", "dataset.source.image=file",
            "dataset.source.label=[red,bright]", "dataset.source.size=16", "student=cnn", "teacher=cnn",
            "output_dir=run", "hydra.run.dir=run", "trainer.max_epochs=1", "teacher.recipe.max_epochs=1",
            "dataset.batch_size=8", "teacher.recipe.batch_size=8", "dataset.num_workers=0")  # fmt: skip
    dataset = json.loads((tmp_path / "run" / "results.json").read_text())["config"]["dataset"]
    assert dataset["classes"] == ["red", "bright"]
