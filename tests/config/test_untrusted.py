"""What is read from folders that may be somebody else's, and what is kept out of one's own."""

import copy

import pytest
from omegaconf import OmegaConf

from kdexp.config import untrusted
from kdexp.config.compose import compose, plain

SECRET = "hunter2"


@pytest.fixture
def config(tmp_path):
    """The configuration of a small run, as results.json has it."""
    return plain(compose(["experiment=smoke"], output_dir=tmp_path, store_dir=tmp_path / "store"))


def changed(config, setting, value):
    config = copy.deepcopy(config)
    *above, last = setting.split(".")
    node = config
    for key in above:
        node = node[key]
    node[last] = value
    return config


def test_a_stored_configuration_keeps_what_was_computed_and_where_the_data_lie(config, tmp_path):
    (tmp_path / "store" / "teachers").mkdir(parents=True)
    before = copy.deepcopy(config)
    assert untrusted.stored(config) == config == before


@pytest.mark.parametrize("text", ["${oc.env:SECRET}", "a ${seed} b", "${", "\\${oc.env:SECRET}"])
@pytest.mark.parametrize("setting", ["dataset.name", "tracking.tags", "teacher.weights", "student._target_"])
def test_an_interpolation_in_a_stored_configuration_is_refused_and_not_resolved(config, monkeypatch, setting, text):
    monkeypatch.setenv("SECRET", SECRET)
    with pytest.raises(ValueError, match=rf"^config\.{setting}(\.0)? must be a plain value in a file of") as caught:
        untrusted.stored(changed(config, setting, [text] if setting == "tracking.tags" else text))
    assert SECRET not in str(caught.value)


def test_nothing_is_downloaded_for_a_stored_configuration(config):
    source = {"_target_": "kdexp.data.mnist.load", "data_dir": "/data", "download": True}
    config = changed(config, "dataset.source", source)
    config = changed(config, "scheme", {"name": "cross_domain", "source": {"source": dict(source)}})
    found = untrusted.stored(config)
    assert found["dataset"]["source"] == source | {"download": False} == found["scheme"]["source"]["source"]


def test_a_store_that_is_not_here_is_not_made_but_the_readers_own_is_used(config, tmp_path, monkeypatch):
    monkeypatch.setenv("KDEXP_STORE_DIR", "/my/store")
    assert untrusted.stored(changed(config, "store_dir", str(tmp_path)))["store_dir"] == "/my/store"
    monkeypatch.delenv("KDEXP_STORE_DIR")
    monkeypatch.setenv("HOME", "/home/me")
    assert untrusted.stored(config)["store_dir"] == "/home/me/.cache/kdexp"


def test_trackers_are_the_readers_own(config, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mine:5000")
    theirs = {
        "tool": "mlflow",
        "wandb": "online",
        "uri": "http://theirs",
        "entity": "them",
        "project": "p",
        "name": "n",
    }
    found = untrusted.stored(changed(config, "tracking", theirs))["tracking"]
    assert found == theirs | {"wandb": "auto", "uri": "http://mine:5000", "entity": None}
    quiet = untrusted.stored(changed(config, "tracking", theirs | {"wandb": "disabled"}))["tracking"]
    assert quiet["wandb"] == "disabled"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert untrusted.stored(config)["tracking"]["uri"] == "sqlite:///mlflow.db"


@pytest.mark.parametrize(
    "text",
    [
        "${oc.env:SECRET}",
        "x/${ oc.env : SECRET }",
        "${oc.env:SECRET,default}",
        '${oc.env:"SECRET"}',
        "${oc.env:HOME,${oc.env:SECRET}}",
        "${oc.select:seed,${oc.env:SECRET}}",
        "${oc.env:${seed}}",
        "${${seed}:SECRET}",
        "${oc.${seed}:SECRET}",
        "${oc.decode:'x'}",
        "${oc.create:{a: 1}}",
    ],
)
@pytest.mark.parametrize("place", ["tracking.name", "student.hidden.0", "augment.transforms.0.fill"])
def test_a_configuration_reads_no_other_variables_of_the_environment(place, text):
    *above, last = place.split(".")
    node = {last: text} if not last.isdigit() else [text]
    for key in reversed(above):
        node = [node] if key.isdigit() else {key: node}
    with pytest.raises(ValueError, match=rf"^{place.replace('.', '[.]')} must read no environment variable but KDEXP_"):
        untrusted.check_texts(node)


@pytest.mark.parametrize(
    "text",
    [
        "${oc.env:KDEXP_DATA_DIR,data}",
        "${dataset.mean}",
        "${.seed}",
        "${kdexp.views:${x}}",
        "${oc.env:KDEXP_STORE_DIR,${oc.env:HOME,.}/.cache}",
        "plain",
        "a:b@c",
        "$HOME",
        "sqlite:///mlflow.db",
        "postgresql://me@host/db",
        "http://host:8080/path?a=b@c",
    ],
)
def test_other_interpolations_and_texts_are_fine(text):
    untrusted.check_texts({"a": [text]})


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"http://me:{SECRET}@host:5000/x", "http://me:***@host:5000/x"),
        (f"http://me:{SECRET}@2@host", "http://me:***@host"),
        (f"postgresql+psycopg2://me:{SECRET}@host/db", "postgresql+psycopg2://me:***@host/db"),
        (f"http://:{SECRET}@host", "http://:***@host"),
        (f"postgresql://host/db?user=me&password={SECRET}&x=1", "postgresql://host/db?user=me&password=***&x=1"),
        (f"https://host/?api_key={SECRET}", "https://host/?api_key=***"),
    ],
)
def test_a_password_in_an_address_is_refused_in_settings_and_never_shown(text, shown):
    assert untrusted.without_password(f"see {text} and {text}") == f"see {shown} and {shown}"
    with pytest.raises(ValueError, match=r"^tracking\.uri must hold no password, .* got ") as caught:
        untrusted.check_texts({"tracking": {"uri": text}})
    assert SECRET not in str(caught.value)


