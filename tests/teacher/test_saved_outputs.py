"""Predictions in a file as a teacher: the same student to the bit, and nothing that does not fit is believed."""

import pickle
import re

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.special import softmax

from kdexp.cli import cache
from kdexp.config.compose import compose, plain
from kdexp.contracts import Batch, Outputs, Split, Splits
from kdexp.experiment.check import check
from kdexp.experiment.members import teacher_files
from kdexp.experiment.run import run
from kdexp.teacher.outputs_file import Table, read, write
from kdexp.teacher.saved_outputs import SavedOutputs
from kdexp.teacher.teacher import Teacher
from kdexp.weights import state_digest

CLASSES, SAMPLES, TESTED = 3, 12, 5
LOGITS = np.random.default_rng(0).standard_normal((SAMPLES, CLASSES)).astype(np.float32)


def part(inputs, index):
    return Split(inputs, torch.zeros(len(index), dtype=torch.int64), torch.tensor(index))


INPUTS, OTHERS = torch.zeros(SAMPLES, 2), torch.zeros(TESTED, 2)
SPLITS = Splits(part(INPUTS, [0, 2, 4, 6, 8, 9]), part(INPUTS, [1, 3]), part(OTHERS, list(range(TESTED))))


def bound(path, holds="logits", splits=SPLITS, kind="multiclass", classes=CLASSES):
    found = SavedOutputs(classes, [2], str(path), holds, kind)
    found.bind(splits, "teacher")
    return found


def npy(path, array=LOGITS):
    np.save(path, array)
    return path


def parquet(path, **columns):
    pyarrow = pytest.importorskip("pyarrow", reason="pip install 'kdexp[parquet]'")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(columns), path)
    return path


