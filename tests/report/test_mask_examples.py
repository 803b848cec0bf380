"""Examples in a run folder: kept, read again, refused when damaged, and shown in the page."""

import io
import json
import re
import zipfile

import numpy as np
import pytest
from PIL import Image

from kdexp.report import artifacts, mask_examples, page
from kdexp.report.comparison import Comparison
from kdexp.report.mask_examples import FILE, MaskExample
from kdexp.report.runs import find
from kdexp.report.sections import masks as section

SIZE = (6, 8)


def examples(*networks, seed=0, samples=(5, 2)):
    """Two images that depend on nothing, and masks that depend on the seed."""
    of_data, of_network = np.random.default_rng(0), np.random.default_rng(1 + seed)
    found = []
    for sample in samples:
        image = of_data.integers(0, 256, (3, *SIZE)).astype(np.uint8)
        truth = of_data.integers(-1, 3, SIZE).astype(np.int16)
        predicted = {name: of_network.integers(0, 3, SIZE).astype(np.int16) for name in networks}
        found.append(MaskExample(sample, image, truth, predicted))
    return found


def error(mask, truth):
    wrong = [m != t for m, t in zip(mask.flat, truth.flat, strict=True) if t >= 0]
    return f"pixel error {100 * sum(wrong) / len(wrong):.1f} %"


def test_what_is_kept_is_read_again(tmp_path):
    kept = examples("teacher", "student")
    mask_examples.write(kept, tmp_path)
    found = mask_examples.read(tmp_path, 3)
    assert [example.sample for example in found] == [5, 2]
    for own, other in zip(kept, found, strict=True):
        assert own.shows_the_same_as(other)
        assert list(other.predictions) == ["teacher", "student"]
        assert all(np.array_equal(mask, other.predictions[name]) for name, mask in own.predictions.items())


def test_a_run_without_examples_has_none(tmp_path):
    assert mask_examples.read(tmp_path, 3) == []


class Loaded:
    def __reduce__(self):
        return (pytest.fail, ("something was executed",))


def packed(**changed):
    """A file of examples with other arrays."""
    arrays = {
        "sample": np.array([5]),
        "image": np.zeros((1, 3, *SIZE), np.uint8),
        "truth": np.zeros((1, *SIZE), np.int16),
        "student": np.zeros((1, *SIZE), np.int16),
    }
    file = io.BytesIO()
    np.savez_compressed(file, **{name: array for name, array in (arrays | changed).items() if array is not None})
    return file.getvalue()


