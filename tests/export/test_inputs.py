import numpy as np
import pytest
import torch
from PIL import Image

from kdexp.data.image_folder import ImageFiles
from kdexp.data.image_masks import PaddedImages
from kdexp.export.inputs import Inputs

RGB, GREY = Inputs((3, 8, 8), "uint8"), Inputs((1, 8, 8), "uint8")
DENSE = Inputs((3, 8, 8), "uint8", any_size=True)


@pytest.fixture
def files(tmp_path):
    """One picture in every form in which people have them."""
    numbers = np.random.default_rng(0)
    colours, grey = numbers.integers(256, size=(10, 14, 3), dtype=np.uint8), numbers.integers(2**16, size=(10, 14))
    alpha = np.dstack([colours, numbers.integers(256, size=(10, 14), dtype=np.uint8)])
    made = {
        "rgb.png": Image.fromarray(colours), "grey.png": Image.fromarray(colours[..., 0]),
        "rgba.png": Image.fromarray(alpha), "palette.png": Image.fromarray(colours).quantize(16),
        "deep.png": Image.fromarray(grey.astype(np.uint16)), "deep.tif": Image.fromarray(grey.astype(np.uint16)),
        "black.bmp": Image.fromarray(colours[..., 0] > 99), "cmyk.jpg": Image.fromarray(colours).convert("CMYK"),
    }  # fmt: skip
    for name, image in made.items():
        image.save(tmp_path / name)
    turned = Image.Exif()
    turned[0x0112] = 6
    made["rgb.png"].save(tmp_path / "turned.jpg", exif=turned)
    return sorted(path for path in tmp_path.iterdir())


def test_files_and_pil_images_are_what_a_folder_of_images_makes_of_them(files):
    """By `kdexp.data.image_folder.ImageFiles`, whose own tests know what a person sees."""
    for path, expected in zip(files, ImageFiles(files, 8), strict=False):
        assert torch.equal(RGB.stored(path)[0], expected), path
        with Image.open(path) as image:
            before = image.size
            assert torch.equal(RGB.stored(image)[0], expected), path
            assert image.size == before, "a person's image stays as it is"
    assert [path.name for path in RGB.stored(files[0].parent).paths] == [path.name for path in files]


def test_one_channel_is_the_luma_of_what_is_seen(files):
    for path in files:
        seen = ImageFiles([path], 8)[0].permute(1, 2, 0).numpy().astype(float)
        luma = seen @ [0.299, 0.587, 0.114]  # ITU-R 601-2
        found = GREY.stored(path)[0][0].numpy()
        assert found.shape == (8, 8)
        assert np.abs(found - luma).max() <= 2, path  # rounded before it is scaled, and not after


def test_images_with_masks_keep_their_size(files):
    for path in files:
        if path.suffix in (".png", ".jpg") and not path.name.startswith("deep"):
            with Image.open(path) as image:
                size = image.size[::-1] if path.name != "turned.jpg" else image.size
                assert torch.equal(DENSE.stored(image)[0], PaddedImages([path], size)[0]), path
            assert torch.equal(DENSE.stored(path)[0], PaddedImages([path], size)[0]), path
    with pytest.raises(ValueError, match=r"deep.png: it has mode I;16.* in place of 8 bits a channel$"):
        DENSE.stored([path for path in files if path.name == "deep.png"])[0]


def test_arrays_in_every_layout_are_the_same_images():
    images = torch.randint(256, (5, 3, 8, 8), dtype=torch.uint8)
    last = images.permute(0, 2, 3, 1).numpy()
    for x in (images, images.numpy(), last, list(images), list(last), [Image.fromarray(one) for one in last]):
        found = RGB.stored(x)
        assert torch.equal(torch.stack(list(found)), images)
    assert torch.equal(RGB.stored(last[0])[0], images[0])
    grey = images[:, :1]
    for x in (grey, grey[:, 0], grey[:, 0].numpy(), grey.permute(0, 2, 3, 1)):
        assert torch.equal(GREY.stored(x), grey)
    assert torch.equal(GREY.stored(grey[0, 0]), grey[:1])
    assert torch.equal(GREY.stored(grey[0]), grey[:1])