def test_in_python_too_a_password_or_a_secret_is_refused_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", SECRET)
    for override in (f"tracking.uri='http://me:{SECRET}@host'", "tracking.name=${oc.env:SECRET}"):
        with pytest.raises(ValueError, match=r"^tracking\.(uri|name) must ") as caught:
            compose([override], output_dir=tmp_path)
        assert SECRET not in str(caught.value)


def test_the_tracking_server_is_in_the_configuration_without_its_password(monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{SECRET}@host:5000")
    config = compose(["experiment=smoke", "tracking=mlflow"], output_dir=tmp_path)
    assert config.tracking.uri == "http://me:***@host:5000"
    assert SECRET not in OmegaConf.to_yaml(config)


@pytest.mark.parametrize("name", ["../x", "/etc", "a/../../x", "link", "link/below", "loop", "a\0b", ".."])
def test_what_a_file_names_lies_in_its_folder(tmp_path, name):
    folder = tmp_path / "folder"
    (folder / "own").mkdir(parents=True)
    (folder / "link").symlink_to(tmp_path)
    (folder / "loop").symlink_to(folder / "loop")
    with pytest.raises(ValueError, match="must hold what its files name, got ") as caught:
        untrusted.inside(folder, name)
    assert "\n" not in str(caught.value)
    (folder / "shortcut").symlink_to("own")
    for fine in ("own", "own/new", "new", "shortcut", "own/../own", ""):
        assert untrusted.inside(folder, fine) == folder / fine


def test_a_folder_that_is_reached_by_a_link_is_the_users_own_choice(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "chosen").symlink_to(tmp_path / "real")
    assert untrusted.inside(tmp_path / "chosen", "run") == tmp_path / "chosen" / "run"
    untrusted.check_folder(tmp_path / "chosen", "run")


@pytest.mark.parametrize(
    "place", ["train.log", "figures", "checkpoints/last.ckpt", "steps/a/robustness", "wandb/x", "steps/a/wandb"]
)
def test_a_link_out_of_a_run_folder_is_refused(tmp_path, place):
    folder = tmp_path / "run"
    (folder / place).parent.mkdir(parents=True, exist_ok=True)
    (folder / "wandb" / "offline-run" / "logs").mkdir(parents=True)
    (folder / "wandb" / "latest-run").symlink_to("offline-run")  # W&B makes such, and the next one, too
    (folder / "wandb" / "offline-run" / "logs" / "debug-core.log").symlink_to(tmp_path / "core.log")
    untrusted.check_folder(folder, "run")
    (folder / place).symlink_to(tmp_path)
    with pytest.raises(ValueError, match=rf"^run must hold no link to what is outside, got {folder / place}$"):
        untrusted.check_folder(folder, "run")


@pytest.mark.parametrize("name", ["wandb", ".wandb"])
def test_settings_of_wandb_in_a_run_folder_are_refused(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "settings").write_text("[default]\nbase_url = http://theirs\n")
    with pytest.raises(ValueError, match=r"^resume must hold no settings of W&B, got "):
        untrusted.check_folder(tmp_path, "resume")


def test_what_a_terminal_would_obey_is_written_out():
    hostile = "a\x1b]0;title\x07b\x1b[2Jc\rd\x9b1md\u202ee\x00 http://me:hunter2@host"
    shown = untrusted.printable(hostile)
    assert shown == r"a\x1b]0;title\x07b\x1b[2Jc\rd\x9b1md\u202ee\x00 http://me:***@host"
    kept = "tabs\tand\nlines, ü, 漢, ±, 😀"
    assert untrusted.printable(kept) == kept


@pytest.mark.parametrize(
    "text", ["=1+2", "+a", "-a", "@a", "\t=1", "\n=1", "'=1", "a\x1b[2J\\x1b", "ü\udcff漢\r", "-1", "-"]
)
def test_a_cell_is_no_formula_and_can_be_taken_back(text):
    shown = untrusted.cell(untrusted.escaped(text))
    assert shown.isprintable()
    assert shown == text or shown[0] == "'" or "\\" in shown
    assert text == "-1" or shown[0] not in "=+-@"
    assert shown.removeprefix("'").encode("latin-1", "backslashreplace").decode("unicode_escape") == text


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("/home/Jane Doe/x.csv", "x.csv"),
        ("dataset.source.file=/home/Jane Doe/x.csv", "dataset.source.file=x.csv"),
        ("the run in '/home/jane/run' is not read, see /tmp/a/log.", "the run in 'run' is not read, see log."),
        ("dataset.source.file=[/a/x.csv,/a/y.csv]", "dataset.source.file=[x.csv,y.csv]"),
        ("see https://huggingface.co/me/small, and/or 3/4 of vit-b/16", None),
        ("file=data/x.csv", None),
        ("n/a / b", None),
        ("{file:/home/me/q}", "{file:q}"),
        ("file:///home/me/x or sqlite:////home/me/runs.db", "file://x or sqlite:///runs.db"),
    ],
)
def test_of_a_path_of_this_machine_its_last_part_is_left(text, left):
    assert untrusted.without_folders({"a": [text], "/b/c": 1}) == {"a": [left or text], "/b/c": 1}
