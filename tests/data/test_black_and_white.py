import torch

from kdexp.data.black_and_white import binarized


def test_a_pixel_is_white_as_often_as_its_gray_value_says_and_always_the_same():
    gray = torch.tensor([0, 51, 128, 255], dtype=torch.uint8).view(1, 1, 2, 2).expand(3000, 1, 2, 2)
    found = binarized(gray, 0, 0)
    assert set(found.unique().tolist()) == {0, 255}
    share = (found == 255).double().mean(0).flatten()
    torch.testing.assert_close(share, torch.tensor([0, 0.2, 0.5, 1]).double(), atol=0.03, rtol=0)
    assert torch.equal(binarized(gray[:10], 0, 0), found[:10])
    assert not torch.equal(binarized(gray, 1, 0), found)
    assert not torch.equal(binarized(gray, 0, 1), found)
    floats = binarized(gray.float() / 255, 0, 0)
    assert floats.dtype == torch.float32
    assert set(floats.unique().tolist()) == {0, 1}
