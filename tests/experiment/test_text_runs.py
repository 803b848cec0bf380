"""Runs of text classification, whole."""

import json

import own_data
import pytest
import torch
from safetensors.torch import load_file

from kdexp.config.compose import compose
from kdexp.experiment import finished_run
from kdexp.experiment.experiment import Experiment
from kdexp.experiment.keys import teacher_key, weights_file
from kdexp.experiment.run import run
from kdexp.training.distiller import Distiller

pytest.importorskip("tokenizers", reason="pip install 'kdexp[text]'")

SMOKE = (
    "dataset=csv", "student=textcnn", "student.width=8", "student.channels=8", "student.max_tokens=16",
    "student.vocab_size=60", "teacher=text_transformer", "teacher.width=16", "teacher.hidden=16", "teacher.depth=1",
    "teacher.max_tokens=24", "teacher.vocab_size=80", "teacher.tokenizer.kind=bpe", "teacher.recipe.max_epochs=3",
    "teacher.recipe.batch_size=16", "dataset.batch_size=16", "trainer.max_epochs=3", "trainer.accelerator=cpu",
    "tracking=none",
)  # fmt: skip


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    return (*SMOKE, *own_data.texts(tmp_path_factory.mktemp("questions")))


def trained(words, folder, store, *overrides):
    """The results of a run, and the weights of its student."""
    results = run(compose([*words, *overrides], output_dir=folder, store_dir=store))
    return results, load_file(folder / "student.safetensors")


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def distilled(questions, tmp_path_factory, store):
    folder = tmp_path_factory.mktemp("texts") / "run"
    return folder, *trained(questions, folder, store)


def test_a_run_learns_from_a_teacher_with_another_vocabulary(distilled):
    _, results, weights = distilled
    assert results["measure"] == "acc"
    assert results["epochs"]["monitor"] == "val/auc"  # two classes
    assert {"acc", "f1", "auc", "nll", "ece", "agreement"} <= set(results["metrics"]["test"]["best"])
    assert sum(map(sum, results["curves"]["confusion"])) == results["samples"]["test"] == 16
    assert results["config"]["dataset"]["classes"] == ["Ort", "Zahl"]
    assert results["teacher"]["test"]["acc"] > 0.9
    known = json.loads(weights["tokens.vocabulary"].numpy().tobytes())["model"]["vocab"]
    assert "where" in known


def test_it_is_evaluated_again_from_its_weights_alone(distilled, store):
    folder, results, _ = distilled
    again = finished_run.run(compose([f"run={folder}", "accelerator=cpu", f"store_dir={store}"], "eval"))
    assert again == pytest.approx(results["metrics"]["test"]["best"], rel=1e-6)


def test_the_vocabulary_is_of_the_training_split_alone(distilled, questions, store):
    _, _, weights = distilled
    experiment = Experiment.compose(*questions, output_dir="unused", store_dir=store)
    splits = experiment.data.student.splits
    student = experiment.new_student()
    student.tokens.prepare(splits.train.inputs[splits.train.index])
    assert torch.equal(student.tokens.vocabulary, weights["tokens.vocabulary"])
    less = Experiment.compose(*questions, "dataset.train_fraction=0.2", output_dir="unused", store_dir=store)
    assert not torch.equal(less.student.tokens.vocabulary, weights["tokens.vocabulary"])


def test_cached_outputs_give_the_same_student_to_the_bit(distilled, questions, tmp_path, store):
    cache = ("teacher.cache=unaugmented", "teacher.cache_precision=fp32")
    _, cached = trained(questions, tmp_path / "cached", store, *cache)
    assert same(cached, distilled[2])


def test_an_interrupted_run_is_resumed_to_the_same_bits(distilled, questions, tmp_path, store, monkeypatch):
    begin = Distiller.on_train_epoch_start

    def stop(self):
        if self.current_epoch == 2:
            raise KeyboardInterrupt
        begin(self)

    with monkeypatch.context() as patch:
        patch.setattr(Distiller, "on_train_epoch_start", stop)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            run(compose(questions, output_dir=tmp_path / "run", store_dir=store))
    _, resumed = trained((), tmp_path / "run", store, f"resume={tmp_path}/run")
    assert same(resumed, distilled[2])


def test_texts_without_a_label_feed_the_soft_term(questions, tmp_path, store):
    words = ("dataset.unlabeled_fraction=0.9", "trainer.max_epochs=1", "alpha=0")
    _, with_teacher = trained(questions, tmp_path / "run", store, *words)
    _, alone = trained(questions, tmp_path / "alone", store, *words[:2], "alpha=1")
    assert not torch.equal(with_teacher["embedding.weight"], alone["embedding.weight"])