def test_an_array_of_another_size_is_scaled_as_the_image_it_is():
    large = np.random.default_rng(0).integers(256, size=(20, 30, 3), dtype=np.uint8)
    assert torch.equal(RGB.stored(large)[0], RGB.stored(Image.fromarray(large))[0])
    assert torch.equal(RGB.stored(large[..., 0])[0], RGB.stored(Image.fromarray(large[..., 0]))[0])


def test_floats_stay_floats():
    images = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    assert torch.equal(RGB.stored(images), images.float())
    assert torch.equal(Inputs((3, 8, 8), "float32").stored(5 * images), (5 * images).float())
    rows = Inputs((4,), "float32")
    assert torch.equal(rows.stored(np.arange(4)), torch.arange(4.0)[None])
    assert torch.equal(rows.stored([[1, 2, 3, 4.5]]), torch.tensor([[1, 2, 3, 4.5]]))


@pytest.mark.parametrize(
    ("inputs", "x", "message"),
    [
        (RGB, torch.full((1, 3, 8, 8), 255.0), r"x must have floats in \[0, 1\] or uint8 in 0..255, got 255 to 255"),
        (RGB, torch.full((1, 3, 8, 8), torch.nan), "x must be finite, got NaN or Inf in sample 0"),
        (RGB, torch.zeros(1, 3, 9, 9), r"x must have floats of shape \[3, 8, 8\], got float32 of shape \[1, 3, 9, 9\]"),
        (RGB, torch.zeros(3, 8, 8, dtype=torch.int64), "x must have uint8 in 0..255 or floats, got int64 of shape .*"),
        (RGB, torch.zeros(2, 5, 8, 8, dtype=torch.uint8), r"x must be images \(N, 3, 8, 8\), got uint8 of shape .*"),
        (RGB, [], "x must hold at least one sample, got none"),
        (RGB, torch.zeros(0, 3, 8, 8), "x must hold at least one sample, got none"),
        (RGB, {"a": 1}, "x must be of what the network was trained on, got dict"),
        (RGB, [object()], "x must be of what the network was trained on, got object"),
        (RGB, [np.zeros((2, 3, 8, 8), np.uint8)], "x must have one image at each place, got 2 at 0"),
        (RGB, Image.new("F", (8, 8)), "x must be an image of 8 or 16 bits a channel, got one of mode F"),
        (Inputs((3, 8, 9), "uint8"), Image.new("RGB", (4, 4)), "x must have 9 x 8 pixels, got 4 x 4"),
        (Inputs((5, 8, 8), "uint8"), Image.new("RGB", (4, 4)), "x must be an array of 5 channels, got an image"),
        (Inputs((1, 8, 8), "float32", in_unit_range=False), Image.new("L", (8, 8)), "x must be an array of floats, .*"),
        (Inputs((2,), "float32"), "hello.csv", "not found: hello.csv"),
        (Inputs((2,), "float32"), {"a": 1}, "x must be arrays where the network was not trained on columns .*"),
        (Inputs((2,), "float32"), np.array(["a", "b"]), "x must be of what the network was trained on, got <U1 .*"),
        (Inputs((9,), "int32"), [], "x must hold at least one sample, got none"),
    ],
)
def test_what_a_network_does_not_take_is_one_line(inputs, x, message):
    with pytest.raises((ValueError, FileNotFoundError), match=f"^{message}$"):
        inputs.stored(x)


def test_files_that_are_no_images_are_one_line(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n")
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "float.tif")
    for name in ("broken.png", "float.tif"):
        with pytest.raises(ValueError, match=rf"^corrupt file .*{name}: ") as error:
            RGB.stored(tmp_path / name)[0]
        assert "\n" not in str(error.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"empty must hold image files, got none$"):
        RGB.stored(tmp_path / "empty")


def test_an_image_without_pixels_is_one_line():
    for nothing in (Image.new("L", (0, 8)), np.zeros((8, 0), np.uint8)):
        with pytest.raises(ValueError, match=r"^x must have pixels, got 0 x 8$"):
            Inputs((1, 8, 8), "uint8").stored(nothing)
