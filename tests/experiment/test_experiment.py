from dataclasses import replace
from functools import wraps

import pytest
import torch
from teacher_keys import teacher_file

from kdexp.config.compose import compose
from kdexp.config.compose import plain as plain_values
from kdexp.config.identity import Identity
from kdexp.data import digits
from kdexp.experiment import teacher_training
from kdexp.experiment.experiment import Experiment
from kdexp.experiment.networks import build_network, is_channels_last


@pytest.mark.parametrize("part", ["train_inputs", "train_target", "test_inputs", "test_target"])
def test_a_change_of_any_part_of_the_data_changes_their_digest(tmp_path, part):
    config = compose(["experiment=smoke"], output_dir=tmp_path)
    data, changed = Experiment(config).data, Experiment(config).data
    tensor = getattr(changed._source, part).clone()
    tensor[0] = (tensor[0] + 1) % 10
    changed._source = replace(changed._source, **{part: tensor})
    assert data.content == Experiment(config).data.content
    assert data.content != changed.content


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dataset.input_shape=[1,28,28]", r"must be \[1, 8, 8\], the shape of a sample of train, got \[1, 28, 28\]$"),
        ("dataset.input_shape=[64]", r"must be \[1, 8, 8\], the shape of a sample of train, got \[64\]$"),
    ],
)
def test_data_of_another_shape_than_the_networks_are_built_for_are_refused(tmp_path, override, message):
    with pytest.raises(ValueError, match=f"^dataset.input_shape {message}"):
        _ = Experiment(compose(["dataset=digits", override], output_dir=tmp_path)).data


def test_a_source_that_is_none_is_refused(tmp_path, monkeypatch):
    @wraps(digits.load)
    def load():
        return torch.zeros(3)

    monkeypatch.setattr(digits, "load", load)
    with pytest.raises(ValueError, match=r"^dataset.source must give a kdexp.contracts.Source, got Tensor$"):
        _ = Experiment(compose(["dataset=digits"], output_dir=tmp_path)).data


@pytest.fixture
def named(monkeypatch):
    """Digits that bring the names of their classes."""
    names = [f"digit {number}" for number in range(10)]

    @wraps(digits.load)
    def load():
        return replace(plain_load(), classes=names)

    plain_load = digits.load
    monkeypatch.setattr(digits, "load", load)
    return names


def test_classes_have_the_names_that_the_data_bring_or_those_that_are_typed(tmp_path, named, monkeypatch):
    config = compose(["dataset=digits", "dataset.classes=null"], output_dir=tmp_path)
    assert Experiment(config).data.classes == named
    config.dataset.classes = named
    assert Experiment(config).data.classes == named
    config.dataset.classes = [*named[1:], named[0]]
    with pytest.raises(
        ValueError, match=r"^dataset.classes must be null or the names in the data, \['digit 0', .*, got"
    ):
        _ = Experiment(config).data
    monkeypatch.undo()
    assert Experiment(config).data.classes == [*named[1:], named[0]]
    config.dataset.classes = None
    assert Experiment(config).data.classes is None


def trained(tmp_path, *recipe):
    """Where the teacher of this recipe is kept, and the labels that it learns from."""
    config = compose(["experiment=smoke", *(f"teacher.recipe.{word}" for word in recipe)], output_dir=tmp_path)
    labels = Experiment(config).data.for_teacher(config.teacher).splits.train.target
    return teacher_file(config), tuple(labels.tolist())


def test_a_teacher_is_another_where_its_labels_are_and_only_there(tmp_path):
    clean = trained(tmp_path)
    assert trained(tmp_path, "subset_seed=3") == clean
    assert trained(tmp_path, "label_noise_kind=pairflip") == clean
    noisy = [
        trained(tmp_path, "label_noise=0.4"),
        trained(tmp_path, "label_noise=0.4", "label_noise_kind=pairflip"),
        trained(tmp_path, "label_noise=0.4", "subset_seed=3"),
    ]
    assert len({place for place, _ in (clean, *noisy)}) == len({labels for _, labels in (clean, *noisy)}) == 4
    pairs = zip(clean[1], noisy[1][1], strict=True)
    assert {(wrong - right) % 10 for right, wrong in pairs} == {0, 1}