def test_rows_are_found_by_the_samples_ids_whatever_the_form(tmp_path):
    shuffled = np.random.default_rng(1).permutation(SAMPLES)
    save_file({"train": torch.from_numpy(LOGITS)}, tmp_path / "a.safetensors")
    rows = {"train": torch.from_numpy(LOGITS[shuffled]), "train.index": torch.from_numpy(shuffled)}
    save_file(rows, tmp_path / "b.safetensors")
    files = [npy(tmp_path / "a.npy"), tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    files += [parquet(tmp_path / "a.parquet", index=shuffled, logits=list(LOGITS[shuffled]))]
    by_class = {f"class {c}": LOGITS[shuffled, c] for c in range(CLASSES)}
    files += [parquet(tmp_path / "b.parquet", split=["train"] * SAMPLES, index=shuffled, **by_class)]
    ids = torch.tensor([9, 0, 0, 4])
    for file in files:
        found = bound(file)
        assert torch.equal(found.of("train", ids), torch.from_numpy(LOGITS)[ids]), file
        assert torch.equal(found.of("val", torch.tensor([3])), torch.from_numpy(LOGITS)[[3]])
        assert found.missing("val", SPLITS.val) == 0
        assert found.missing("test", SPLITS.test) == TESTED


def test_val_may_be_a_table_of_its_own_whether_it_was_carved_from_train_or_not(tmp_path):
    values = torch.from_numpy(LOGITS)
    tables = {
        name: Table(part.index, values[part.index]) for name, part in (("train", SPLITS.train), ("val", SPLITS.val))
    }
    write(tmp_path / "a.safetensors", {**tables, "test": Table(None, values[:TESTED] + 1)})
    found = bound(tmp_path / "a.safetensors")
    assert torch.equal(found.of("val", SPLITS.val.index), values[SPLITS.val.index])
    assert torch.equal(found.of("test", torch.tensor([2])), values[[2]] + 1)
    own = Splits(SPLITS.train, part(torch.zeros(4, 2), [0, 3]), SPLITS.test)
    assert torch.equal(bound(tmp_path / "a.safetensors", splits=own).of("val", torch.tensor([3])), values[[3]])


def test_probabilities_become_logits_of_the_same_softmax(tmp_path):
    probabilities = softmax(LOGITS.astype(np.float64), 1)
    probabilities[0] = [1, 0, 0]
    found = bound(npy(tmp_path / "a.npy", probabilities), "probabilities").of("train", torch.arange(SAMPLES))
    assert np.allclose(softmax(found.numpy(), 1), probabilities, atol=2e-7)
    assert found[0].tolist() == pytest.approx([0, np.log(1e-7), np.log(1e-7)])
    several = npy(tmp_path / "b.npy", probabilities)
    found = bound(several, "probabilities", kind="multilabel").of("train", torch.arange(SAMPLES))
    assert np.allclose(1 / (1 + np.exp(-found.numpy())), probabilities, atol=2e-7)


def test_members_of_both_kinds_are_averaged_and_nothing_is_said_of_other_inputs(tmp_path):
    saved, network = bound(npy(tmp_path / "a.npy")), torch.nn.Linear(2, CLASSES)
    both, batch = Teacher([network, saved]), Batch(torch.randn(2, 2), torch.zeros(2), torch.tensor([4, 0]))
    one, two = both.member_outputs_of("train", batch)
    assert torch.allclose(one.logits, network(batch.inputs), atol=1e-6)
    assert torch.equal(two.logits, saved.of("train", batch.index))
    assert not both.knows("test", SPLITS.test)
    (mean,) = [both.replaying("train", [batch])(batch.inputs)]
    assert torch.allclose(mean.logits.exp(), (one.logits.softmax(1) + two.logits.softmax(1)) / 2, atol=1e-6)
    assert isinstance(mean, Outputs)
    with pytest.raises(ValueError, match=r"^teacher must be a network where inputs are not the data set's own, got "):
        both(batch.inputs)


def test_it_is_known_by_its_content_and_what_that_is(tmp_path):
    files = [npy(tmp_path / "a.npy"), npy(tmp_path / "b.npy", LOGITS + 1), npy(tmp_path / "c.npy")]
    digests = [state_digest(SavedOutputs(CLASSES, [2], str(file), "logits")) for file in files]
    assert digests[0] == digests[2] != digests[1]
    assert state_digest(SavedOutputs(CLASSES, [2], str(files[0]), "probabilities")) not in digests


class Trap:
    def __reduce__(self):
        return exec, ("raise SystemExit('ran')",)


def bad_header(path):
    """A few bytes that say they are an array of exabytes."""
    content = npy(path).read_bytes().replace(b"(12, 3)", b"(9" + b"9" * 15 + b", 3)").replace(b" " * 15 + b"\n", b"\n")
    path.write_bytes(content)
    return path


NAN, SUM, LOW = LOGITS.copy(), softmax(LOGITS, 1), softmax(LOGITS, 1)
NAN[7, 1], SUM[5] = np.nan, SUM[5] * 0.9
LOW[3] = [1.5, -0.5, 0]


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        (
            "a.npy",
            lambda path: np.save(path, np.array([Trap()] * 3)),
            "must be a whole npy file of plain numbers, got ",
        ),
        (
            "a.npy",
            lambda path: path.write_bytes(pickle.dumps(Trap())),
            "must be a whole npy file of plain numbers, got ",
        ),
        ("a.npy", bad_header, "must be a whole npy file of plain numbers, got "),
        ("a.npy", lambda path: path.write_bytes(npy(path).read_bytes()[:-9]), "must be a whole npy file of plain "),
        ("a.npy", lambda path: npy(path, LOGITS.astype(int)), "must hold floats, got int64 in "),
        (
            "a.npy",
            lambda path: npy(path, LOGITS[:, :2]),
            "must hold 3 outputs of each sample, got shape [12, 2] of train",
        ),
        ("a.npy", lambda path: npy(path, LOGITS[0]), "must hold 3 outputs of each sample, got shape [3] of train in "),
        ("a.npy", lambda path: npy(path, LOGITS[:7]), "must have a row for each of the 12 samples, got 7 of train in "),
        ("a.npy", lambda path: npy(path, NAN), "must hold numbers that are neither NaN nor Inf, got "),
        (
            "a.npy",
            lambda path: npy(path, LOGITS.astype(np.float64) * 1e39),
            "must hold numbers that are neither NaN nor ",
        ),
        ("p.npy", lambda path: npy(path, SUM), "must be probabilities that sum to 1, got "),
        (
            "p.npy",
            lambda path: npy(path, LOW),
            "must be probabilities in [0, 1], got 1.5, -0.5, 0 in row 3 (from 0) of ",
        ),
        ("a.safetensors", lambda path: path.write_text("{}"), "must be a whole safetensors file, got "),
        ("a.safetensors", lambda path: save_file({"x": torch.ones(3)}, path), "must hold tensors train, val or test "),
        (
            "a.safetensors",
            lambda path: save_file({"train": torch.ones(2, 3), "train.index": torch.tensor([0, 12])}, path),
            "must have ids from 0 to 11, got 12 of train in ",
        ),
        (
            "a.safetensors",
            lambda path: save_file({"train": torch.ones(3, 3), "train.index": torch.tensor([0, 4, 4])}, path),
            "must have each id once, got 4 again of train in ",
        ),
        (
            "a.safetensors",
            lambda path: save_file({"train": torch.ones(2, 3), "train.index": torch.tensor([0, 2])}, path),
            "must hold the outputs of all samples that are learned from, got 2 of 6 in ",
        ),
        ("a.parquet", lambda path: path.write_text("PAR1"), "must be a whole parquet file, got "),
        ("a.parquet", lambda path: parquet(path, id=[1], logits=[[1.0]]), "must have a column index and columns of "),
        (
            "a.parquet",
            lambda path: parquet(path, index=[1, 2], logits=[[1.0], [1.0, 2]]),
            "must have as many numbers in ",
        ),
        ("a.parquet", lambda path: parquet(path, index=[1], a=["x"]), "must have as many numbers in each row, got "),
        ("a.parquet", lambda path: parquet(path, index=[1, None], a=[1.0, 2]), "must have a whole number as index in "),
        (
            "a.parquet",
            lambda path: parquet(path, index=[0], split=["training"], logits=[[1.0, 2, 3]]),
            "must have train, val or test as split, got training in ",
        ),
        (
            "a.parquet",
            lambda path: parquet(path, index=np.zeros(10**6, int), logits=np.zeros(10**6)),  # a few kB
            "must have at most 17 rows, got 1000000 in ",
        ),
        (
            "a.parquet",
            lambda path: parquet(path, index=[0], logits=[np.zeros(10**6)]),
            "must have 3 numbers in each row, got 1000000 of ",
        ),
        ("a.csv", lambda path: path.write_text("1,2"), "must be an existing npy, safetensors or parquet file, got "),
    ],
)
def test_what_is_broken_or_somebody_elses_trap_is_one_line(tmp_path, name, make, message):
    make(tmp_path / name)
    with pytest.raises(ValueError, match=f"^teacher.file {re.escape(message)}[^\n]*$"):
        bound(tmp_path / name, "probabilities" if name[0] == "p" else "logits")
    assert [path.name for path in tmp_path.iterdir()] == [name]


