"""A student that begins with blocks of its teacher."""

import csv

import own_data
import pytest
import torch

from kdexp.config.compose import compose, plain
from kdexp.config.identity import Identity
from kdexp.experiment.check import check
from kdexp.experiment.experiment import Experiment
from kdexp.experiment.networks import init_from_teacher
from kdexp.experiment.run import run
from kdexp.models.text_transformer import text_transformer

pytest.importorskip("tokenizers", reason="pip install 'kdexp[text]'")

SETTINGS = {"tokenizer": {"kind": "words", "file": None}, "max_tokens": 8, "heads": 2, "hidden": 12}


def network(seed=0, **changed):
    torch.manual_seed(seed)
    return text_transformer(3, [20], **(SETTINGS | {"width": 8, "vocab_size": 30, "depth": 3} | changed))


def taken(student, teacher):
    """Names of what the student has to the bit of the same name in the teacher, without what is all 0 or 1."""
    own, given = student.state_dict(), teacher.state_dict()
    return {name for name in own if torch.equal(own[name], given[name]) and own[name].unique().numel() > 1}


def test_blocks_are_the_chosen_ones_and_the_rest_is_the_teachers():
    student, teacher = network(1, depth=2), network(2, depth=3)
    teacher.tokens.take(vocabulary("a b c"), "here")
    init_from_teacher(student, teacher, [0, 2])
    own, given = student.state_dict(), teacher.state_dict()
    for name in own:
        source = name.replace("blocks.1.", "blocks.2.")
        assert torch.equal(own[name], given[source]), name
    texts = torch.tensor([[97, 32, 98, 0]], dtype=torch.int32)
    assert torch.equal(student.eval().tokens(texts)[0], teacher.eval().tokens(texts)[0])
    init_from_teacher(student, teacher, [1, 1])
    assert torch.equal(student.blocks[0].mlp[0].weight, teacher.blocks[1].mlp[0].weight)


def vocabulary(words):
    tokens = network().tokens
    tokens.prepare(torch.tensor([list(map(ord, words))], dtype=torch.int32))
    return tokens.vocabulary.numpy().tobytes().decode()


def test_what_has_another_shape_stays_and_the_vocabulary_goes_with_its_embedding():
    student, teacher = network(1, vocab_size=20), network(2)
    student.tokens.take(vocabulary("x y"), "here")
    teacher.tokens.take(vocabulary("a b c"), "here")
    mine = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    init_from_teacher(student, teacher, [0, 1, 2])
    stays = {"tokens.vocabulary", "embedding.words.weight"}
    assert {name for name, tensor in student.state_dict().items() if torch.equal(tensor, mine[name])} >= stays
    assert "embedding.positions.weight" in taken(student, network(2))


TWO = "must be 2 of the teacher's blocks, from 0 to 2, one for each of the student's"


@pytest.mark.parametrize(
    ("changed", "chosen", "message"),
    [
        ({"depth": 2}, [0], f"{TWO}, got [0]"),
        ({"depth": 2}, [0, 3], f"{TWO}, got [0, 3]"),
        ({"depth": 1, "width": 4}, [0], "must be null where student and teacher have other blocks, got "
         "(4, 4) of blocks.0.attention.query.weight for (8, 8) of blocks.0.attention.query.weight"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line(changed, chosen, message):
    with pytest.raises(ValueError, match=r"^student.init_from_teacher ") as raised:
        init_from_teacher(network(**changed), network(), chosen)
    assert str(raised.value) == f"student.init_from_teacher {message}"


def test_a_network_without_blocks_is_refused():
    message = r"^student.init_from_teacher must be null where a network has no blocks, got \[0\] with Linear$"
    with pytest.raises(ValueError, match=message):
        init_from_teacher(torch.nn.Linear(2, 2), network(), [0])


def test_vision_transformers_have_blocks_too():
    words = ["experiment=smoke", "student=timm", "student.name=test_vit", "+student.img_size=32"]
    words += ["dataset.input_shape=[3,32,32]", "dataset.mean=[0.5,0.5,0.5]", "dataset.std=[0.2,0.2,0.2]"]
    config = compose(words, output_dir="unused")
    student = Experiment(config).new_student(pretrained=None)
    config.seed = 1
    teacher = Experiment(config).new_student(pretrained=None)
    chosen = list(range(len(student.blocks)))
    init_from_teacher(student, teacher, chosen)
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(student.eval()(images), teacher.eval()(images))


WORDS = (
    "dataset=csv", "student=text_transformer", "student.width=16", "student.hidden=16", "student.depth=1",
    "student.max_tokens=16", "student.vocab_size=60", "teacher=text_transformer", "teacher.width=16",
    "teacher.hidden=16", "teacher.depth=2", "teacher.max_tokens=16", "teacher.vocab_size=60",
    "teacher.recipe.max_epochs=2", "teacher.recipe.batch_size=16", "dataset.batch_size=16", "trainer.max_epochs=1",
    "trainer.accelerator=cpu", "tracking=none",
)  # fmt: skip


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    return (*WORDS, *own_data.texts(tmp_path_factory.mktemp("questions")))


def test_a_run_begins_there_and_its_control_does_not(questions, store):
    words = (*questions, "student.init_from_teacher=[1]")
    experiment = Experiment.compose(*words, output_dir="unused", store_dir=store)
    student, teacher = experiment.student, experiment.teacher.networks[0]
    assert torch.equal(student.blocks[0].mlp[0].weight, teacher.blocks[1].mlp[0].weight)
    assert torch.equal(student.tokens.vocabulary, teacher.tokens.vocabulary)
    assert torch.equal(student.classifier.weight, teacher.classifier.weight)
    for control in (experiment.control(), Experiment.compose(*words, "alpha=1", output_dir="unused")):
        assert not torch.equal(control.student.classifier.weight, teacher.classifier.weight)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["pkd", "minilm", "fitnet", "feature_mse", "cosine"])
def test_losses_of_token_states_train(questions, store, tmp_path, loss):
    """With dropout in training, cut padding, and the teacher's cached outputs."""
    stages = [f"+feature_loss.{loss}.stages=[0,1]"] if loss in ("feature_mse", "cosine") else []
    words = ["student.depth=2", "student.init_from_teacher=[0,1]", f"feature_loss={loss}", "teacher.cache=unaugmented"]
    run(compose([*questions, *words, *stages], output_dir=tmp_path / "run", store_dir=store))
    with (tmp_path / "run" / "metrics.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert float(row[f"train/loss_{loss}"]) > 0


def test_it_tells_runs_apart_but_not_their_controls(questions):
    def identity(*words):
        return Identity(plain(compose([*questions, *words], output_dir="unused")))

    plainly, begun = identity(), identity("student.init_from_teacher=[1]")
    assert begun.fingerprint != plainly.fingerprint
    assert begun.control_fingerprint == plainly.control_fingerprint
    assert identity("student.init_from_teacher=[1]", "alpha=1").fingerprint == identity("alpha=1").fingerprint


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["student.init_from_teacher=2"], "must be null or a list of the teacher's blocks, from 0, got 2"),
        (["student.init_from_teacher=[]"], r"must be null or a list of the teacher's blocks, from 0, got \[\]"),
        (
            ["student.init_from_teacher=[0]", "loss=label_smoothing"],
            "must be null where there is no teacher, or several",
        ),
    ],
)
def test_the_setting_is_checked_first(questions, words, message):
    with pytest.raises(ValueError, match=f"^student.init_from_teacher {message}"):
        check(compose([*questions, *words], output_dir="unused"))
