"""A sweep over a family with a budget: what is measured, once, and which students are left out before any training."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import open_dict

import kdexp.sweeps.budget as measuring
from kdexp.config.compose import compose, plain
from kdexp.config.identity import Identity
from kdexp.experiment.check import check
from kdexp.experiment.experiment import Experiment
from kdexp.export.formats import onnx
from kdexp.export.latency import Latency
from kdexp.models.complexity import macs, parameters
from kdexp.report.budget import Budget, Taken, key_of, read, write
from kdexp.sweeps import subprocess_runner
from kdexp.sweeps.budget import Unmeasured, measure
from kdexp.sweeps.sweep import Job

SWEPT = ["+sweep=budget", "budget.latency_ms=1", "dataset=digits", "trainer.accelerator=cpu"]
EMPTY = Budget({}, None, [], {}, {})


def composed(*more):
    return compose([*SWEPT, *more], output_dir="")


def timer(network, example, *, batches):
    """As `kdexp.export.latency.latency`, without a clock; the network is called."""
    assert batches == (1,)
    assert network(*(part[:1] for part in example)).shape == (1, 10)
    return [Latency(1, 0.25, 0.5, 20)]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            ["budget.latency_ms=null"],
            "budget.bytes and budget.latency_ms must be given with +sweep=budget, one of them",
        ),
        (["budget.bytes=-1"], "budget.bytes must be > 0, got -1"),
        (["budget.bytes=0"], "budget.bytes must be > 0, got 0"),
        (["budget.latency_ms=nan"], "budget.latency_ms must be > 0, got nan"),
        (["budget.bytes=inf"], "budget.bytes must be > 0, got inf"),
        (["budget.halving=null"], "budget.halving must be true or false, got None"),
        (["budget.threads=0"], "budget.threads must be at least 1, got 0"),
        (["budget.robustness=fog"], "budget.robustness must be null without robustness=NAME, of which an axis has acc"),
        (
            ["budget.robustness=ood", "robustness=ood"],
            "budget.robustness must be null without robustness",
        ),
        (
            ["budget.robustness=calibration", "robustness=quick"],
            "budget.robustness must be one of corruptions, noise_levels, attacks, shift, got calibration",
        ),
        (["budget.robustness=fog", "robustness=attacks"], "budget.robustness must be one of attacks, got fog"),
    ],
    ids=str,
)
def test_a_wrong_budget_is_one_line(more, said):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        check(composed(*more))
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


def test_a_budget_of_no_sweep_is_refused():
    with pytest.raises(ValueError, match=r"budget.bytes must be null without \+sweep=budget, got 5"):
        check(compose(["budget.bytes=5"], output_dir=""))
    with pytest.raises(ValueError, match=r"budget.halving must be null without \+sweep=budget, got True"):
        check(compose(["budget.halving=true"], output_dir=""))
    check(composed("budget.robustness=attacks", "robustness=attacks"))


def test_a_budget_is_no_part_of_what_a_run_is_known_by():
    runs = [compose([*SWEPT, more], output_dir="") for more in ("budget.bytes=1", "budget.bytes=2")]
    alone = compose(SWEPT[2:], output_dir="")
    assert len({Identity(plain(run)).fingerprint for run in [*runs, alone]}) == 1


def test_what_is_measured_is_the_file_of_the_untrained_student(tmp_path):
    config = composed("student=cnn", "student.width=4", "budget.threads=2")
    write(tmp_path, EMPTY)
    measure(tmp_path, Unmeasured("cnn width=4", False, config), timer)
    key = key_of(plain(config.student), 2)
    taken = read(tmp_path).students[key]
    network = Experiment(config).new_student()
    onnx.write(network, [torch.zeros(1, 1, 8, 8)], tmp_path / "own.onnx")
    assert taken.bytes == pytest.approx((tmp_path / "own.onnx").stat().st_size, rel=0.02)
    assert (taken.parameters, taken.macs) == (parameters(network), macs(network, (1, 8, 8)))
    assert (taken.name, taken.latency_ms, taken.p95_ms, taken.calls, taken.threads) == ("cnn width=4", 0.25, 0.5, 20, 2)
    assert read(tmp_path).teachers == {}


def test_a_teacher_is_measured_where_it_is_one_network(tmp_path):
    write(tmp_path, EMPTY)
    measure(tmp_path, Unmeasured("mlp", True, composed("teacher=mlp_large")), timer)
    found = read(tmp_path)
    assert found.students == {}
    assert found.teachers["mlp"].parameters > 10_000
    for none in ("teacher=ensemble", "scheme=mutual"):
        measure(tmp_path, Unmeasured("two", True, composed(none)), timer)
        assert read(tmp_path) == found


def test_a_loss_that_changes_the_network_is_refused(tmp_path):
    write(tmp_path, EMPTY)
    config = composed("student=cnn", "feature_loss=simkd")
    with pytest.raises(ValueError, match="feature_loss must leave the student's network as it is with"):
        measure(tmp_path, Unmeasured("cnn", False, config), timer)


def test_the_real_clock_is_that_of_exports():
    assert measuring.measure.__defaults__[0] is measuring.latency


# The sweeper, with students that take what is said here, and no program.

MS = {"4": 0.1, "8": 0.5, "16": 3.0}


def taken(name, ms):
    return Taken(name, round(1000 * ms), ms, 2 * ms, 20, 100, 1000, 1, "a processor")


@pytest.fixture
def sweeper(tmp_path, monkeypatch):
    """Makes a sweeper over three widths, alone and distilled; and the names of what was measured for it."""
    from hydra_plugins.kdexp.budget import BudgetSweeper  # Hydra loads its plugins anew when it first looks for them

    measured = []
    configs = {
        Job((f"student.width={width}", "student=cnn", way), f"{width}-{way}", f"{width}-{way}", 1): composed(
            "student=cnn", f"student.width={width}", *([way] if way else [])
        )
        for width in MS
        for way in ("", "distillation=control")
    }

    def measure_all(check, networks):
        (folder,) = check.args
        for network in networks:
            measured.append(network.name)
            known, name = read(folder), network.name
            if network.is_teacher:
                write(folder, replace(known, teachers={name: taken(name, 20.0)}))
            else:
                student = plain(network.config.student)
                found = {key_of(student, 1): taken(name, MS[str(student["width"])])}
                write(folder, replace(known, students={**known.students, **found}))

    monkeypatch.setattr(BudgetSweeper.__base__, "_jobs", lambda self: (len(configs), configs))
    monkeypatch.setattr(subprocess_runner, "check_all", measure_all)

    def make(*more):
        made = BudgetSweeper(None)
        made.config = composed(*more)
        with open_dict(made.config):
            made.config.hydra = {"sweep": {"dir": str(tmp_path)}}
        given = OverridesParser.create().parse_overrides(["student=cnn", "student.width=4,8,16"])
        made._given = [{override.get_key_element(): override for override in given}]
        made._controls = {job.key for job in configs if "control" in job.folder}
        return made

    return SimpleNamespace(make=make, measured=measured, folder=tmp_path)


def widths(jobs):
    return sorted({config.student.width for config in jobs.values()})


def test_students_over_the_budget_are_left_out_and_nothing_is_measured_twice(sweeper, capsys):
    cells, jobs = sweeper.make()._jobs()
    assert (cells, len(jobs), widths(jobs)) == (4, 4, [4, 8])
    assert sweeper.measured == ["cnn width=4", "cnn width=8", "cnn width=16", "cnn_large"]
    said = capsys.readouterr().out
    assert "measuring     3 students and 1 teacher as ONNX files, 1 thread\n" in said
    assert "left out      cnn width=16: 3 > 1 ms" in said
    for width in MS:
        MS[width] = 100.0  # another day
    try:
        assert widths(sweeper.make()._jobs()[1]) == [4, 8]
        assert widths(sweeper.make("budget.latency_ms=0.2")._jobs()[1]) == [4]
        assert widths(sweeper.make("budget.latency_ms=5")._jobs()[1]) == [4, 8, 16]
        assert len(sweeper.measured) == 4
        with pytest.raises(ValueError, match="must leave a student to train"):
            sweeper.make("rerun=all")._jobs()
        assert len(sweeper.measured) == 8
    finally:
        MS.update({"4": 0.1, "8": 0.5, "16": 3.0})


def test_a_halving_begins_with_a_trial_of_each_student_that_fits(sweeper, capsys):
    made = sweeper.make("budget.halving=true")
    _, jobs = made._jobs()
    trials = made._at_first([*jobs])
    assert [(job.folder, job.trial, job.part) for job in trials] == [("4-", 0, 0.25), ("8-", 1, 0.25)]
    assert "halving       2 trials, of which the better half goes on" in capsys.readouterr().out
    assert made._more(trials[0]) == ["+hydra.job.env_set.KDEXP_PART='0.25'"]
    assert made._more(replace(trials[0], trial=None, part=None)) == []
    whole = sweeper.make()
    assert whole._at_first([*jobs]) == [*jobs]


def test_who_fell_behind_stands_there_until_it_is_known_anew(sweeper):
    sweeper.make()._jobs()
    known = read(sweeper.folder)
    behind = {known.family[0]: "behind after epoch 2"}
    for options, left in ((["budget.halving=true"], behind), (["budget.halving=true", "rerun=all"], {}), ([], {})):
        write(sweeper.folder, replace(known, behind=behind))
        sweeper.make(*options)._jobs()
        assert read(sweeper.folder).behind == left


def test_a_damaged_file_is_measured_anew(sweeper):
    sweeper.make()._jobs()
    (sweeper.folder / "budget.json").write_text("{")
    sweeper.make()._jobs()
    assert len(sweeper.measured) == 8
    assert [student.name for student in read(sweeper.folder).students.values()] == [
        "cnn width=4",
        "cnn width=8",
        "cnn width=16",
    ]


def test_a_budget_that_nothing_fits_is_one_line_and_leaves_no_folder(sweeper, monkeypatch):
    monkeypatch.chdir(sweeper.folder.parent)
    sweeper.folder.rmdir()
    with pytest.raises(ValueError) as error:  # noqa: PT011
        sweeper.make("budget.bytes=100", "budget.latency_ms=0.01")._jobs()
    assert str(error.value) == (
        "budget.bytes=100 and budget.latency_ms=0.01 must leave a student to train, got a family that takes "
        "100 bytes at least, 0.1 ms at least"
    )
    assert not sweeper.folder.exists()


def test_the_search_is_refused():
    from hydra_plugins.kdexp.budget import BudgetSweeper

    with pytest.raises(
        ValueError, match=r"hydra/sweeper must be left to .* \(budget.halving=true searches\), got search"
    ):
        BudgetSweeper(None, n_trials=3)._grids_beside([])


def test_without_the_extra_it_is_one_line(monkeypatch):
    import hydra_plugins.kdexp.budget as plugin

    monkeypatch.setattr(plugin, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'kdexp\[export\]'"):
        plugin.BudgetSweeper(None)._grids_beside([])


def test_a_student_that_is_typed_stands_in_the_place_of_the_family():
    from hydra_plugins.kdexp.budget import BudgetSweeper

    family = [{"student": "mlp"}, {"student": "cnn", "student.width": "2,4"}]
    made = BudgetSweeper(None, {}, family)
    assert made._grids_beside(["+sweep=budget", "student.dropout=0.1"]) == family
    assert made._grids_beside(["+sweep=budget", "student=timm", "student.name=lcnet_050"]) == [{}]
