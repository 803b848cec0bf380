"""A teacher's cached outputs: they are the teacher's own, to the bit, whatever happened to the files."""

import json
import multiprocessing
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import warm_programs
from mounts import read_only
from scipy.special import log_softmax, logsumexp

from kdexp.cli import cache
from kdexp.config.compose import compose, plain
from kdexp.config.identity import Identity
from kdexp.contracts import Outputs
from kdexp.experiment import teacher_cache
from kdexp.experiment.experiment import Experiment
from kdexp.experiment.networks import build_network
from kdexp.experiment.run import run
from kdexp.teacher import cache_folders, cached_outputs
from kdexp.teacher.cache_folders import filled_views, folders, make_room, read_metadata, used
from kdexp.teacher.cached_outputs import CachedOutputs
from kdexp.teacher.output_codec import OutputCodec
from kdexp.teacher.teacher import Teacher

SCRIPTS = Path(sys.executable).parent
CLASSES, SAMPLES, SHARD = 5, 50, 16
INDEX = torch.arange(SAMPLES) * 3 + 1


def said(view: int | None, position: int) -> torch.Tensor:
    return torch.sin(torch.arange(CLASSES) * 1.7 + position + 100 * (view or 0))


class Asked:
    """A teacher whose answers are known, and who counts the questions."""

    def __init__(self, folder: Path | None = None):
        self.positions, self.folder = [], folder

    def __call__(self, view, positions):
        for start in range(positions.start, positions.stop, 7):
            part = range(start, min(start + 7, positions.stop))
            self.positions += [(view, position) for position in part]
            if self.folder is not None:
                for position in part:
                    (self.folder / f"{os.getpid()}-{view}-{position}").touch()
            yield [Outputs(torch.stack([said(view, position) for position in part]))]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(cache_folders, "SHARD", SHARD)


METADATA = {"samples": SAMPLES, "key": {"weights": "w"}, "created_for": {}, "split": "train", "config": {}}


def outputs(folder, ask, precision="fp32") -> CachedOutputs:
    return CachedOutputs(folder, METADATA, OutputCodec(1, [CLASSES], {}, precision), INDEX, ask)


def assert_right(kept: CachedOutputs, view: int | None) -> None:
    positions = torch.tensor([49, 0, 17, 17, 31])
    (found,) = kept(INDEX[positions], view, 1.0)
    assert torch.equal(found.logits, torch.stack([said(view, int(p)) for p in positions]))


def test_each_view_of_each_sample_is_asked_for_once_and_given_back_by_the_samples_ids(tmp_path):
    ask = Asked()
    kept = outputs(tmp_path, ask)
    for view in (0, 1, 0):
        kept.prepare(view)
        assert_right(kept, view)
    assert sorted(ask.positions) == [(view, position) for view in (0, 1) for position in range(SAMPLES)]
    again = Asked()
    other = outputs(tmp_path, again)
    assert filled_views(tmp_path, SAMPLES) == [0, 1]
    other.prepare(1)
    assert_right(other, 1)
    assert not again.positions


def test_a_view_too_large_to_hold_is_read_from_the_file_with_few_pages_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(cached_outputs, "_RESIDENT", 0)
    monkeypatch.setattr(cached_outputs, "_MAPPED", 0)
    kept = outputs(tmp_path, Asked())
    for view in (0, 3, 1):
        kept.prepare(view)
        assert_right(kept, view)


def of_an_older_kdexp(folder):
    """Gives the files of a cache the names that they had."""
    (folder / "outputs.bin").rename(folder / "answers.bin")
    metadata = json.loads((folder / "metadata.json").read_text())
    (folder / "card.json").write_text(json.dumps({"made_for": metadata.pop("created_for"), **metadata}))
    (folder / "metadata.json").unlink()