def bomb():
    """A file that says little and unpacks to much."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("image.npy", bytes(80 * 2**20))
    return file.getvalue()


def claimed(shape):
    """An array whose head claims more than there is."""
    file = io.BytesIO(packed())
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(file) as own:
        entries = {name: own.read(name) for name in own.namelist()} | {"image.npy": head.getvalue()}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as other:
        for name, content in entries.items():
            other.writestr(name, content)
    return file.getvalue()


DAMAGED = {
    "no zip": (b"PK\x03\x04 and no more", "File is not a zip file"),
    "empty": (b"", "File is not a zip file"),
    "cut short": (packed()[:-30], "File is not a zip file"),
    "code": (packed(truth=np.array([Loaded()], dtype=object)), "Object arrays cannot be loaded"),
    "bomb": (bomb(), "it has 83886080 bytes, more than 67108864"),
    "a false head": (claimed((10**12, 3, *SIZE)), "Unable to allocate"),
    "no truth": (packed(truth=None), "truth is not a file in the archive"),
    "float images": (packed(image=np.zeros((1, 3, *SIZE))), r"image must be 1 to 4 of \(C, H, W\) uint8"),
    "many images": (packed(image=np.zeros((5, 3, *SIZE), np.uint8)), r"image must be 1 to 4 of"),
    "large images": (packed(image=np.zeros((1, 3, 6, 513), np.uint8)), "at most 512 pixels a side"),
    "another size": (packed(student=np.zeros((1, 6, 7), np.int16)), r"student must be whole numbers of shape"),
    "floats": (packed(student=np.zeros((1, *SIZE))), "student must be whole numbers"),
    "a class too many": (packed(student=np.full((1, *SIZE), 3)), r"student must be in 0..2, got 3..3"),
    "no class": (packed(truth=np.full((1, *SIZE), -4)), r"truth must be in -3..2, got -4..-4"),
    "a missing prediction": (packed(student=np.full((1, *SIZE), -1)), r"student must be in 0..2, got -1..-1"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_one_line(tmp_path, name):
    content, message = DAMAGED[name]
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(ValueError, match=message) as raised:
        mask_examples.read(tmp_path, 3)
    assert str(raised.value).startswith(f"{tmp_path / FILE} must hold example masks of a run: ")
    assert "\n" not in str(raised.value)


def test_a_link_that_leads_out_is_not_followed(tmp_path):
    mask_examples.write(examples("student"), tmp_path / "outside")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / FILE).symlink_to(tmp_path / "outside" / FILE)
    with pytest.raises(ValueError, match="which is outside"):
        mask_examples.read(tmp_path / "run", 3)


@pytest.fixture
def folders(tmp_path, write_run):
    """Two seeds of a control and of a student with its teacher."""
    made = {}
    for name, alpha, networks in (("control", 1.0, ("student",)), ("student", 0.5, ("teacher", "student"))):
        for seed in (0, 1):
            folder = tmp_path / f"{name}-{seed}"
            write_run(folder, alpha=alpha, seed=seed)
            mask_examples.write(examples(*networks, seed=seed + 10 * int(alpha)), folder)
            made[name, seed] = folder
    return made


def shown(folder):
    return list(section.sections(Comparison(find([folder])[0])))


def test_the_chosen_student_stands_beside_its_teacher_and_its_control(folders, tmp_path):
    (found,) = shown(tmp_path)
    own, alone = (mask_examples.read(folders[name, 0], 3) for name in ("student", "control"))
    for place, sample in enumerate((5, 2)):
        truth = own[place].truth
        errors = {
            "teacher": error(own[place].predictions["teacher"], truth),
            "control": error(alone[place].predictions["student"], truth),
            "student": error(own[place].predictions["student"], truth),
        }
        assert f"image {sample}: " + ", ".join(map(" ".join, errors.items())) in found.picture.alternative
    assert "image, truth, teacher, control, student" in found.picture.alternative
    assert "seed 0" in found.lead


@pytest.mark.pixels
def test_the_page_holds_the_picture_and_says_what_it_shows(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "_packed_plotly", str)
    page.write_page(Comparison(find([tmp_path])[0]), tmp_path / "report.html", source=["here"])
    html = (tmp_path / "report.html").read_text()
    (alternative, address), *more = re.findall(r'<img alt="([^"]*)" src="([^"]*)"', html)
    assert not more
    assert alternative.startswith("Test images, a row each: image, truth, teacher, control, student. image 5: teacher ")
    (picture,) = section.sections(Comparison(find([tmp_path])[0]))
    assert address == picture.picture.address
    assert Image.open(io.BytesIO(picture.picture.png)).size[0] == 5 * 2.6 * 150


@pytest.mark.pixels
def test_a_comparison_leaves_the_picture_as_a_file(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "_packed_plotly", str)
    written = artifacts.write(Comparison(find([tmp_path])[0]), tmp_path, source=["here"])
    assert ("masks", tmp_path / "masks.png") in written
    with Image.open(tmp_path / "masks.png") as picture:
        assert picture.size[0] == 5 * 2.6 * 150


def test_a_damaged_file_is_left_out_in_one_line_and_the_next_seed_is_shown(folders, tmp_path):
    (folders["control", 0] / FILE).write_bytes(b"x")
    (found,) = shown(tmp_path)
    lead, *left_out = found.lead.split("\n")
    assert "seed 1" in lead
    file = folders["control", 0] / FILE
    assert left_out == [f"left out: {file} must hold example masks of a run: File is not a zip file"]
    assert "control" in found.picture.alternative


def test_where_every_file_is_damaged_there_is_no_picture(folders, tmp_path):
    for folder in folders.values():
        (folder / FILE).write_bytes(b"x")
    (found,) = shown(tmp_path)
    assert found.picture is None
    assert len(found.lead.split("\n")) == 5


def test_a_control_that_shows_other_images_is_not_put_beside(folders, tmp_path):
    for seed in (0, 1):
        mask_examples.write(examples("student", samples=(5, 3)), folders["control", seed])
    (found,) = shown(tmp_path)
    assert "control" not in found.picture.alternative
    assert "teacher" in found.picture.alternative


def test_a_control_alone_is_shown(folders, tmp_path):
    for seed in (0, 1):
        (folders["student", seed] / "results.json").unlink()
    (found,) = shown(tmp_path)
    assert "image, truth, student." in found.picture.alternative


def test_runs_without_examples_have_no_such_section(tmp_path, write_run):
    write_run(tmp_path / "student", alpha=0.5)
    assert shown(tmp_path) == []
    assert json.loads((tmp_path / "student" / "results.json").read_text())["status"] == "completed"
