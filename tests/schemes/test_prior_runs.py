import json

import pytest
import torch
from safetensors.torch import load_file

from kdexp.config.compose import compose, plain
from kdexp.experiment import finished_run
from kdexp.experiment.check import check
from kdexp.experiment.run import run
from kdexp.schemes.base import runs_in_order

SMOKE = ["experiment=smoke", "tracking=none", "trainer.max_epochs=1", "teacher.recipe.max_epochs=1"]


def planned(*overrides):
    return list(runs_in_order(plain(compose([*SMOKE, *overrides], output_dir="out"))))


def test_a_run_without_a_scheme_and_a_control_are_one_run():
    for overrides in ([], ["scheme=ema"], ["scheme=born_again", "alpha=1"], ["scheme=teacher_assistant", "alpha=1"]):
        ((name, values),) = planned(*overrides)
        assert name == ""
        assert values["teacher"]["weights"] == "auto"


def test_each_assistant_learns_from_the_one_before_and_the_student_from_the_last():
    chain = planned("scheme=teacher_assistant", "+student@scheme.assistants.second=mlp")
    assert [name for name, _ in chain] == ["first", "second", ""]
    first, second, last = (values for _, values in chain)
    assert first["teacher"]["weights"] == "auto"
    assert second["teacher"]["weights"] == "out/prior_runs/first/student.safetensors"
    assert last["teacher"]["weights"] == "out/prior_runs/second/student.safetensors"
    assert [v["student"]["_target_"].rpartition(".")[2] for v in (first, second, last)] == ["cnn", "mlp", "cnn"]
    assert second["teacher"]["width"] == 16  # the network of the first assistant, not of the student
    assert last["student"]["width"] == 4


def test_generations_have_seeds_of_their_own_and_the_last_that_of_the_run():
    chain = planned("scheme=born_again", "seed=5")
    assert [name for name, _ in chain] == ["generation_1", "generation_2", ""]
    assert [values["seed"] for _, values in chain] == [6, 7, 5]
    assert len({values["dataset"]["subset_seed"] for _, values in chain}) == 1
    assert chain[2][1]["teacher"]["weights"] == "out/prior_runs/generation_2/student.safetensors"


def test_the_source_domains_teacher_is_a_control_on_the_source():
    chain = list(runs_in_order(plain(compose(["scheme=cross_domain", "tracking=none"], output_dir="out"))))
    (name, teacher), (_, student) = chain
    assert name == "teacher"
    assert teacher["alpha"] == 1
    assert teacher["dataset"]["name"] == "mnist8"
    assert student["dataset"]["name"] == "digits"
    assert student["dataset"]["unlabeled_fraction"] == 1
    assert student["alpha"] == 0
    assert student["teacher"]["mean"] == teacher["dataset"]["mean"] != student["dataset"]["mean"]


def test_the_source_domains_teacher_has_the_layout_of_its_recipe():
    (_, teacher), (_, student) = planned("scheme=cross_domain", "dataset=digits", "teacher.recipe.channels_last=false")
    assert (teacher["trainer"]["channels_last"], student["trainer"]["channels_last"]) == (False, "auto")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["scheme=born_again", "scheme.generations=1"], "scheme.generations must be at least 2, got 1"),
        (["scheme=ema", "scheme.decay=1"], r"scheme.decay must be in \[0, 1\), got 1"),
        (["scheme=ema", "feature_loss=at"], "feature_loss needs a teacher, which scheme=ema does not have, got at"),
        (["scheme=cross_domain", "dataset=mnist"], "scheme.source.input_shape must be the target's"),
    ],
)
def test_wrong_schemes_are_refused(overrides, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        check(compose(overrides, output_dir="unused"))


def test_a_chain_is_run_once_and_continued_where_it_stopped(tmp_path, store):
    overrides = [*SMOKE, "scheme=born_again"]
    result = run(compose(overrides, output_dir=tmp_path, store_dir=store))
    assert result["prior_runs"] == ["generation_1", "generation_2"]
    assert {"val", "test"} == set(result["ensemble"])
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("prior_runs/*/student.safetensors")}
    assert len(stamps) == 2
    generations = [load_file(path) for path in sorted(stamps)]
    assert any(not torch.equal(generations[0][name], generations[1][name]) for name in generations[0])
    (tmp_path / "results.json").write_text(json.dumps({**result, "status": "interrupted"}, default=str))
    (tmp_path / "student.safetensors").unlink()
    again = run(compose([f"resume='{tmp_path}'"], output_dir=tmp_path))
    assert again["status"] == "completed"
    assert again["metrics"] == result["metrics"]
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    found = finished_run.run(compose([], "eval", run=tmp_path))
    assert found["agreement"] == pytest.approx(result["metrics"]["test"]["best"]["agreement"])


@pytest.mark.slow
def test_the_source_domains_teacher_is_trained_once_for_all_runs(tmp_path):
    overrides = [*SMOKE, "scheme=cross_domain", "dataset=synthetic", "dataset@scheme.source=synthetic"]
    weights = set()
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        result = run(compose([*overrides, f"seed={seed}"], output_dir=folder, store_dir=tmp_path / "store"))
        assert result["status"] == "completed"
        weights.add((folder / "prior_runs" / "teacher" / "student.safetensors").read_bytes())
        assert (folder / "prior_runs" / "teacher" / "checkpoints").is_dir() == (seed == 0), "trained, and then found"
    assert len(weights) == 1
    other = [*overrides, "teacher.recipe.seed=7"]
    run(compose(other, output_dir=tmp_path / "other", store_dir=tmp_path / "store"))
    assert (tmp_path / "other" / "prior_runs" / "teacher" / "student.safetensors").read_bytes() not in weights


def test_peers_are_measured_and_exported(tmp_path, store):
    result = run(compose([*SMOKE, "scheme=mutual", "+student@scheme.peers.other=mlp"],
                         output_dir=tmp_path, store_dir=store))  # fmt: skip
    assert set(result["peers"]) == {"other"}
    assert 0 <= result["peers"]["other"]["test"]["acc"] <= 1
    assert load_file(tmp_path / "peers" / "other.safetensors")["classifier.weight"].shape == (10, 64)
    assert "teacher" not in result


def test_an_average_of_the_student_teaches_it(tmp_path, store):
    result = run(compose([*SMOKE, "scheme=ema"], output_dir=tmp_path, store_dir=store))
    assert result["status"] == "completed"
    checkpoint = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["average"]["n_averaged"] == checkpoint["global_step"]
