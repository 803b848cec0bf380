import pytest
import torch

from kdexp.models.cnn import cnn
from kdexp.models.complexity import macs, parameters


def test_size_is_the_sum_over_its_layers():
    model = cnn(10, (1, 8, 8), width=4)
    assert parameters(model) == 9 * (1 * 4 + 4 * 8 + 8 * 16) + 2 * (4 + 8 + 16) + 16 * 10 + 10
    assert macs(model, (1, 8, 8)) == 9 * (64 * 1 * 4 + 16 * 4 * 8 + 4 * 8 * 16) + 16 * 10


@pytest.mark.parametrize("input_shape", [(1, 4, 4), (1, 8, 8), (1, 28, 28), (3, 32, 32), (2, 5, 9)])
def test_takes_small_images_of_any_channels(input_shape):
    assert cnn(7, input_shape)(torch.randn(3, *input_shape)).shape == (3, 7)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_shape": (30,)}, r"cnn takes images: input_shape must be \(channels, height, width\), got \[30\]"),
        ({"input_shape": (1, 3, 8)}, r"cnn takes images of at least 4 x 4 pixels: .*, got \[1, 3, 8\]"),
        ({"width": 0}, "width of cnn must be at least 1, got 0"),
    ],
)
def test_what_it_cannot_take_is_refused_in_one_line(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        cnn(**{"num_classes": 10, "input_shape": (1, 8, 8), **arguments})


@pytest.mark.slow
def test_the_large_one_teaches_digits_and_the_small_one_is_weak():
    """Shifts by a pixel; 15 epochs take a few seconds."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    parts = train_test_split(
        digits.images[:, None], digits.target, test_size=0.2, stratify=digits.target, random_state=0
    )
    x, x_test = (torch.tensor(part, dtype=torch.float32) / 16 for part in parts[:2])
    y, y_test = (torch.tensor(part) for part in parts[2:])

    def accuracy(width, dropout):
        torch.manual_seed(0)
        model = cnn(10, (1, 8, 8), width, dropout)
        optimizer = torch.optim.AdamW(model.parameters())
        epochs = 15
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, epochs * (len(x) // 64))
        for _ in range(epochs):
            for chosen in torch.randperm(len(x)).split(64)[: len(x) // 64]:
                down, right = torch.randint(0, 3, (2,)).tolist()
                shifted = torch.nn.functional.pad(x[chosen], [1] * 4)[..., down : down + 8, right : right + 8]
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(model(shifted), y[chosen]).backward()
                optimizer.step()
                schedule.step()
        return (model.eval()(x_test).argmax(1) == y_test).float().mean().item()

    large, small = accuracy(32, 0.2), accuracy(4, 0.0)
    assert large >= 0.985
    assert 0.7 < small < large - 0.05