def layout(network):
    """Whether the weights of its second convolution have their channels last; those of one input channel have none."""
    _, second, *_ = (module for module in network.modules() if isinstance(module, torch.nn.Conv2d))
    return second.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [("auto", [False, True, True]), ("true", [True, True, True]), ("false", [False, False, False])],
)
def test_every_network_has_the_layout_asked_for_and_with_auto_its_own(tmp_path, setting, expected):
    settings = ["experiment=smoke", "student=cnn_small", f"trainer.channels_last={setting}"]
    config = compose([*settings, "teacher=cnn"], output_dir=tmp_path, store_dir=tmp_path)
    mutual = compose([*settings, "scheme=mutual", "+student@scheme.peers.other=cnn"], output_dir=tmp_path)
    teacher = Experiment(config).teacher.networks[0]
    networks = [Experiment(config).new_student(pretrained=None), Experiment(mutual).new_peers()["other"], teacher]
    assert [layout(network) for network in networks] == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cnn_small", False),  # four channels
        ("cnn", True),
        ("resnet20", True),
        ("mobilenetv2_half", True),  # wide convolutions are of single pixels or of single channels
        ("shufflenetv1", True),  # and nothing else
        ("vgg8", False),  # 512 channels
        ("mlp", False),
    ],
)
def test_auto_goes_by_the_widths_of_the_convolutions_and_only_on_a_cpu(tmp_path, name, expected):
    settings = ["experiment=smoke", f"student={name}", "dataset.input_shape=[1,16,16]"]
    config = compose(settings, output_dir=tmp_path)
    network = Experiment(config).new_student(pretrained=None)
    assert is_channels_last(network, "auto", torch.device("cpu")) is expected
    assert not is_channels_last(network, "auto", torch.device("cuda"))
    assert is_channels_last(network, True, torch.device("cuda"))


class Begun(Exception):
    pass


@pytest.mark.parametrize(("setting", "expected"), [("auto", True), ("false", False)])
def test_a_teacher_has_the_layout_of_its_recipe_while_it_is_trained(tmp_path, monkeypatch, setting, expected):
    settings = ["experiment=smoke", "teacher=cnn", f"teacher.recipe.channels_last={setting}"]
    config = compose(settings, output_dir=tmp_path, store_dir=tmp_path)
    seen = []

    def begin(module, *_, **__):
        seen.append(layout(module.student))
        raise Begun

    monkeypatch.setattr(teacher_training, "fit", begin)
    with pytest.raises(Begun):
        assert Experiment(config).teacher
    assert seen == [expected]


def test_a_teacher_trained_without_the_last_batch_is_another(tmp_path):
    configs = [
        compose(["experiment=smoke", f"dataset.drop_last={setting}"], output_dir=tmp_path)
        for setting in ("true", "false")
    ]
    assert len(set(map(teacher_file, configs))) == 2


def test_a_teacher_trained_in_another_layout_is_another(tmp_path):
    places = {trained(tmp_path, f"channels_last={setting}")[0] for setting in ("auto", "true", "false")}
    assert len(places) == 3


def test_a_teacher_for_images_of_another_size_gets_them_resized(tmp_path):
    config = compose(["dataset=digits", "teacher=mlp", "+teacher.resize=16"], output_dir=tmp_path)
    built = build_network(config.teacher, "teacher", config.dataset, config.task).eval()
    assert next(built.parameters()).shape[1] == 16 * 16
    images = torch.rand(3, 1, 8, 8)
    same = [built(images), built(torch.nn.functional.interpolate(images, (16, 16), mode="bilinear", antialias=True))]
    torch.testing.assert_close(*same)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+teacher.resize=0"], "^teacher.resize must be null or at least 1 pixel, got 0$"),
        (["+teacher.resize=true"], "^teacher.resize must be null or at least 1 pixel, got True$"),
        (
            ["dataset=breast_cancer", "+teacher.resize=16"],
            "^teacher.resize must be null where inputs are no images, got 16$",
        ),
    ],
)
def test_a_size_that_is_none_is_refused(tmp_path, overrides, message):
    config = compose(["dataset=digits", "teacher=mlp", *overrides], output_dir=tmp_path)
    with pytest.raises(ValueError, match=message):
        build_network(config.teacher, "teacher", config.dataset, config.task)


