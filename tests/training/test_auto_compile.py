import logging

import pytest
import torch
from torch import nn

from kdexp.config.compose import compose
from kdexp.experiment import preparation
from kdexp.experiment.experiment import Experiment
from kdexp.teacher.teacher import Teacher
from kdexp.training import auto_compile


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def trial(monkeypatch, seconds, steps=1000):
    """A trial whose clock is given: a step as it is, compiling, and a compiled step."""
    plain, compiled, faster = seconds
    times = iter([plain, faster])
    monkeypatch.setattr(auto_compile, "_seconds", lambda step: next(times))
    clock = iter([0.0, compiled])
    monkeypatch.setattr(auto_compile.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(auto_compile, "compile_in_place", lambda networks: None)
    return auto_compile.pays(network(), [network().eval()], torch.randn(6, 4), steps)


@pytest.mark.parametrize(
    ("seconds", "worth", "said"),
    [
        ((0.1, 30.0, 0.05), True, "yes, a step takes 50.0 ms instead of 100.0, and compiling took 30 s: 20 s saved"),
        ((0.1, 80.0, 0.05), False, "no, a step takes 50.0 ms instead of 100.0, and compiling took 80 s: 30 s lost"),
        ((0.1, 1.0, 0.11), False, "no, a step takes 110.0 ms"),
        ((0.01, 1.0, 0.001), False, "no, the steps take about 10 s in all"),
    ],
)
def test_what_is_saved_in_all_steps_is_held_against_compiling(monkeypatch, caplog, seconds, worth, said):
    caplog.set_level(logging.INFO, "kdexp")
    assert trial(monkeypatch, seconds) is worth
    assert f"compile=auto: {said}" in caplog.text


def test_a_trial_leaves_the_networks_alone_and_a_failure_is_a_no(monkeypatch, caplog):
    caplog.set_level(logging.INFO, "kdexp")

    def fails(networks):
        raise RuntimeError("no compiler\nat all")

    monkeypatch.setattr(auto_compile, "compile_in_place", fails)
    student = network()
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    assert not auto_compile.pays(student, [], torch.randn(6, 4), 10**9)
    assert "compile=auto: no, it failed: no compiler" in caplog.text
    assert all(torch.equal(before[name], tensor) for name, tensor in student.state_dict().items())
    assert all(parameter.grad is None for parameter in student.parameters())


@pytest.mark.parametrize(("cache", "compiled"), [("none", 2), ("unaugmented", 1)])
def test_a_teacher_whose_answers_are_kept_is_not_compiled(tmp_path, monkeypatch, cache, compiled):
    found = []
    monkeypatch.setattr(preparation, "compile_in_place", found.extend)
    config = compose(["experiment=smoke", "trainer.compile=true", f"teacher.cache={cache}"], output_dir=tmp_path)
    experiment = Experiment(config)
    experiment.student, experiment.teacher = network(), Teacher([network()])
    preparation._compile(experiment)
    assert len(found) == compiled
