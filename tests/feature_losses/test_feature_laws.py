"""What every feature distillation loss in conf/feature_loss must obey; a new yaml is tested without an edit here."""

import copy
from functools import cache
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from pairs import (
    CLASSES,
    CNN,
    MLP,
    RNN,
    SHAPE,
    deployed,
    encoders,
    leaves,
    make_batch,
    make_pair,
    outputs_of,
    tokens_of,
)
from torch import nn

from kdexp.config.compose import compose, plain
from kdexp.config.objects import target
from kdexp.contracts import Batch, FeatureLayers, Outputs
from kdexp.experiment.losses import build_term, feature_terms
from kdexp.models.cnn import cnn
from kdexp.models.mlp import mlp
from kdexp.models.resnet_cifar import resnet8
from kdexp.models.rnn import rnn
from kdexp.models.unet import unet
from kdexp.models.vgg_cifar import vgg8

FEATURE_LOSSES = sorted(path.stem for path in (Path(__file__).parents[2] / "conf" / "feature_loss").glob("*.yaml"))
RESNET = FeatureLayers(
    stages=["stage1", "stage2", "stage3"],
    preact=[f"stage{i}.-1.preact" for i in (1, 2, 3)],
    penultimate="pool",
    classifier="classifier",
)
VGG = FeatureLayers(
    stages=[f"stage{i}" for i in range(1, 6)],
    preact=[f"stage{i}.-2" for i in range(1, 6)],
    penultimate="pool",
    classifier="classifier",
)

# All others are 0, their minimum, without a gradient, where the student's features are the teacher's.
NOT_ZERO_WHERE_EQUAL = {
    "ab": "wants the margin",
    "crd": "contrasts through embeddings of its own",
    "fitnet": "has a regressor",
    "ft": "has a translator",
    "mgd": "masks at random and generates",
    "ofd": "has connectors and a margin",
    "reviewkd": "fuses",
    "semckd": "has projections",
    "simkd": "has a projector",
    "srrl": "has a connector",
    "vid": "has regressors and a variance",
}
# Those that compare vectors of a sample.
OF_VECTORS = {"cc", "cosine", "crd", "feature_mse", "pkt", "rkd", "simkd", "srrl"}
# Those that read the attention of transformers.
OF_ATTENTION = {"minilm"}
# Those whose value is random, or that learn from what they have seen.
RANDOM = {"mgd": "masks"}
REMEMBERS = {"crd", "ofd"}
# Batch norm in an adapter sees a rank's fraction of the batch, as that of the student does.
WITH_BATCH_NORM = {"ab", "ft", "ofd", "reviewkd", "semckd", "simkd", "srrl"}


@cache
def config(name):
    return compose([f"feature_loss={name}", "dataset=synthetic"], output_dir="unused").feature_loss[name]


@pytest.fixture(params=FEATURE_LOSSES)
def name(request):
    return request.param


@pytest.fixture
def pair(name, pair):
    """Of networks that the loss can read."""
    torch.manual_seed(0)
    return encoders(4, 6) if name in OF_ATTENTION else pair


@pytest.fixture
def equal_pair(name, equal_pair):
    """Two such networks of the same shape."""
    torch.manual_seed(0)
    return encoders(4, 4) if name in OF_ATTENTION else equal_pair


def build(name, pair):
    """The loss in its second stage, with the pair it is built from."""
    torch.manual_seed(3)
    pair = deployed(target(config(name), "feature_loss"), pair)
    return build_term(config(name), pair).loss, pair


def mapped(outputs, function):
    return Outputs(outputs.logits, {p: f if p == "mask" else function(f) for p, f in outputs.features.items()})


@pytest.fixture
def setting(name, pair, batch):
    """(loss, student, teacher, batch); student and teacher as leaves."""
    loss, pair = build(name, pair)
    student, teacher = outputs_of(loss, pair, batch)
    return loss, leaves(student), leaves(teacher), batch


def again(loss, *arguments):
    """The value without what the call would leave behind."""
    torch.manual_seed(0)
    return copy.deepcopy(loss)(*arguments)


def gradients(outputs):
    return [tensor.grad for tensor in (outputs.logits, *outputs.features.values()) if tensor.grad is not None]


def test_the_yaml_gives_a_weight_and_reads_something(name, pair):
    loss, _ = build(name, pair)
    assert build_term(config(name), build(name, pair)[1]).weight > 0
    assert loss.student_paths
    assert loss.teacher_paths


def test_of_dense_networks_it_reads_the_maps_or_says_what_it_lacks_in_one_line(name):
    stages = ["encoder.0", "encoder.1", "encoder.2"]
    layers = FeatureLayers(stages, penultimate=None, classifier=None, preact=[f"{stage}.-2" for stage in stages])
    pair = make_pair(*(unet(CLASSES, SHAPE, width, depth=2) for width in (3, 4)), layers, layers)
    if name in OF_VECTORS:
        rule = "needs vectors from feature_layers.penultimate"
        with pytest.raises(ValueError, match=rf"^feature_loss={name} {rule}, got none in UNet$"):
            build(name, pair)
        return
    if name in OF_ATTENTION:
        with pytest.raises(ValueError, match=rf"^feature_loss={name} needs linear layers query, key, value"):
            build(name, pair)
        return
    loss, pair = build(name, pair)
    student, teacher = outputs_of(loss, pair, make_batch())
    assert loss(student, teacher, make_batch()).isfinite()


