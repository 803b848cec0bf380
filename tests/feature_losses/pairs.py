"""Small pairs of networks that the tests of feature distillation losses share."""

from dataclasses import replace

import torch
from torch import nn

from kdexp.contracts import Batch, FeatureLayers, Outputs, TeacherStudentPair
from kdexp.features import Reader, side

CLASSES, SAMPLES, SHAPE = 5, 40, (1, 8, 8)
CNN = FeatureLayers(
    stages=["stage1", "stage2", "stage3"],
    preact=["stage1.-2", "stage2.-2", "stage3.-2"],
    penultimate="pool",
    classifier="classifier",
)
RNN = FeatureLayers(stages=["recurrent"], penultimate="pool", classifier="classifier")
MLP = FeatureLayers(stages=["hidden"], preact=["hidden.-3"], penultimate="hidden", classifier="classifier")


def tokens_of(images):
    """Which rows of images are tokens, (N, H) bool: those before the second that begins with a value below -0.5."""
    return (images[:, 0, :, 0] < -0.5).cumsum(1) < 2


class Encoder(nn.Module):
    """Reads the rows of images as tokens, see `tokens_of`."""

    def __init__(self, width, depth=3, heads=2, mask="mask"):
        super().__init__()
        self.mask, self.embedding = nn.Identity(), nn.Linear(8, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.pool, self.classifier = nn.Identity(), nn.Linear(width, CLASSES)
        self.layers = FeatureLayers([f"blocks.{k}" for k in range(depth)], "pool", "classifier", mask=mask)

    def forward(self, images):
        rows = images.flatten(1, 2)
        mask = self.mask(tokens_of(images).float()).unsqueeze(2)
        states = self.embedding(rows) * mask
        for block in self.blocks:
            states = block(states) * mask
        return self.classifier(self.pool(states.sum(1) / mask.sum(1)))


class Block(nn.Module):
    """A layer with what an attention has."""

    def __init__(self, width, heads):
        super().__init__()
        self.attention = nn.Module()
        self.attention.heads = heads
        for part in ("query", "key", "value"):
            setattr(self.attention, part, nn.Linear(width, width))

    def forward(self, states):
        parts = [getattr(self.attention, part)(states) for part in ("query", "key", "value")]
        return states + (parts[0] * parts[1]).tanh() + parts[2]


def encoders(*widths, depths=(3, 3), heads=(2, 2)):
    """Networks that read sequences with padding."""
    own, goal = (Encoder(*each) for each in zip(widths, depths, heads, strict=True))
    return make_pair(own, goal, None, None)


def make_pair(student, teacher, student_layers=CNN, teacher_layers=CNN, shape=SHAPE, seed=0):
    """What a feature loss is built from; the labels of all samples are known."""
    probe = torch.zeros(2, *shape)
    target = torch.randint(CLASSES, (SAMPLES,), generator=torch.Generator().manual_seed(seed))
    return TeacherStudentPair(
        side(student, student_layers, probe), side(teacher, teacher_layers, probe), target, CLASSES
    )


def deployed(loss_class, pair):
    """The pair, with the network that the loss deploys in the student's place, if it does."""
    if not hasattr(loss_class, "deployed"):
        return pair
    network = loss_class.deployed(pair.student, pair.teacher)
    return replace(pair, student=side(network, network.layers, torch.zeros(2, *SHAPE)))


def make_batch(samples=6, shape=SHAPE, seed=0):
    """Inputs of any size and the samples' own labels."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.randperm(SAMPLES, generator=generator)[:samples]
    target = torch.randint(CLASSES, (SAMPLES,), generator=torch.Generator().manual_seed(0))[index]
    return Batch(torch.randn(samples, *shape, generator=generator), target, index)


def outputs_of(loss, pair, batch):
    """What both networks of the pair give for a batch, as the Distiller hands it to the loss: features that the loss
    asks for, in training mode; the teacher in eval mode, without gradients.
    """
    student = Reader(pair.student.network.train(), loss.student_paths)(batch.inputs)
    with torch.no_grad():
        teacher = Reader(pair.teacher.network.eval(), loss.teacher_paths)(batch.inputs)
    return student, teacher


def leaves(outputs):
    """The same outputs as leaves with a gradient: what arrives at them is the loss's own gradient."""
    features = {path: feature.detach().clone().requires_grad_() for path, feature in outputs.features.items()}
    return Outputs(outputs.logits.detach().clone().requires_grad_(), features)
