"""kdexp-compare, as a user types it."""

import subprocess
import sys

import pytest


def test_a_sweep_becomes_a_table_a_csv_and_a_page(command, sweep):
    done = command("kdexp-compare", sweep)
    assert "temperature=1" in done.stdout
    assert f"report        {sweep / 'report.html'}" in done.stdout
    assert (sweep / "report.html").read_text().startswith("<!doctype html>")
    assert len((sweep / "compare.csv").read_text().splitlines()) == 1 + 7
    assert not done.stderr


def test_several_folders_conditions_and_an_order(command, sweep, tmp_path, write_run):
    odd = tmp_path / "odd, folder=1 'x'"
    write_run(odd / "0", temperature=2.0, val=0.5)
    done = command(
        "kdexp-compare", sweep, odd, "where=seed=0", "where=temperature=1,2,4", "sort=temperature", f"out={tmp_path}/o"
    )
    labels = [line.split()[0] for line in done.stdout.splitlines() if line.startswith(("  control", "  temp"))]
    assert labels == ["control", "temperature=1", "temperature=2", "temperature=4"]
    assert {path.name for path in (tmp_path / "o").iterdir()} == {"compare.csv", "report.html", "loss_statement.md"}
    assert "where=seed=0 where=temperature=1,2,4" in (tmp_path / "o" / "report.html").read_text()


def test_a_results_file_that_cannot_be_read_is_skipped_with_a_line(command, sweep):
    (sweep / "one-0" / "results.json").write_text("{")
    done = command("kdexp-compare", sweep)
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("skipped: ")
    assert "skipped: " in (sweep / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "folders must be run or sweep folders, got nothing"),
        (("nowhere",), "folders must exist, got nowhere"),
        (("../empty",), "folders must hold at least one run, got ../empty"),
        (("{sweep}", "sor=gain"), "there is no setting sor; did you mean sort?"),
        (("{sweep}", "where=colour=red"), "where must name a setting of a run, or status, got colour"),
        (("{sweep}", "sort=test/bleu"), "sort must be gain, "),
        (("{sweep}", "colour=red"), "there is no setting colour; --cfg job shows"),
    ],
    ids=" ".join,
)
def test_a_wrong_argument_is_one_line_on_stderr_and_exit_code_2(command, sweep, tmp_path, arguments, message):
    (tmp_path / "empty").mkdir()
    done = command("kdexp-compare", *(a.format(sweep=sweep) for a in arguments), rc=2, cwd=tmp_path / "empty")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_help_names_the_settings(command):
    assert "where" in command("kdexp-compare", "--help").stdout


def test_it_starts_without_torch(sweep):
    code = "import sys; from kdexp.cli.compare import main; main(); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code, str(sweep)], check=True, stdout=subprocess.DEVNULL)