def test_a_cache_of_an_older_kdexp_is_used_where_it_is(tmp_path, caplog):
    outputs(tmp_path, Asked()).prepare(0)
    of_an_older_kdexp(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    ask = Asked()
    again = outputs(tmp_path, ask)
    again.prepare(0)
    assert_right(again, 0)
    assert not ask.positions
    assert {path.name for path in tmp_path.iterdir()} == names
    assert read_metadata(tmp_path) == METADATA
    assert not caplog.messages


@pytest.mark.parametrize("damage", ["flipped bit", "truncated", "digest", "emptied"])
def test_what_is_damaged_is_asked_again_and_never_used(tmp_path, damage, caplog):
    first = outputs(tmp_path, Asked())
    first.prepare(0)
    first.prepare(1)
    path = tmp_path / ("checksums.bin" if damage == "digest" else "outputs.bin")
    content = bytearray(path.read_bytes())
    view_and_shard = len(content) // 8 + 1  # in view 0
    if damage in ("flipped bit", "digest"):
        content[view_and_shard] ^= 4
    elif damage == "truncated":
        content = content[: len(content) // 2 + 30]  # view 1 lost, but for its first samples
    else:
        content = b""
    path.write_bytes(content)
    ask = Asked()
    again = outputs(tmp_path, ask)
    for view in (0, 1):
        again.prepare(view)
        assert_right(again, view)
    assert 0 < len(ask.positions) <= 2 * SAMPLES
    if damage == "flipped bit":
        assert len(ask.positions) == SHARD
    assert any("damaged" in message for message in caplog.messages)
    third = Asked()
    outputs(tmp_path, third).prepare(0)
    assert not third.positions


def test_a_job_that_is_killed_while_it_asks_leaves_nothing_that_counts(tmp_path):
    class Killed(Asked):
        def __call__(self, view, positions):
            for number, part in enumerate(super().__call__(view, positions)):
                if positions.start == SHARD and number == 1:
                    raise KeyboardInterrupt
                yield part

    with pytest.raises(KeyboardInterrupt):
        outputs(tmp_path, Killed()).prepare(0)
    ask = Asked()
    kept = outputs(tmp_path, ask)
    assert filled_views(tmp_path, SAMPLES) == []
    kept.prepare(0)
    assert_right(kept, 0)
    assert len(ask.positions) == SAMPLES - SHARD  # the first shard was whole


def fill(folder: Path) -> None:
    cache_folders.SHARD = SHARD
    kept = outputs(folder / "answers", Asked(folder))
    for view in range(8):
        kept.prepare(view)
        assert_right(kept, view)


def test_processes_that_fill_at_once_share_the_work_and_none_is_done_twice(tmp_path):
    context = multiprocessing.get_context("forkserver")
    processes = [context.Process(target=fill, args=(tmp_path,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    asked = [path.name.partition("-")[2] for path in tmp_path.glob("*-*-*")]
    assert len(asked) == len(set(asked)) == 8 * SAMPLES


def test_room_is_looked_for_before_anything_is_asked(tmp_path):
    kept = outputs(tmp_path / "a", Asked())
    kept.prepare(0)
    assert folders(tmp_path) == [tmp_path / "a"]
    assert used(tmp_path / "a") >= kept.bytes_per_view
    make_room(tmp_path, {tmp_path / "b": 10**6}, max_gb=1)
    with pytest.raises(ValueError, match=r"^teacher.cache_max_gb must be at least 2 for this cache \(2\).* got 1$"):
        make_room(tmp_path, {tmp_path / "b": 2 * 10**9}, max_gb=1)
    with pytest.raises(ValueError, match=r"^store_dir must have 1e\+06 GB free"):
        make_room(tmp_path, {tmp_path / "b": 10**15}, max_gb=10**7)


def test_half_precision_is_refused_where_it_overflows():
    record = OutputCodec(1, [2], {}, "fp16")
    with pytest.raises(ValueError, match=r"^teacher.cache_precision must be fp32 for .* above 65504, got fp16$"):
        record.encode([Outputs(torch.tensor([[1.0, 1e5]]))])


def test_half_precision_keeps_logits_to_three_digits():
    logits = torch.randn(500, 100) * 8
    record = OutputCodec(1, [100], {}, "fp16")
    (found,) = record.decode(cached_outputs._fields(record.encode([Outputs(logits)]), torch.device("cpu")), 1.0)
    assert (found.logits - logits).abs().max() <= 2**-11 * logits.abs().max()
    p, q = (x.double().log_softmax(1) for x in (logits, found.logits))
    assert (p.exp() * (p - q)).sum(1).mean() < 1e-5


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0, 1e6])
def test_the_rest_of_many_classes_keeps_its_probability(temperature):
    """Exactly at T = 1 and for T to infinity, and nearly between if it is spread as normally as here."""
    logits = torch.randn(4, 5000, generator=torch.Generator().manual_seed(0)) * 2
    record = OutputCodec(1, [5000], {}, "fp32", top_k=50)
    assert record.dtype.itemsize < 500
    fields = cached_outputs._fields(record.encode([Outputs(logits)]), torch.device("cpu"))
    (found,) = record.decode(fields, temperature)
    for given, kept in zip(logits.numpy().astype(float), found.logits.numpy().astype(float), strict=True):
        top = np.argsort(given)[-50:]
        np.testing.assert_array_equal(kept[top], given[top])
        wanted, got = (logsumexp(np.delete(log_softmax(z / temperature), top)) for z in (given, kept))
        assert got == pytest.approx(wanted, abs=1e-4 if temperature in (1.0, 1e6) else 0.02)


# Whole runs

IMAGES = [
    "experiment=smoke", "tracking=none", "augment=shift", "trainer.max_epochs=3", "dataset.source.train_samples=300",
    "dataset.batch_size=100", "dataset.drop_last=false",
]  # fmt: skip
SHARED = [*IMAGES, "augment.seed=0"]  # what a cache would set


def train(folder, store, *overrides, threads=1):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return run(compose([*SHARED, *overrides], output_dir=folder, store_dir=store))
    finally:
        torch.set_num_threads(before)


def same_weights(a: Path, b: Path) -> bool:
    one, two = (torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for folder in (a, b))
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


MEMBERS = [f"teacher@teacher.members.{name}={net}" for name, net in (("a", "mlp"), ("b", "cnn"), ("c", "cnn_small"))]
MEMBERS += [f"teacher.members.{name}.recipe.max_epochs=1" for name in "abc"]
FP32 = "teacher.cache_precision=fp32"


@pytest.mark.parametrize(
    ("online", "cached"),
    [
        (["augment.views=2"], ["teacher.cache=views:2"]),
        ([], ["teacher.cache=per_epoch"]),
        pytest.param(["augment.views=0"], ["teacher.cache=unaugmented"], marks=pytest.mark.slow),
        (["teacher=ensemble", *MEMBERS, "augment.views=2"], ["teacher=ensemble", *MEMBERS, "teacher.cache=views:2"]),
        (["feature_loss=at", "augment.views=2"], ["feature_loss=at", "teacher.cache=views:2"]),
        pytest.param(
            ["trainer.precision=bf16-mixed", "augment.views=2"],
            ["trainer.precision=bf16-mixed", "teacher.cache=views:2"],
            marks=pytest.mark.slow,
        ),
    ],
    ids=["views", "per_epoch", "unaugmented", "ensemble", "features", "bf16"],
)
def test_a_run_with_cached_outputs_gives_the_weights_of_the_online_run_to_the_bit(tmp_path, store, online, cached):
    kept = tmp_path / "store"
    (kept / "teachers").parent.mkdir()
    (kept / "teachers").symlink_to(store / "teachers")
    (store / "teachers").mkdir(exist_ok=True)
    train(tmp_path / "online", kept, *online)
    # Filled by a job with another seed, batch size, temperature and number of threads.
    others = ["seed=7", "dataset.batch_size=64", "temperature=9", "trainer.max_epochs=2"]
    train(tmp_path / "other", kept, *cached, FP32, *others, threads=2)
    filled = {path: path.stat().st_mtime_ns for path in kept.glob("teacher-outputs/*/outputs.bin")}
    result = train(tmp_path / "cached", kept, *cached, FP32)
    assert same_weights(tmp_path / "online", tmp_path / "cached")
    wanted = json.loads((tmp_path / "online" / "results.json").read_text())["metrics"]
    assert result["metrics"] == wanted
    assert filled.keys() == set(kept.glob("teacher-outputs/*/outputs.bin"))
    if "per_epoch" not in cached[0]:  # which needed two views more
        assert all(path.stat().st_mtime_ns == time for path, time in filled.items())


def test_half_precision_answers_give_nearly_the_same_student(tmp_path, store):
    """Of the loss 1e-3, of the accuracy one sample in a hundred: what docs/teacher_cache.md promises."""
    runs = {}
    for precision in ("fp32", "fp16"):
        runs[precision] = train(
            tmp_path / precision, store, "teacher.cache=views:2", f"teacher.cache_precision={precision}"
        )
    assert not same_weights(tmp_path / "fp32", tmp_path / "fp16")
    one, two = (runs[precision]["metrics"]["test"]["last"] for precision in ("fp32", "fp16"))
    assert two["nll"] == pytest.approx(one["nll"], rel=1e-3)
    assert two["acc"] == pytest.approx(one["acc"], abs=0.01)


def test_a_cache_is_shared_by_what_does_not_change_the_answers_and_by_nothing_else(tmp_path, store):
    seen: set[Path] = set()

    def new(*overrides):
        config = compose(
            [*IMAGES, "teacher.cache=views:1", *overrides], output_dir=tmp_path, store_dir=tmp_path / "store"
        )
        data = Experiment(config).data
        torch.manual_seed(config.teacher.recipe.seed)
        teacher = Teacher([build_network(config.teacher, "teacher", config.dataset, config.task)])
        kept = {
            each.folder
            for each in teacher_cache.teacher_cache(
                config, {"teacher": config.teacher}, teacher, data, config.trainer.max_epochs
            ).splits.values()
        }
        count = len(kept - seen)
        seen.update(kept)
        return count

    assert new() == 3  # train, val, test
    assert (
        new("seed=3", "alpha=0.7", "temperature=2", "student=mlp", "optimizer.lr=0.1", "dataset.label_noise=0.3") == 0
    )
    assert new("teacher.cache=views:2", "trainer.max_epochs=1", "dataset.batch_size=32") == 0
    assert new("augment=digits") == 1
    assert new("augment.seed=1") == 1
    assert new("teacher.cache=unaugmented") == 1
    assert new("dataset.train_fraction=0.5") == 1
    assert new("dataset.source.noise=2") == 3
    assert new("dataset.mean=[0.4]") == 3
    assert new(FP32) == 3
    assert new("teacher.precision=bf16-mixed") == 3
    assert new("teacher.recipe.seed=5") == 3  # other weights
    assert new("teacher=mlp") == 3


def test_a_control_has_the_views_of_the_runs_it_is_compared_with(tmp_path, store):
    both = [
        plain(compose([*IMAGES, "teacher.cache=views:2", alpha], output_dir=tmp_path, store_dir=store))
        for alpha in ("alpha=1", "alpha=0.1")
    ]
    assert Identity(both[0]).control_fingerprint == Identity(both[1]).control_fingerprint
    assert both[0]["augment"]["views"] == 2
    fresh = plain(compose([*IMAGES, "alpha=1"], output_dir=tmp_path, store_dir=store))
    assert Identity(fresh).control_fingerprint != Identity(both[0]).control_fingerprint
    nowhere = tmp_path / "nowhere"
    for name, views in (("cached", "teacher.cache=views:1"), ("same views", "augment.views=1")):
        train(tmp_path / name, nowhere, "alpha=1", views)
    train(tmp_path / "fresh views", nowhere, "alpha=1")
    assert same_weights(tmp_path / "cached", tmp_path / "same views")
    assert not same_weights(tmp_path / "cached", tmp_path / "fresh views")
    assert not nowhere.exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["teacher.cache=views:0"], r"^teacher.cache must be none, views:K, per_epoch or unaugmented, got views:0$"),
        (["teacher.cache_precision=fp8"], r"^teacher.cache_precision must be fp16 or fp32, got fp8$"),
        (["teacher.cache_top_k=0"], r"^teacher.cache_top_k must be null or at least 1, got 0$"),
        (["teacher.precision=fp8"], r"^teacher.precision must be one of .*, got fp8$"),
        (["augment.views=-1"], r"^augment.views must be null or at least 0, got -1$"),
        (
            ["augment=mixup", "teacher.cache=views:2"],
            r"^teacher.cache must be none or unaugmented with .*Mixup, whose .*$",
        ),
        (
            ["augment=crop_flip_cutmix", "teacher.cache=per_epoch"],
            r"^teacher.cache must be none or unaugmented with .*CutMix, whose .*$",
        ),
        (
            ["dataset.class_sampling=balanced", "teacher.cache=per_epoch"],
            r"^teacher.cache must be none or unaugmented with dataset.class_sampling, ",
        ),
        (
            ["teacher.cache=views:9", "teacher.cache_max_gb=1e-6"],
            r"^teacher.cache_max_gb must be at least .* got 1e-06$",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_setting_is_said_before_training(tmp_path, store, overrides, message):
    with pytest.raises(ValueError, match=message):
        run(compose(["experiment=smoke", "tracking=none", *overrides], output_dir=tmp_path, store_dir=store))
    assert not (tmp_path / "checkpoints").exists()


def test_static_views_of_augmented_data_are_warned_of(tmp_path, store, caplog):
    train(tmp_path, store, "teacher.cache=unaugmented", "trainer.max_epochs=1")
    assert any("overfits" in message for message in caplog.messages)


def test_two_processes_of_one_job_use_the_same_answers(command, tmp_path):
    settings = (*IMAGES, "student=mlp", "teacher.cache=views:2", "trainer.max_epochs=3", "dataset.drop_last=true")
    for trainer in ("cpu", "ddp_cpu"):
        command("kdexp-train", *settings, f"trainer={trainer}", f"hydra.run.dir={trainer}",
                KDEXP_STORE_DIR=str(tmp_path / f"store-{trainer}"))  # fmt: skip
    one, two = (json.loads((tmp_path / t / "results.json").read_text())["metrics"]["val"]["last"] for t in
                ("cpu", "ddp_cpu"))  # fmt: skip
    assert two["kl_to_teacher"] == pytest.approx(one["kl_to_teacher"], abs=1e-4)
    sizes = [sorted(p.stat().st_size for p in (tmp_path / f"store-{t}").glob("*/*/outputs.bin")) for t in
             ("cpu", "ddp_cpu")]  # fmt: skip
    assert sizes[0] == sizes[1]


# kdexp-cache


def test_a_cache_is_built_listed_verified_and_cleaned_from_the_command_line(command, tmp_path, store):
    settings = (*IMAGES, "teacher.cache=views:2", FP32)
    there = {"KDEXP_STORE_DIR": str(tmp_path / "store")}
    command("kdexp-cache", "build", *settings, **there)
    assert not (tmp_path / "outputs").exists()
    listed = command("kdexp-cache", "list", **there).stdout
    key = next(path.parent.name for path in (tmp_path / "store").glob("*/*/metadata.json")
               if json.loads(path.read_text())["split"] == "train")  # fmt: skip
    assert f"{key}   cnn" in listed
    assert re.search(r"in the store, too, and for you to remove: \d+\.\d MB of teachers", listed)
    verified = command("kdexp-cache", "verify", "samples=20", **there).stdout
    assert verified.count("20 samples computed again: largest difference 0.0e+00") == 3
    path = tmp_path / "store" / "teacher-outputs" / key / "outputs.bin"
    content = bytearray(path.read_bytes())
    content[100] ^= 8
    path.write_bytes(content)
    assert f"{key}  BAD  1 corrupt shard(s)" in command("kdexp-cache", "verify", **there, rc=1).stdout
    assert "key must be one that" in command("kdexp-cache", "clean", **there, rc=2).stderr
    assert "key must be one that" in command("kdexp-cache", "clean", "key=nothing", **there, rc=2).stderr
    command("kdexp-cache", "clean", f"key={key}", **there)
    assert len(folders(tmp_path / "store" / "teacher-outputs")) == 2


def test_verify_asks_for_different_samples_of_every_class(tmp_path):
    config = compose([*IMAGES, "teacher.cache=views:2"], output_dir=tmp_path, store_dir=tmp_path / "store")
    kept = Experiment(config).cache
    target = Experiment(config).data.student.splits.test.target
    sample = kept.sample("test", 20, 3)
    assert target[sample].bincount().tolist() == [2] * 10
    assert len(set(sample)) == 20
    assert sample != kept.sample("test", 20, 4)
    with pytest.raises(ValueError, match=r"^samples must be at least 1, got 0$"):
        list(cache.verify(tmp_path / "store", samples=0, seed=0))


def test_answers_that_are_not_the_teachers_are_found_by_asking_again(tmp_path, store):
    config = compose([*IMAGES, "teacher.cache=views:2"], output_dir=tmp_path, store_dir=tmp_path / "store")
    kept = Experiment(config).cache
    kept.prepare("val")
    val = kept.splits["val"]
    offset = os.fstat(val._outputs).st_size - val.record.dtype.itemsize
    os.pwrite(val._outputs, np.full(CLASSES, 7, np.float16).tobytes(), offset)
    assert val.damaged() == 1
    assert val.largest_difference([0, 1], augmented=False) == 0
    assert val.largest_difference([len(val._position[val._position >= 0]) - 1], augmented=False) > 1
    verified = cache.verify(tmp_path / "store", samples=3, seed=0)
    assert {(good, "corrupt" in found) for _, good, found in verified} == {(True, False), (False, True)}


@pytest.mark.parametrize(
    "content", ["", "{", "[" * 100_000, "[]", '{"key": {}}', json.dumps(METADATA | {"key": {"a": 1}})]
)
def test_damaged_metadata_is_named_and_written_again(tmp_path, content, caplog):
    asked = Asked()
    outputs(tmp_path / "key", asked).prepare(0)
    file = tmp_path / "key" / "metadata.json"
    whole = file.read_text()
    assert json.loads(whole) == METADATA
    file.write_text(content)
    again = outputs(tmp_path / "key", asked)
    again.prepare(0)
    assert_right(again, 0)
    assert len(asked.positions) == SAMPLES
    assert file.read_text() == whole
    assert f"{file} is damaged: " in caplog.text


def test_damaged_metadata_does_not_stop_list_verify_or_clean(tmp_path, store, capsys):
    for key, content in {
        "a": "{",
        "b": json.dumps(METADATA),
        "c": json.dumps(METADATA | {"split": "[bold]no split"}),
    }.items():
        folder = tmp_path / "store" / "teacher-outputs" / key
        outputs(folder, Asked()).prepare(0)
        (folder / "metadata.json").write_text(content)
    cache.show(tmp_path / "store", "all")
    shown = capsys.readouterr().out
    assert f"{tmp_path / 'store' / 'teacher-outputs' / 'a' / 'metadata.json'} is damaged: " in shown
    assert "[bold]no split" in shown
    found = list(cache.verify(tmp_path / "store", samples=3, seed=0))
    assert [good for _, good, _ in found] == [False, False, False]
    assert all("metadata.json is damaged: " in why for _, _, why in found)
    cache.clean(tmp_path / "store", "all")
    assert not folders(tmp_path / "store" / "teacher-outputs")


# Each command line in a process of its own, forked from one that has imported what a training needs.
FORKS = """
import importlib, json, os, sys
for name in ("kdexp.sweeps.preload", "kdexp.cli.commands"):
    importlib.import_module(name)
for words in json.loads(sys.argv[1]):
    if not (pid := os.fork()):
        for number, stream in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(f"{words[0]}.{stream}", os.O_WRONLY | os.O_CREAT), number)
        sys.argv = ["kdexp-train", *words[1:]]
        from kdexp.cli.commands import train
        sys.exit(train())
    with open(f"{words[0]}.code", "w") as file:
        file.write(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))
"""


@pytest.mark.slow
def test_a_complete_store_that_cannot_be_written_to_is_used_and_else_it_is_one_line(tmp_path):
    settings = ("experiment=smoke", "tracking=none", "teacher.cache=views:2", "robustness=calibration", "alpha=0.3")
    environment = warm_programs.environment(KDEXP_STORE_DIR=str(tmp_path / "store"))
    first = [SCRIPTS / "kdexp-train", *settings, f"output_dir={tmp_path / 'first'}"]
    assert warm_programs.run(first, tmp_path, environment, 300).returncode == 0
    before = read_only(tmp_path / "store")
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*")}
    jobs = {
        "again": (),
        "another teacher": ("teacher.recipe.seed=7",),
        "more views": ("teacher.cache=views:3", "trainer.max_epochs=3"),
        "another split": ("dataset.split_seed=0", "dataset.eval_batch_size=64"),
    }
    words = [[name, *settings, f"output_dir={tmp_path / name}", *more] for name, more in jobs.items()]
    done = subprocess.run([*before, sys.executable, "-c", FORKS, json.dumps(words)], cwd=tmp_path, env=environment,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    out, err, code = (
        {name: (tmp_path / f"{name}.{what}").read_text() for name in jobs} for what in ("stdout", "stderr", "code")
    )
    assert code == {"again": "0", "another teacher": "2", "more views": "2", "another split": "0"}, [out, err]
    assert "not kept" not in out["again"]
    weights = [(tmp_path / name / "student.safetensors").read_bytes() for name in ("first", "again")]
    assert weights[0] == weights[1]
    for name in ("another teacher", "more views"):
        assert err[name].startswith(f"error: store_dir must be a folder that can be written to, got {tmp_path}")
        assert err[name].count("\n") == 1
        assert "student: " not in out[name]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*")} == files


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "kdexp-cache takes one of build, export, list, verify, clean first, got nothing"),
        (("polish",), "kdexp-cache takes one of build, export, list, verify, clean first, got polish"),
        (("export", "experiment=smoke"), "kdexp-cache export takes a file first, got experiment=smoke"),
        (
            ("build", "experiment=smoke"),
            "teacher.cache must be views:K, per_epoch or unaugmented for kdexp-cache build, got no",
        ),
        (
            ("build", "experiment=smoke", "alpha=1", "teacher.cache=per_epoch"),
            "alpha must be < 1 for kdexp-cache build",
        ),
    ],
)
def test_a_wrong_command_is_one_line(command, arguments, message):
    done = command("kdexp-cache", *arguments, rc=2)
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
