"""What a configuration may call: the slots, all that can be reached in each of them, and how it is called."""

import importlib
import inspect
import pkgutil
import sys
import warnings
from functools import cache, partial
from pathlib import Path

import pytest
import torch
import yaml

from kdexp.config import trust
from kdexp.losses.kd import KD
from kdexp.losses.logit_std import LogitStandardization

CONF = Path(__file__).parents[2] / "conf"

# Where conf/ names what stands in a slot: the folders of its yaml files, and the key; None: any other key; "": the
# top of a yaml's groups.
NAMED = {
    "network": (("student",), None),
    "teacher": (("student", "teacher"), None),
    "source": (("dataset",), None),
    "task": (("task",), None),
    "transform": (("augment",), None),
    "loss": (("loss",), None),
    "feature_loss": (("feature_loss",), None),
    "optimizer": (("optimizer",), None),
    "scheduler": (("scheduler",), None),
    "scheme": (("scheme",), None),
    "axis": (("robustness",), ""),
    "perturbation": (("corruption", "robustness"), None),
    "operator": (("corruption", "robustness"), "operator"),
}

# Parameters that are texts: what might be a path, an address or a name that is looked up. They are read here, by a
# person, when there is a new one.
TEXTS = {
    "network": {"cell", "encoder", "name", "norm", "options", "stem"}
    | {"folder", "tokenizer"},  # JSON and safetensors are read, no pickle and no code
    "teacher": {"cell", "encoder", "name", "norm", "options", "stem", "folder", "tokenizer"}
    | {"file", "holds", "kind", "layout", "output"},  # numbers are read, and an ONNX graph that was checked
    # Files and folders are read, and nothing in them is run: csv, images, arrays without pickles, parquet.
    "source": {"data_dir", "root", "kind"}
    | {"file", "train", "val", "test", "labels", "val_labels", "test_labels", "folder"}
    | {"label", "columns", "drop", "words", "missing", "inputs", "layout", "image", "text", "group"}
    | {"classes", "ignore", "preset"},  # of masks: names and numbers; one of kdexp.data.mask_layouts, by its name
    "task": {"kind"},
    "loss": {"kind", "direction", "args", "kwargs"},
    "feature_loss": {"states", "teacher_stages"},  # a word each
    "scheme": {"name", "teacher"} | {"assistants", "attack", "peers", "source"},  # the latter are settings by name
    "axis": {"name", "dataset", "pairs", "kinds"} | {"near", "far", "lists"},  # the latter are names of options
    "perturbation": {"applies_to", "family", "large", "operator", "parameter", "small"},
}


def modules(package):
    """A package's modules, imported."""
    found = importlib.import_module(package)
    yield found
    for info in pkgutil.walk_packages(getattr(found, "__path__", []), f"{package}."):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # timm's old names for its modules
            yield importlib.import_module(info.name)


@cache
def paths() -> list[str]:
    """All that has a path in kdexp and in the libraries of its slots, however private, and what they import."""
    found = set()
    for package in ("kdexp", "torch.optim", "timm.optim"):
        for module in modules(package):
            for name, value in vars(module).items():
                found.add(f"{module.__name__}.{name}")
                if inspect.ismodule(value) or (inspect.isclass(value) and package == "kdexp"):
                    found |= {f"{module.__name__}.{name}.{inner}" for inner in vars(value)}
    return sorted(found)


@cache
def reachable(slot) -> frozenset[str]:
    def is_found(path):
        try:
            trust.find(path, slot)
        except ValueError:
            return False
        return True

    return frozenset(filter(is_found, paths()))


def named_in_conf(slot) -> set[str]:
    folders, key = NAMED[slot]
    found = set()

    def read(node, under, depth=0):
        if isinstance(node, dict):
            # In conf/robustness the axes stand at the top.
            place = "" if folder == "robustness" and depth == 1 else under if under == "operator" else None
            if "_target_" in node and place == key and "${" not in node["_target_"]:  # one of two that are named
                found.add(node["_target_"])
            for name, value in node.items():
                read(value, name, depth + 1)
        for value in node if isinstance(node, list) else ():
            read(value, under, depth)

    for folder in folders:
        for path in (CONF / folder).glob("*.yaml"):
            read(yaml.safe_load(path.read_text()), None)
    return found


@pytest.mark.parametrize("slot", NAMED)
def test_of_kdexp_a_slot_takes_what_an_option_in_conf_names_and_nothing_else(slot):
    """What becomes reachable without an option of its own is seen here; what has one, a person can see in conf/."""
    assert len(paths()) > 10_000
    assert {path for path in reachable(slot) if path.startswith("kdexp")} == {
        path for path in named_in_conf(slot) if path.startswith("kdexp")
    }
    assert reachable(slot) >= named_in_conf(slot)


def test_every_slot_is_looked_at():
    assert NAMED.keys() == trust.SLOTS.keys()
    assert reachable("teacher") > reachable("network")


