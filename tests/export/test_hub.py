import json
import sys

import pytest
import yaml
from saved_students import saved
from written_runs import write_run

import kdexp
from kdexp import results
from kdexp.atomic import sha256
from kdexp.export import hub
from kdexp.report import robustness_json


@pytest.fixture
def run(tmp_path):
    write_run(tmp_path / "sweep" / "run")
    saved(tmp_path / "sweep" / "run", "dataset=digits", "student=cnn_small")
    return tmp_path / "sweep" / "run"


def test_the_layout_is_the_hubs_and_kdexp_loads_it(run, tmp_path):
    (tmp_path / "out").mkdir()
    folder = hub.lay_out(run, tmp_path / "out")
    assert sorted(path.name for path in folder.iterdir()) == [
        "MODEL_CARD.md", "README.md", "config.json", "model.safetensors",
    ]  # fmt: skip
    assert sha256(folder / "model.safetensors") == sha256(run / "student.safetensors")
    about = json.loads((folder / "config.json").read_text())
    assert about["architecture"] == "kdexp.models.cnn.cnn"
    assert yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])["library_name"] == "kdexp"
    student = kdexp.load(folder)
    assert student.about.settings == about["settings"]
    assert (hub.lay_out(tmp_path / "sweep", tmp_path / "winner") / "model.safetensors").is_file()


def test_what_is_passed_on_names_no_folder_of_this_machine(run, tmp_path):
    saved(run, "dataset=digits", "student=cnn_small", settings={"folder": "/home/jane/my vit", "width": 4})
    results.write(
        run, {**results.read(run, "run"), "overrides": ["student=huggingface", "student.folder=/home/jane/my vit"]}
    )
    folder = hub.lay_out(run, tmp_path / "out")
    for path in folder.iterdir():
        assert b"jane" not in path.read_bytes()
        assert b"my vit" in path.read_bytes()
    report = {
        "models": {"student": {"digest": "d1", "conditions": "/home/jane/run/robustness"}}, "samples": 9,
        "notes": ["not kept in /home/jane/store/x: No space"], "metrics": {"clean": {"acc": {"student": 0.5}}},
    }  # fmt: skip
    assert robustness_json.to_pass_on(report) == {
        "models": {"student": {"digest": "d1"}}, "samples": 9, "notes": ["not kept in x: No space"],
        "metrics": {"clean": {"acc": {"student": 0.5}}},
    }  # fmt: skip


def test_an_earlier_export_leaves_nothing_beside_a_new_one(run, tmp_path):
    folder = hub.lay_out(run, tmp_path / "out")
    kept = ("MODEL_CARD.md", "notes.txt", "figures/mine.png", "secret.json")
    gone = ("student.pt2", "robustness.csv", "robustness.json", "figures/reliability.png", "tokenizer.json")
    for name in (*kept, *gone):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("1")
    (folder / "export.json").write_text('{"file": "student.pt2"}')
    hub.clear(folder)
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*")) == sorted(kept)
    for content in ('{"file": "secret.json"}', '{"file": "../sweep/run/student.safetensors"}', "[]", "{"):
        (folder / "export.json").write_text(content)
        hub.clear(folder)
    assert (folder / "secret.json").exists()
    assert (run / "student.safetensors").exists()
    hub.clear(tmp_path / "nowhere")


def test_a_dry_run_lists_what_would_be_sent_and_no_checkpoint(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # it is not needed
    folder = hub.lay_out(run, tmp_path / "out")
    (folder / "checkpoints").mkdir()
    others = (
        "checkpoints/best.safetensors",
        "last.ckpt",
        "weights.pt",
        "train.log",
        results.FILE,
        "secrets.json",
        "a.md",
    )
    for name in ("model.onnx", "other.onnx", results.ROBUSTNESS, *others):
        (folder / name).write_bytes(b"1234")
    (folder / "export.json").write_text('{"file": "model.onnx"}')
    lines = hub.push(folder, "me/small", dry_run=True)
    assert [line.split("  ")[0] for line in lines[:-1]] == [
        "MODEL_CARD.md", "README.md", "config.json", "export.json", "model.onnx", "model.safetensors",
    ]  # fmt: skip
    assert "model.onnx  4 bytes" in lines
    assert lines[-1] == "would be sent to https://huggingface.co/me/small (dry_run=true)"
    with pytest.raises(ValueError, match=r"^push must be null unless huggingface_hub is installed \(pip "):
        hub.push(folder, "me/small", dry_run=False)


@pytest.mark.parametrize("name", ["small", "me/small/er", "../x", "me/..", "me/sm all", ""])
def test_another_name_is_refused(run, tmp_path, name):
    with pytest.raises(ValueError, match=r"^push must be NAMESPACE/NAME, got "):
        hub.push(hub.lay_out(run, tmp_path / "out"), name, dry_run=True)


def test_without_a_token_or_a_network_there_is_one_line(run, tmp_path, monkeypatch):
    library = pytest.importorskip("huggingface_hub")
    folder = hub.lay_out(run, tmp_path / "out")
    monkeypatch.setattr(library, "get_token", lambda: None)
    for before in (lambda: hub.check("me/small", dry_run=False), lambda: hub.push(folder, "me/small", dry_run=False)):
        with pytest.raises(ValueError, match=r"^push needs a token in HF_TOKEN, .*, got none for me/small$"):
            before()
    hub.check("me/small", dry_run=True)

    def refuse(*_, **__):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(library, "get_token", lambda: "token")
    monkeypatch.setattr(library.HfApi, "create_repo", refuse)
    with pytest.raises(ValueError, match=r"^push must reach the Hub, got me/small: no route; to host$"):
        hub.push(folder, "me/small", dry_run=False)


def test_what_is_sent_is_what_was_listed(run, tmp_path, monkeypatch):
    library = pytest.importorskip("huggingface_hub")
    sent = {}
    monkeypatch.setattr(library, "get_token", lambda: "token")
    monkeypatch.setattr(library.HfApi, "create_repo", lambda *_, **given: sent.update(given))
    monkeypatch.setattr(library.HfApi, "upload_folder", lambda *_, **given: sent.update(given))
    hub.push(hub.lay_out(run, tmp_path / "out"), "me/small", dry_run=False)
    assert sent["allow_patterns"] == ["MODEL_CARD.md", "README.md", "config.json", "model.safetensors"]
    assert sent["private"]


def test_a_link_out_of_the_folder_is_not_followed(run, tmp_path):
    folder = hub.lay_out(run, tmp_path / "out")
    (tmp_path / "secret.json").write_text("{}")
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(ValueError, match=r"which is outside$"):
        hub.push(folder, "me/small", dry_run=True)
