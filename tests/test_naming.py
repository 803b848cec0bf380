import pytest

from kdexp.naming import counted, job_names, short_values


def test_what_is_one_has_no_plural():
    assert [counted(n, "run") for n in (0, 1, 2, 1234)] == ["0 runs", "1 run", "2 runs", "1,234 runs"]


def test_a_job_is_named_after_what_it_differs_in():
    jobs = [["dataset=digits", "alpha=0.1", "seed=0"], ["dataset=digits", "alpha=0.1", "seed=1"]]
    assert job_names(jobs, 128) == ["seed=0", "seed=1"]
    assert job_names(jobs[:1], 128) == ["dataset=digits alpha=0.1 seed=0"]
    assert job_names([], 128) == []
    assert job_names([["alpha=1"], ["alpha=0.1", "temperature=4"]], 128) == ["alpha=1", "alpha=0.1 temperature=4"]


def test_long_names_keep_the_differences_and_fit():
    path = "/data/experiments/2026/teachers/resnet56/run_{}/weights.safetensors"
    jobs = [[f"teacher.weights={path.format(n)}", f"optimizer.lr={lr}"] for n in (1, 2) for lr in (0.1, 0.01)]
    wanted = ["weights=…1… lr=0.1", "weights=…1… lr=0.01", "weights=…2… lr=0.1", "weights=…2… lr=0.01"]
    assert job_names(jobs, 40) == wanted
    rates = [[f"teacher.recipe.lr={own}", f"optimizer.lr={other}"] for own in (1, 2) for other in (1, 2)]
    assert job_names(rates, 40)[1] == "teacher.recipe.lr=1 optimizer.lr=2"


@pytest.mark.parametrize("longest", [10, 24, 128])
def test_names_differ_however_long_what_is_swept(longest):
    jobs = [
        [f"a{key}.setting={'x' * 50}{value * (key + 1)}{'y' * 50}" for key in range(12)]
        for value in ("left", "right", "middle")
    ]
    names = job_names(jobs, longest)
    assert len(set(names)) == 3
    assert max(map(len, names)) <= longest


def test_values_stay_different_when_one_begins_or_ends_as_the_other():
    values = ["a" * 30, "a" * 31, "b" + "a" * 30, "a" * 30 + "b"]
    assert len(set(short_values(values).values())) == 4
    assert short_values(["aaaa", "aaa"]) == {"aaaa": "aaaa", "aaa": "aaa"}
    assert short_values(["x" * 30 + "1", "x" * 30 + "2"]) == {"x" * 30 + "1": "…1", "x" * 30 + "2": "…2"}


def test_a_value_that_is_the_ends_of_another_is_shown_whole():
    values = ["x" * 20 + "1" + "x" * 20, "x" * 20 + "11" + "x" * 20]
    assert short_values(values) == {value: value for value in values}