def test_of_libraries_optimizers_and_schedulers_can_be_reached_and_nothing_else():
    scheduler = torch.optim.lr_scheduler.LRScheduler
    for slot, base in (("optimizer", torch.optim.Optimizer), ("scheduler", scheduler)):
        found = {path for path in reachable(slot) if not path.startswith("kdexp")}
        assert found
        for path in found:
            assert issubclass(pkgutil.resolve_name(path), base), path
            assert not any(part.startswith("_") for part in path.split(".")), path
            assert path.startswith(("torch.optim.", "timm.optim.")), path
    others = [slot for slot in NAMED if slot not in ("optimizer", "scheduler")]
    assert not [path for slot in others for path in reachable(slot) if not path.startswith("kdexp.")]


@pytest.mark.parametrize("slot", NAMED)
def test_what_is_reachable_has_no_parameter_that_might_be_a_path_or_an_address_but_those_that_are_known(slot):
    found = set()
    for path in reachable(slot):
        if path.startswith("kdexp"):
            parameters = inspect.signature(trust.find(path, slot)).parameters.values()
            words = ("str", "Any", "Path", "Literal", "Callable", "object")
            found |= {p.name for p in parameters if any(word in str(p.annotation) for word in words)}
    assert found == TEXTS.get(slot, set())


def test_nothing_of_other_modules_can_be_reached_in_any_slot():
    names = (
        "builtins",
        "ctypes",
        "functools",
        "importlib",
        "io",
        "operator",
        "os",
        "pickle",
        "runpy",
        "shutil",
        "site",
        "subprocess",
        "sys",
        "timm",
        "timm.models",
        "torch",
        "torch.cuda",
        "torch.hub",
        "torch.jit",
        "torch.nn",
        "torch.nn.attention",
        "torch.nn.functional",
        "torch.nn.modules.module",
        "torch.serialization",
        "torch.utils.data",
        "torchvision.datasets",
        "torchvision.models",
        "hydra.utils",
        "omegaconf",
        "pytorch_lightning",
        "kdexp",
        "hydra_plugins.kdexp.launcher",
    )
    found = [f"{name}.{attribute}" for name in names for attribute in dir(importlib.import_module(name))]
    assert len(found) > 3000
    for slot in trust.SLOTS:
        for path in found:
            with pytest.raises(ValueError, match=r"^_target_ must be an? |^_target_ must be the "):
                trust.find(path, slot)


@pytest.mark.parametrize(
    ("slot", "target"),
    [
        ("network", "kdexp.data.loaders.Prepared"),  # private
        ("network", "kdexp.models.mlp.nn.Linear"),  # imported there, not defined there
        ("network", "kdexp.models.pretrained_stem.check_runs"),  # a function, but no constructor of a network
        ("network", "kdexp.losses.kd.KD"),  # another slot's
        ("network", "torch.nn.Linear"),
        ("source", "kdexp.data.downloads.load_torchvision"),  # calls what it is given
        ("source", "kdexp.data.downloads.one_at_a_time"),  # makes folders
        ("source", "kdexp.data.splits.torch.load"),
        ("loss", "torch.nn.attention._fa3.register_flash_attention_fa3"),  # imports a module by its name
        ("loss", "torch.nn.modules.module.register_module_forward_hook"),
        ("loss", "kdexp.losses.outcomes.warn_once"),
        ("feature_loss", "kdexp.feature_losses.simkd.ReusedClassifier"),
        ("optimizer", "timm.optim._optim_factory._import_class"),
        ("optimizer", "timm.optim.create_optimizer_v2"),
        ("optimizer", "torch.optim.lr_scheduler.LambdaLR"),
        ("optimizer", "torch.optim.sgd.SGD.register_step_pre_hook"),
        ("scheduler", "kdexp.schedules.anneal"),
        ("perturbation", "kdexp.robustness.attacks.Attack"),
        ("axis", "kdexp.robustness.axes.base.Axis"),  # what all axes have, and no axis itself
        ("axis", "kdexp.robustness.attacks.Attack"),
        ("operator", "kdexp.robustness.corruption_datasets.published_sets"),
        ("transform", "kdexp.data.augment.symmetric_beta"),
        ("transform", 7),
        ("transform", None),
        ("transform", ""),
        ("transform", "kdexp.data.augment."),
        ("transform", "kdexp.data.augment:RandomCrop"),
        ("transform", "kdexp.data.augment..RandomCrop"),
    ],
)
def test_a_slot_refuses_what_is_not_of_its_kind_in_one_line(slot, target):
    with pytest.raises(ValueError, match=r"^_target_ must (be .* KDEXP_TRUST names|name something .*), got ") as caught:
        trust.find(target, slot)
    assert "\n" not in str(caught.value)


def test_what_does_not_exist_is_said():
    with pytest.raises(
        ValueError, match=r"^loss\._target_ must name something that can be imported, got 'kdexp.losses"
    ):
        trust.find("kdexp.losses.kd.KDD", "loss", "loss.")


KD_NODE = {"_target_": "kdexp.losses.kd.KD", "temperature": 4.0}
SGD = {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.1}