def test_padding_has_no_part_in_it_or_is_refused_in_one_line(name):
    torch.manual_seed(0)
    pair = deployed(target(config(name), "feature_loss"), encoders(4, 6))
    built, refusal = tried(
        lambda: feature_terms({name: config(name)}, (pair.student, pair.teacher), pair.target, CLASSES)
    )
    if refusal:
        assert refusal.startswith(f"feature_loss={name} ")
        assert "\n" not in refusal
        return
    loss, batch = built[name].loss, make_batch()
    student, teacher = outputs_of(loss, pair, batch)
    is_token = tokens_of(batch.inputs)
    assert len(set(is_token.sum(1).tolist())) > 2

    def with_junk(feature):
        return feature.where(is_token.unsqueeze(2), 1e3) if feature.ndim == 3 else feature

    junk = [mapped(each, with_junk) for each in (student, teacher)]
    torch.testing.assert_close(again(loss, *junk, batch), again(loss, student, teacher, batch))


def test_is_a_finite_scalar_in_float32(setting):
    value = again(*setting)
    assert value.shape == ()
    assert value.dtype == torch.float32
    assert value.isfinite()


def test_gradient_reaches_the_student_and_every_adapter_and_never_the_teacher(setting):
    loss, student, teacher, batch = setting
    for initial in (True, False) if hasattr(loss, "in_init_stage") else (False,):
        loss.in_init_stage = initial
        loss(student, teacher, batch).backward()
    assert any(gradient.abs().sum() > 0 for gradient in gradients(student))
    assert not gradients(teacher)
    trained = {path: p.grad for path, p in loss.named_parameters() if p.requires_grad}
    assert all(gradient is not None and gradient.isfinite().all() for gradient in trained.values()), trained


def test_is_zero_without_a_gradient_where_the_features_are_equal_or_says_why_not(name, equal_pair, batch):
    loss, pair = build(name, equal_pair)
    student, _ = outputs_of(loss, pair, batch)
    if set(loss.student_paths) != set(loss.teacher_paths):
        assert name in NOT_ZERO_WHERE_EQUAL
        return
    student, teacher = leaves(student), leaves(student)
    torch.manual_seed(0)
    value = loss(student, teacher, batch)
    value.backward()
    zero = abs(value.item()) < 1e-5 and all(gradient.abs().max() < 1e-5 for gradient in gradients(student))
    assert zero == (name not in NOT_ZERO_WHERE_EQUAL)


def test_order_of_the_batch_does_not_matter(name, setting):
    loss, student, teacher, batch = setting
    order = torch.tensor([3, 0, 5, 1, 4, 2])

    def ordered(outputs):
        return Outputs(outputs.logits[order], {path: f[order] for path, f in outputs.features.items()})

    moved = Batch(batch.inputs[order], batch.target[order], batch.index[order])
    value, same = again(*setting), again(loss, ordered(student), ordered(teacher), moved)
    assert torch.allclose(value, same, rtol=1e-4, atol=1e-7) == (name not in RANDOM)


def test_a_small_step_down_the_gradient_lowers_it(setting):
    loss, student, teacher, batch = setting
    before = again(*setting)
    before.backward()
    total = torch.stack([g.norm() for g in gradients(student)]).norm()
    scale = 1e-2 / total

    def stepped(tensor):
        return (tensor if tensor.grad is None else tensor - scale * tensor.grad).detach()

    after = again(
        loss, Outputs(stepped(student.logits), {p: stepped(f) for p, f in student.features.items()}), teacher, batch
    )
    assert after < before


@pytest.mark.parametrize("case", ["large", "zero", "constant", "equal samples"])
def test_extreme_features_give_finite_values_and_gradients(setting, case):
    loss, student, teacher, batch = setting
    change = {
        "large": lambda f: 1e4 * f,
        "zero": torch.zeros_like,
        "constant": torch.ones_like,
        "equal samples": lambda f: f[:1].expand_as(f),
    }[case]
    student, teacher = leaves(mapped(student, change)), leaves(mapped(teacher, change))
    value = loss(student, teacher, batch)
    value.backward()
    assert value.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients(student))
    assert all(p.grad is None or p.grad.isfinite().all() for p in loss.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_features_under_autocast_give_float32_near_the_exact_value(setting, dtype):
    loss, student, teacher, batch = setting
    half = [leaves(mapped(outputs, lambda f: f.to(dtype))) for outputs in (student, teacher)]
    with torch.autocast("cpu", dtype):
        value = again(loss, *half, batch)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, again(*setting), rtol=0.2, atol=0.05)