def test_with_alpha_1_the_student_is_that_of_plain_training(questions, tmp_path, store):
    results, weights = trained(questions, tmp_path / "run", store, "alpha=1", "scheduler=constant", "student.dropout=0",
                               "student.word_dropout=0")  # fmt: skip
    experiment = Experiment.compose(*questions, "student.dropout=0", "student.word_dropout=0", output_dir="unused")
    student, given = experiment.student, experiment.config.optimizer
    optimizer = torch.optim.AdamW(student.parameters(), lr=given.lr, weight_decay=given.weight_decay, fused=True)
    for epoch in range(results["epochs"]["best"] + 1):
        for batch in experiment.data.student.epochs("cpu")(epoch):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(student(batch.inputs), batch.target).backward()
            optimizer.step()
    assert same(weights, student.state_dict())


@pytest.mark.parametrize("scheme", ["mutual", "ema", "born_again"])
def test_schemes_work_with_texts(questions, tmp_path, store, scheme):
    words = ["trainer.max_epochs=1", f"scheme={scheme}"]
    words += ["+student@scheme.peers.a=textrnn", "scheme.peers.a.vocab_size=50"] if scheme == "mutual" else []
    results, _ = trained(questions, tmp_path / "run", store, *words)
    assert results["status"] == "completed"


@pytest.mark.slow
def test_programs_take_texts(questions, command, tmp_path):
    done = command("kdexp-doctor", *questions)
    assert "0 errors" in done.stdout
    assert "inputs of the" not in done.stdout
    for launcher in ("basic", "fused"):
        command("kdexp-train", "-m", *questions, "alpha=1,0.5", f"sweep_name={launcher}", f"hydra/launcher={launcher}")
    assert len(list(tmp_path.glob("multirun/*/report.html"))) == 2
    weights = [
        [load_file(path) for path in sorted(tmp_path.glob(f"multirun/{launcher}/*/student.safetensors"))]
        for launcher in ("basic", "fused")
    ]
    assert all(same(one, other) for one, other in zip(*weights, strict=True))
    for trainer in ("cpu", "ddp_cpu"):
        kept = [word for word in questions if not word.startswith("trainer.accelerator")]
        settings = (f"trainer={trainer}", "trainer.max_epochs=2", "student.dropout=0", "student.word_dropout=0")
        command("kdexp-train", *kept, *settings, f"output_dir={tmp_path}/{trainer}")
    one, two = (json.loads((tmp_path / name / "results.json").read_text())["metrics"] for name in ("cpu", "ddp_cpu"))
    for name, value in one["test"]["last"].items():
        assert two["test"]["last"][name] == pytest.approx(value, abs=1e-4), name


@pytest.mark.parametrize(("overrides", "message"), [
    (("student=mlp",), r"student must read texts with dataset=csv, got \w+; for task=text there are textcnn, .*"),
    (("augment=mixup",), "augment.transforms must be made for texts with dataset=csv, got kdexp.data.augment.Mixup"),
    (("scheme=pgd_at", "alpha=1"), "scheme must attack nothing for task=text, got kdexp.schemes.pgd_at.PGDTraining"),
    (("task=classification",), "student must not read texts with dataset=csv, got TextCNN; .* there is mlp"),
    (("student.tokenizer.file=no.json",), "student.tokenizer.file must be an existing tokenizer.json, got no.json"),
    (("student.heads=3",), "there is no setting student.heads.*"),
])  # fmt: skip
def test_what_makes_no_sense_is_one_line_before_any_training(questions, tmp_path, store, overrides, message, caplog):
    kept = [word for word in questions if overrides[0] != "student=mlp" or not word.startswith("student.")]
    with pytest.raises(ValueError, match=f"^{message}$"):
        run(compose([*kept, *overrides], output_dir=tmp_path / "run", store_dir=store / "empty"))
    assert "epoch 1" not in caplog.text


@pytest.mark.parametrize(("dataset", "message"), [
    ("digits", r"student.* textcnn takes texts: input_shape must be \(characters\), got \[1, 8, 8\]; for .*"),
    ("breast_cancer", "student must not read texts with dataset=breast_cancer, got TextCNN; .* there is mlp"),
])  # fmt: skip
def test_a_network_of_texts_is_refused_for_numbers(tmp_path, store, dataset, message):
    config = compose([f"dataset={dataset}", "student=textcnn", "tracking=none"], output_dir=tmp_path, store_dir=store)
    with pytest.raises(ValueError, match=f"^{message}$"):
        run(config)


def test_a_teacher_with_another_tokenizer_in_its_file_is_another_one(questions, tmp_path, store):
    file, folders = tmp_path / "tokenizer.json", []
    for kind in ("words", "bpe"):
        made = Experiment.compose(*questions, f"student.tokenizer.kind={kind}", output_dir=tmp_path, store_dir=store)
        file.write_bytes(made.student.tokens.vocabulary.numpy().tobytes())
        words = (*questions, f"teacher.tokenizer.file={file}")
        experiment = Experiment.compose(*words, output_dir=tmp_path, store_dir=store)
        (member,) = experiment.members.values()
        key = teacher_key(member, experiment.config.dataset, experiment.config.task, experiment.data.content, {})
        folders.append(weights_file(member, str(store), key))
        assert set(key["files"]) == {"tokenizer.json"}
    assert folders[0] != folders[1]
