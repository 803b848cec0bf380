import pytest
import written_runs


@pytest.fixture(scope="session")
def write_run():
    return written_runs.write_run


@pytest.fixture
def sweep(tmp_path, write_run):
    """Two seeds of a control and of two temperatures, and a job that diverged; with what came out of them in percent.

    control 80, 90; T=1: 84, 92; T=4: 81, 97, the best on test and the worst on val.
    """
    for seed, (control, one, four) in enumerate([(0.80, 0.84, 0.81), (0.90, 0.92, 0.97)]):
        write_run(tmp_path / f"control-{seed}", alpha=1.0, seed=seed, acc=control, val=0.85)
        write_run(tmp_path / f"one-{seed}", temperature=1.0, seed=seed, acc=one, val=0.90, last=one - 0.01)
        write_run(tmp_path / f"four-{seed}", temperature=4.0, seed=seed, acc=four, val=0.80)
    write_run(tmp_path / "sixteen-0", temperature=16.0, status="diverged")
    (tmp_path / "sixteen-0" / "train.log").write_text("epoch 1\nthe loss is not finite\n")
    return tmp_path


@pytest.fixture(scope="session")
def write_report():
    return written_runs.write_report