def test_a_batch_of_one_works_or_is_refused_in_one_line(name, pair):
    loss, pair = build(name, pair)
    student, teacher = outputs_of_one(loss, pair)
    value, refusal = tried(lambda: loss(student, teacher, make_batch(1)))
    if refusal:
        assert "batch" in refusal
        assert "\n" not in refusal
        return
    value.backward()
    assert value.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients(student))


def tried(action):
    """What it gives, or what it says when it refuses."""
    try:
        return action(), ""
    except ValueError as error:
        return None, str(error)


def outputs_of_one(loss, pair):
    student, teacher = outputs_of(loss, pair, make_batch(2))
    first = [Outputs(o.logits[:1], {p: f[:1] for p, f in o.features.items()}) for o in (student, teacher)]
    return leaves(first[0]), leaves(first[1])


PAIRS = {
    "vectors": lambda: make_pair(mlp(5, SHAPE, hidden=[7]), mlp(5, SHAPE, hidden=[9]), MLP, MLP),
    "a vector student": lambda: make_pair(mlp(5, SHAPE, hidden=[7]), cnn(5, SHAPE, width=4), MLP, CNN),
    "sequences": lambda: make_pair(rnn(5, SHAPE, hidden=6), rnn(5, SHAPE, hidden=8), RNN, RNN),
    "more stages in the teacher": lambda: make_pair(cnn(5, SHAPE, width=4), vgg8(5, SHAPE), CNN, VGG),
    "more stages in the student": lambda: make_pair(vgg8(5, SHAPE), resnet8(5, SHAPE), VGG, RESNET),
    "layers found": lambda: make_pair(cnn(5, SHAPE, width=4), cnn(5, SHAPE, width=6), None, None),
}


@pytest.mark.parametrize("kind", PAIRS)
def test_other_shapes_train_or_are_refused_in_one_line(name, kind):
    torch.manual_seed(0)
    built, refusal = tried(lambda: build(name, PAIRS[kind]()))
    if refusal:
        assert refusal.startswith(f"feature_loss={name} ")
        assert "\n" not in refusal
        return
    loss, pair = built
    student, teacher = outputs_of(loss, pair, make_batch())
    value = loss(student, teacher, make_batch())
    value.backward()
    assert value.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in pair.student.network.parameters())


def test_saving_and_loading_keep_all_of_it(name, setting, pair):
    loss, student, teacher, batch = setting
    torch.manual_seed(0)
    loss(student, teacher, batch)
    fresh, _ = build(name, pair)
    fresh.load_state_dict(loss.state_dict())
    assert torch.equal(again(fresh, student, teacher, batch), again(loss, student, teacher, batch))


def _rank(rank, names, port_file, results):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{port_file}", rank=rank, world_size=2)
    share = slice(4 * rank, 4 * rank + 4)
    results.put((rank, {name: _gradient(name, share).numpy() for name in names}))
    dist.barrier()
    dist.destroy_process_group()


def _gradient(name, share):
    """Of the loss after a first step (which fills memories), with respect to the student's and its own parameters."""
    torch.manual_seed(0)
    # Without batch norm: its own statistics are of a rank's share, whatever the loss does.
    pair = encoders(4, 6) if name in OF_ATTENTION else make_pair(_plain(4), _plain(6), PLAIN, PLAIN)
    loss, pair = build(name, pair)
    learned = nn.ModuleList([pair.student.network, loss])
    for seed in (0, 1):
        learned.zero_grad()
        whole = make_batch(8, seed=seed)
        batch = Batch(whole.inputs[share], whole.target[share], whole.index[share])
        student, teacher = outputs_of(loss, pair, batch)
        loss(student, teacher, batch).backward()
    return torch.cat([p.grad.flatten() if p.grad is not None else torch.zeros(p.numel()) for p in learned.parameters()])


PLAIN = FeatureLayers(stages=["1", "4", "7"], preact=["0", "3", "6"], penultimate="9", classifier="10")


def _plain(width):
    layers = []
    for channels, out in ((1, width), (width, 2 * width), (2 * width, 4 * width)):
        layers += [nn.Conv2d(channels, out, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers[:-1], nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, 5))


@pytest.mark.slow
def test_two_ranks_learn_what_one_process_with_the_global_batch_does(tmp_path):
    names = [name for name in FEATURE_LOSSES if name not in WITH_BATCH_NORM and name not in RANDOM]
    context = mp.get_context("forkserver")
    results = context.SimpleQueue()
    ranks = [context.Process(target=_rank, args=(r, names, tmp_path / "rendezvous", results)) for r in range(2)]
    for process in ranks:
        process.start()
    found = dict(results.get() for _ in ranks)
    for process in ranks:
        process.join()
        assert process.exitcode == 0
    for name in names:
        one = _gradient(name, slice(0, 8))
        two = torch.from_numpy(found[0][name] + found[1][name]) / 2
        torch.testing.assert_close(
            two, one, rtol=1e-3, atol=1e-5 * float(one.abs().max()), msg=lambda m, n=name: f"{n}: {m}"
        )


def test_the_config_is_plain(name):
    """Settings travel in results.json."""
    assert isinstance(plain(config(name)), dict)