def test_a_call_has_the_values_beside_it_and_inner_slots_are_filled():
    built = trust.build({"_target_": "kdexp.losses.logit_std.LogitStandardization", "loss": KD_NODE}, "loss")
    assert isinstance(built, LogitStandardization)
    assert isinstance(built.loss, KD)
    assert built.temperature == 4.0
    make = trust.build(SGD, "optimizer")
    assert isinstance(make, partial)
    assert make([torch.nn.Parameter(torch.zeros(1))]).param_groups[0]["lr"] == 0.1


@pytest.mark.parametrize(
    ("node", "slot", "message"),
    [
        (KD_NODE | {"kind": {"_target_": "kdexp.losses.kd.KD"}}, "loss", r"^kind\._target_ must not be set: nothing"),
        (KD_NODE | {"temperature": [[{"x": {"_target_": "os.system"}}]]}, "loss", r"^temperature\.0\.0\.x\._target_ "),
        (KD_NODE | {"_partial_": True}, "loss", r"^_partial_ must not be set, got True$"),
        (KD_NODE | {"_args_": [1]}, "loss", r"^_args_ must not be set"),
        (SGD | {"_recursive_": False}, "optimizer", r"^_recursive_ must not be set"),
        (SGD | {"_convert_": "all"}, "optimizer", r"^_convert_ must not be set"),
        (SGD | {"_partial_": {"_target_": "os.system"}}, "optimizer", r"^_partial_\._target_ must not be set"),
        (KD_NODE | {"temperatur": 1}, "loss", r"^kdexp\.losses\.kd\.KD: .*unexpected keyword argument 'temperatur'$"),
        (
            {"_target_": "kdexp.losses.logit_std.LogitStandardization", "loss": SGD},
            "loss",
            r"^loss\._target_ must be a loss of kdexp\.losses, or .*'torch\.optim\.SGD'$",
        ),
    ],
)
def test_a_call_that_is_not_of_its_slot_is_refused_and_nothing_of_it_is_called(node, slot, message):
    with pytest.raises(ValueError, match=message) as caught:
        trust.build(node, slot)
    assert "\n" not in str(caught.value)


def test_a_target_stands_in_a_slot_of_the_experiment_or_is_refused():
    trust.check(
        {
            "student": {"_target_": "kdexp.models.mlp.mlp"},
            "teacher": {"members": {"a": {"_target_": "kdexp.models.cnn.cnn", "recipe": {"optimizer": SGD}}}},
        }
    )
    for setting, node in (
        ("tracking.tags.0", {"tracking": {"tags": [KD_NODE]}}),
        ("student.recipe.optimizer", {"student": {"_target_": "kdexp.models.mlp.mlp", "recipe": {"optimizer": SGD}}}),
        ("", KD_NODE),
    ):
        expected = f"{setting}._target_" if setting else "_target_"
        with pytest.raises(ValueError, match=rf"^{expected.replace('.', '[.]')} must not be set"):
            trust.check(node)
    with pytest.raises(
        ValueError, match=r"^scheme\.peers must have names of letters, digits, _, \. and -, got '\.\./x'$"
    ):
        trust.check({"scheme": {"peers": {"../x": {}}}})


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A user's own module, with a loss that is made of two others, and what it imports."""
    (tmp_path / "mine.py").write_text(
        "import os\nfrom torch import nn\n\n"
        "class Both(nn.Module):\n    def __init__(self, first, others=()):\n"
        "        super().__init__()\n        self.parts = [first, *others]\n\n"
        "    @classmethod\n    def made(cls):\n        return cls(None)\n\n\n_hidden = Both\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("mine", None)


@pytest.mark.parametrize("trusted", ["mine", "other,mine", "other, mine", " mine , other,"])
def test_a_users_package_is_trusted_when_the_user_says_so_whatever_the_spaces(mine, monkeypatch, trusted):
    node = {"_target_": "mine.Both", "first": KD_NODE, "others": [KD_NODE]}
    with pytest.raises(ValueError, match="KDEXP_TRUST"):
        trust.build(node, "loss")
    monkeypatch.setenv("KDEXP_TRUST", trusted)
    assert trust.packages()[0] in ("mine", "other")
    assert [type(part) for part in trust.build(node, "loss").parts] == [KD, KD]
    assert trust.find("mine.Both.made", "loss")().parts == [None]


@pytest.mark.parametrize("target", ["mine.os.system", "mine._hidden", "mine.nn.Linear", "mineral.Both", "mine.nothing"])
def test_to_trust_a_package_is_not_to_trust_what_it_imports_or_hides(mine, monkeypatch, target):
    monkeypatch.setenv("KDEXP_TRUST", "mine")
    with pytest.raises(ValueError, match=r"_target_ must "):
        trust.find(target, "loss")
    with pytest.raises(ValueError, match=r"first\._target_ must be a loss of kdexp\.losses"):
        trust.build({"_target_": "mine.Both", "first": {"_target_": "torch.optim.SGD"}}, "loss")
