"""Laws of every network in conf/: a new yaml is tested because it is there."""

import copy
from functools import cache
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from kdexp.contracts import SeesTrainingInputs
from kdexp.data.texts import code_points

CONF = Path(__file__).parents[2] / "conf"
# tests/models/test_vae.py, test_text_models.py, test_huggingface.py, tests/experiment/test_own_module.py
OTHERS = ("base", "vae_mlp", "vae_conv", "hf_text", "huggingface", "module")
STUDENTS = sorted(path.stem for path in (CONF / "student").glob("*.yaml") if path.stem not in OTHERS)
# Networks of libraries name and write their modules as those libraries do.
LIBRARIES = ("torchvision", "timm", "torchvision_segmentation", "smp")
OWN = [name for name in STUDENTS if name not in LIBRARIES]
DENSE = ("unet", "mobilenet_unet", "torchvision_segmentation", "smp")
CLASSIFIERS = [name for name in OWN if name not in DENSE]
SHAPES = [(3, 16, 16), (12,), (7, 5)]
NUM_CLASSES = 5

every_student = pytest.mark.parametrize("name", STUDENTS)
every_own_student = pytest.mark.parametrize("name", OWN)


@pytest.fixture(scope="module")
def composed(tmp_path_factory):
    """Composes one group of conf/ for a data set that is made up here."""
    folder = tmp_path_factory.mktemp("conf")
    (folder / "dataset").mkdir()

    @cache
    def do(group, name, input_shape):
        (folder / "dataset" / "probe.yaml").write_text(
            f"num_outputs: {NUM_CLASSES}\ninput_shape: {list(input_shape)}\nmean: [0.0]\nstd: [1.0]\n"
        )
        (folder / "probe.yaml").write_text(
            f"defaults: [{group}: {name}, dataset: probe, _self_]\ntrainer: {{channels_last: auto, monitor: auto}}\n"
            f"hydra: {{searchpath: ['file://{CONF}']}}\n"
        )
        with initialize_config_dir(str(folder), version_base="1.3"):
            config = OmegaConf.to_container(compose("probe")[group], resolve=True)
        config.pop("feature_layers")  # says where representations are read; see tests/test_features.py
        config.pop("init_from_teacher", None)  # tests/experiment/test_init_from_teacher.py
        return OmegaConf.create(config)

    return do


@pytest.fixture(scope="module")
def build(composed):
    """A network of conf/student and the first of SHAPES that it takes."""

    def do(name, seed=0):
        if name == "smp":
            pytest.importorskip("segmentation_models_pytorch", reason="pip install 'kdexp[smp]'")
        for input_shape in SHAPES:
            torch.manual_seed(seed)
            try:
                model = instantiate(composed("student", name, input_shape), _convert_="all")
            except Exception as error:
                if not isinstance(error.__cause__, ValueError):
                    raise
                continue
            for module in model.modules():
                if isinstance(module, SeesTrainingInputs):
                    module.prepare(code_points(["a b"]))
            return model, input_shape
        raise AssertionError(f"{name} takes none of {SHAPES}")

    return do


@pytest.fixture(scope="module")
def built_once(build):
    return cache(build)


@pytest.fixture
def built(built_once):
    """The same, as a fresh copy of one that was built before: to draw initial weights takes long."""
    return lambda name: copy.deepcopy(built_once(name))


def batch(input_shape, seed=1):
    return torch.randn(4, *input_shape, generator=torch.Generator().manual_seed(seed))


@every_student
def test_logits_have_a_row_a_sample_and_every_parameter_a_finite_gradient(name, built):
    model, input_shape = built(name)
    logits = model(batch(input_shape))
    size = input_shape[1:] if name in DENSE else ()  # a row for each pixel
    assert logits.shape == (4, NUM_CLASSES, *size)
    target = torch.arange(4).view(4, *(1 for _ in size)).expand(4, *size)
    torch.nn.functional.cross_entropy(logits, target).backward()
    for path, parameter in model.named_parameters():
        assert parameter.grad is not None, path
        assert parameter.grad.isfinite().all(), path


@every_student
def test_saved_weights_make_another_build_the_same_network(name, built, build, tmp_path):
    (model, input_shape), (other, _) = built(name), build(name, seed=1)
    inputs = batch(input_shape)
    model(inputs)  # fills the buffers of batch norm
    assert not torch.equal(other.eval()(inputs), model.eval()(inputs))
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    torch.testing.assert_close(other.eval()(inputs), model.eval()(inputs), rtol=0, atol=0)


@every_student
def test_the_torch_seed_alone_decides_the_initial_weights(name, build):
    first, second = (build(name, seed=3)[0].state_dict() for _ in range(2))
    assert all(torch.equal(first[path], second[path]) for path in first)


@every_student
def test_in_eval_mode_a_network_answers_alike_and_stays_as_it_is(name, built):
    model, input_shape = built(name)
    model.eval()
    before = {path: tensor.clone() for path, tensor in model.state_dict().items()}
    answers = [model(batch(input_shape)) for _ in range(2)]
    assert torch.equal(*answers)
    assert all(torch.equal(before[path], tensor) for path, tensor in model.state_dict().items())


@every_own_student
def test_what_a_hook_saw_is_not_overwritten_later(name, built):
    model, input_shape = built(name)
    seen = []

    def keep(module, _, output):
        if isinstance(output, torch.Tensor):
            seen.append((module, output, output.detach().clone()))

    for module in model.modules():
        module.register_forward_hook(keep)
    model(batch(input_shape))
    assert len(seen) > 2
    for module, output, at_that_time in seen:
        assert torch.equal(output, at_that_time), module


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_classifier_reads_what_pool_or_hidden_gave(name, built):
    model, input_shape = built(name)
    model.eval()  # dropout between them
    seen = {}
    features = model.get_submodule("hidden" if name.startswith("mlp") else "pool")
    features.register_forward_hook(lambda _, inputs, output: seen.update(features=output))
    model.classifier.register_forward_hook(lambda _, inputs, output: seen.update(read=inputs[0]))
    model(batch(input_shape))
    assert seen["features"].ndim == 2
    assert torch.equal(seen["features"], seen["read"])


@pytest.mark.parametrize("name", [name for name in OWN if "text" not in name])
def test_channels_last_changes_no_logit(name, built):
    model, input_shape = built(name)
    model, inputs = model.eval().double(), batch(input_shape).double()
    expected = model(inputs)
    actual = model.to(memory_format=torch.channels_last)(inputs.to(memory_format=torch.channels_last))
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-10)


@every_student
def test_a_teacher_of_the_same_name_has_the_same_network(name, composed):
    student, teacher = (composed(group, name, SHAPES[0]) for group in ("student", "teacher"))
    assert student["_target_"].startswith("kdexp.models.")
    assert {key: teacher[key] for key in student} == dict(student)
    assert teacher["weights"] == "auto"