OUTPUTS = ["experiment=smoke", "tracking=none", "teacher=outputs"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "teacher.file must be given, got nothing"),
        (["teacher.file=x", "teacher.cache=none"], "teacher.cache must be unaugmented with teacher=outputs, got none"),
        (
            ["teacher.file=x", "teacher.cache=views:2", "augment=shift"],
            "augment must be none with teacher=outputs, or teacher.cache=unaugmented, got RandomCrop",
        ),
        (["teacher.file=x", "feature_loss=at"], "feature_loss must be none with teacher=outputs, got a feature loss"),
        (["teacher.file=x", "scheme=ard"], "teacher.cache must be none with scheme=ard, got unaugmented"),
        (
            ["teacher.file=x", "teacher.weights=auto"],
            "teacher.weights must be built for a teacher that is a file, got auto",
        ),
    ],
)
def test_what_would_show_it_other_samples_is_refused_in_one_line(more, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check(compose([*OUTPUTS, *more], output_dir="x", store_dir="y"))


@pytest.mark.slow
def test_a_student_of_saved_logits_is_that_of_their_network_to_the_bit(tmp_path, store, caplog):
    """With the logits of kdexp-cache export; those of training alone give it too, and are compared with nowhere."""
    settings = ["experiment=smoke", "tracking=none", "augment=none", "trainer.max_epochs=2", "trainer.accelerator=cpu"]

    def train(name, *more):
        return run(compose([*settings, *more], output_dir=tmp_path / name, store_dir=store))

    network = train("network")
    config = compose(settings, output_dir=tmp_path, store_dir=store)
    check(config)
    file = tmp_path / "logits.safetensors"
    cache.export(plain(config), file)
    saved = train("saved", "teacher=outputs", f"teacher.file={file}")
    assert saved["model"]["sha256"] == network["model"]["sha256"]
    assert saved["metrics"] == network["metrics"]
    assert saved["teacher"]["test"] == network["teacher"]["test"]
    with pytest.raises(ValueError, match=r"^the file must be a new one that ends with .safetensors, got "):
        cache.export(plain(config), file)
    tables = read(file, 10**6, 10)
    write(tmp_path / "train.safetensors", {"train": tables["train"]})
    alone = train("alone", "teacher=outputs", f"teacher.file={tmp_path / 'train.safetensors'}")
    assert "teacher" not in alone
    assert "agreement" in saved["metrics"]["test"]["best"]
    assert "agreement" not in alone["metrics"]["test"]["best"]


def test_a_run_remembers_the_digest_of_the_file(tmp_path):
    values = plain(compose([*OUTPUTS, f"teacher.file={npy(tmp_path / 'a.npy')}"], output_dir="x", store_dir="y"))
    before = teacher_files(values)
    npy(tmp_path / "a.npy", LOGITS + 1)
    assert before.keys() == teacher_files(values).keys() == {"teacher"}
    assert before != teacher_files(values)