@pytest.mark.parametrize("more", [["feature_loss=at", "student=cnn"], ["student=mlp", "teacher.cache=per_epoch"]])
def test_a_student_learns_from_a_teacher_for_images_of_another_size(command, more):
    done = command("kdexp-train", "experiment=smoke", "dataset=digits", "teacher=resnet8", "+teacher.resize=16", *more)
    assert "teacher" in done.stdout


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_published_weights_of_other_classes_are_refused_before_they_are_fetched(tmp_path, monkeypatch, library):
    def fetch(*_args, **_more):
        raise AssertionError("fetched")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", fetch)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", fetch)
    config = compose(
        ["dataset=synthetic", "dataset.input_shape=[3,32,32]", f"teacher={library}", "teacher.weights=pretrained"],
        output_dir=tmp_path,
    )
    rule = "must be auto or a file when the data set does not have the 1000 classes of the published weights"
    with pytest.raises(ValueError, match=f"^teacher.weights {rule}, got pretrained with dataset=synthetic$"):
        assert Experiment(config).teacher


def weights_of(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize(
    "overrides",
    [["teacher=cnn_small", "student=cnn_small", "feature_loss=fitnet"], ["scheme=mutual", "loss=ctkd"]],
    ids=["adapters", "a loss that learns, after the peers"],
)
def test_the_order_in_which_parts_are_made_changes_no_number(tmp_path, store, overrides):
    config = compose(["experiment=smoke", *overrides], output_dir=tmp_path, store_dir=store)
    straight, about = Experiment(config), Experiment(config)
    wanted = weights_of(straight.distiller)
    _ = about.student
    torch.rand(1000)
    about.new_student()
    _ = about.losses
    torch.rand(1000)
    _ = about.peers, about.teacher
    found = weights_of(about.distiller)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_a_part_is_made_once_and_only_when_it_is_wanted(tmp_path):
    experiment = Experiment(compose(["experiment=smoke"], output_dir=tmp_path, store_dir=tmp_path / "store"))
    assert experiment.student is experiment.student
    assert not (tmp_path / "store").exists(), "a student needs no teacher"
    assert Experiment(experiment.config, may_train_teacher=False).teacher is None
    assert experiment.control().members == {}


@pytest.mark.parametrize(
    ("overrides", "epochs"),
    [
        ([], 2),
        (["trainer.max_steps=18"], 2),  # 288 samples in batches of 32: 9 steps
        (["trainer.max_steps=19"], 3),
        (["trainer.max_steps=3", "trainer.max_epochs=9"], 1),
        (["trainer.max_steps=8", "trainer.accumulate_grad_batches=3"], 3),  # 3 steps, the last of two batches
        (["trainer.max_steps=8", "trainer.limit_train_batches=0.5"], 2),
        (["trainer.max_steps=8", "trainer.limit_train_batches=2"], 4),
        (["trainer.max_steps=9", "dataset.train_fraction=0.25", "dataset.drop_last=false"], 3),  # 3 of at most 32
    ],
)
def test_steps_in_place_of_epochs_are_whole_epochs(tmp_path, overrides, epochs):
    small = ["experiment=smoke", "dataset.source.train_samples=320", "dataset.batch_size=32"]
    assert Experiment.compose(*small, *overrides, output_dir=tmp_path).epochs == epochs


def test_a_teacher_of_random_weights_is_the_same_for_every_seed_of_the_student(tmp_path):
    def weights(*overrides):
        composed = compose(["experiment=smoke", "teacher.weights=random", *overrides], output_dir=tmp_path)
        return Experiment(composed).teacher.networks[0].state_dict()

    one, same, other = weights("seed=1"), weights("seed=2"), weights("teacher.recipe.seed=5")
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_margins_and_reasons_of_the_loss_statement_are_no_part_of_what_a_run_computes(tmp_path):
    plain, stated = (
        Identity(plain_values(compose(["experiment=smoke", *more], output_dir=tmp_path)))
        for more in ([], ["loss_statement.margins.acc=0.02", "loss_statement.acceptable=why"])
    )
    assert plain.values != stated.values
    assert (plain.fingerprint, plain.control_fingerprint) == (stated.fingerprint, stated.control_fingerprint)
