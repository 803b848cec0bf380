"""A scheme of a user's own: one file and one yaml outside kdexp."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from small_training import TASK, network, sgd, train

from kdexp.config.compose import compose, plain
from kdexp.experiment.check import check
from kdexp.losses.kd import KD
from kdexp.schemes.base import SchemeContext, scheme_of
from kdexp.teacher.teacher import Teacher

SCHEME = '''
from dataclasses import dataclass
from functools import partial

from kdexp.config.require import require
from kdexp.schemes.base import Scheme
from kdexp.schemes.prior_run_settings import as_teacher, prior_run
from kdexp.training.distiller import Distiller
from kdexp.training.terms import weighted_term


@dataclass(frozen=True, kw_only=True)
class Sure(Scheme):
    """The teacher is the same student, trained alone first; the logits are kept small."""

    weight: float

    def check(self, setting, dataset):
        super().check(setting, dataset)
        require(self.weight > 0, f"{setting}.weight", "must be > 0", self.weight)

    def prior_runs(self, values):
        yield prior_run(values, "alone", alpha=1.0)
        yield "", {**values, "teacher": as_teacher(values, "alone", values["student"])}

    def distiller(self, parts):
        return partial(SureDistiller, weight=self.weight, teacher=parts.teacher)


class SureDistiller(Distiller):
    def __init__(self, *args, weight, **settings):
        super().__init__(*args, **settings)
        self._weight = weight

    def training_terms(self, batch):
        logits, terms = super().training_terms(batch)
        return logits, terms | {"size": weighted_term(self._weight, lambda: logits.square().mean())}


@dataclass(frozen=True, kw_only=True)
class Alone(Scheme):
    """Without a teacher."""

    needs = "none"
'''

YAML = """
_target_: my_schemes.Sure
name: sure
weight: 0.01
"""

ALONE = """
_target_: my_schemes.Alone
name: alone
teacher: none
"""


@pytest.fixture
def own(tmp_path) -> Path:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "my_schemes.py").write_text(SCHEME)
    (tmp_path / "conf" / "scheme").mkdir(parents=True)
    (tmp_path / "conf" / "scheme" / "sure.yaml").write_text(YAML)
    (tmp_path / "conf" / "scheme" / "alone.yaml").write_text(ALONE)
    return tmp_path


def test_a_class_that_is_no_scheme_is_refused_in_one_line(own, monkeypatch):
    (own / "code" / "no_scheme.py").write_text("class Sure:\n    def __init__(self, name):\n        pass\n")
    monkeypatch.syspath_prepend(own / "code")
    node = {"_target_": "no_scheme.Sure", "name": "sure"}
    with pytest.raises(ValueError, match=r"^scheme\._target_ must be a scheme of kdexp.schemes, or be .*KDEXP_TRUST"):
        scheme_of(node)
    monkeypatch.setenv("KDEXP_TRUST", "no_scheme")
    with pytest.raises(ValueError, match=r"^scheme\._target_ must be a kdexp.schemes.base.Scheme, got no_scheme.Sure$"):
        scheme_of(node)


def test_the_scheme_of_the_documentation_trains(tmp_path, monkeypatch):
    text = (Path(__file__).parents[2] / "docs" / "own_training.md").read_text()
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "Scheme" in block]
    (settings,) = [block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "my_schemes" in block]
    (tmp_path / "documented.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("KDEXP_TRUST", "documented")
    scheme = scheme_of(yaml.safe_load(settings.replace("my_schemes", "documented")))
    dataset = compose(["experiment=smoke"], output_dir="x").dataset
    scheme.check("scheme", dataset)
    make = scheme.distiller(SchemeContext(dataset, Teacher([network(9)])))
    module = make(network(), sgd, task=TASK, soft_loss=KD(2.0), temperature=2.0)
    logged = train(module, epochs=1).callback_metrics
    parts = {"hard": 0.1, "soft": 0.9, "size": 0.01}
    total = sum(weight * float(logged[f"train/loss_{part}"]) for part, weight in parts.items())
    assert logged["train/loss"] == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["scheme=ema", "~scheme._target_"], r"scheme\._target_ must be given, as conf/scheme does, got name=ema$"),
        (["scheme=ema", "scheme.teacher=none"], r"scheme\.teacher must be own, got none$"),
        (["scheme=trades", "~scheme.teacher"], r"scheme\.teacher must be none, got trained$"),
        (["scheme=ema", "+scheme.rate=1"], r"scheme: EMA\.__init__\(\) got an unexpected keyword argument 'rate'$"),
        (["scheme=born_again", "~scheme.generations"], r"scheme: BornAgain\.__init__\(\) missing 1 .* 'generations'$"),
        (["scheme=ema", "scheme.name=null"], r"scheme\.name must be a name, got None$"),
        (["scheme=mutual", "scheme.peers=3"], r"scheme\.peers must be networks by name, got 3$"),
        (["scheme=mutual", "+student@scheme.peers.a=cnn", "scheme.peers.a.num_classes=3"],
         r"scheme\.peers\.a\.num_classes must be 10, got 3$"),
        (["scheme=pgd_at", "scheme.attack=3"], r"scheme\.attack must be the settings of an attack, got 3$"),
        (["scheme=ema", "scheme._target_=kdexp.schemes.base.Scheme"], r"scheme\._target_ must be a scheme of kdexp"),
        (["scheme=ema", "scheme._target_=kdexp.schemes.adversarial.AdversarialScheme"],
         r"scheme\._target_ must be a scheme of kdexp"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_settings_that_are_no_schemes_are_refused_in_one_line(overrides, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        check(compose(["experiment=smoke", *overrides], output_dir="x"))


@pytest.mark.slow
def test_what_a_run_is_without_a_teacher_is_known_without_its_scheme():
    """A sweep tells controls and names its jobs before anything is imported."""
    values = plain(compose(["experiment=smoke", "scheme=pgd_at", "alpha=1"], output_dir="x"))
    code = (
        "import json, sys\n"
        "from omegaconf import OmegaConf\n"
        "from kdexp.config.identity import Identity\n"
        "from kdexp.experiment.members import has_soft_term, teachers\n"
        "values = json.loads(sys.stdin.read())\n"
        "identity = Identity(values)\n"
        "assert identity.fingerprint and identity.is_attacked and not identity.is_control\n"
        "assert not has_soft_term(values)\n"
        "assert teachers(OmegaConf.create(values)) == {}\n"
        "assert not {'torch', 'kdexp.schemes.base'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], input=json.dumps(values), text=True, check=True)


def test_a_scheme_of_ones_own_is_one_file_and_one_yaml_outside_of_kdexp(own, command):
    trusted = {"KDEXP_TRUST": "my_schemes", "PYTHONPATH": str(own / "code")}
    given = ["experiment=smoke", "tracking=none", "trainer.max_epochs=1", "teacher.recipe.max_epochs=1"]
    train = ["kdexp-train", f"--config-dir={own / 'conf'}", *given]
    untrusted = command(*train, "scheme=sure", "output_dir=run", rc=2)
    assert "scheme._target_ must be a scheme of kdexp.schemes, or be defined in a package" in untrusted.stderr
    wrong = command(*train, "scheme=sure", "output_dir=run", "scheme.weight=0", rc=2, **trusted)
    assert "scheme.weight must be > 0, got 0" in wrong.stderr
    command(*train, "scheme=sure", "output_dir=run", **trusted)
    found = json.loads((own / "run" / "results.json").read_text())
    assert (found["prior_runs"], found["is_control"]) == (["alone"], False)
    before = json.loads((own / "run" / "prior_runs" / "alone" / "results.json").read_text())
    assert before["is_control"]
    assert found["teacher"]["test"]["acc"] == before["metrics"]["test"]["best"]["acc"]
    with (own / "run" / "metrics.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["train/loss_size"]) > 0
    command(*train, "scheme=alone", "alpha=1", "output_dir=taught_by_nobody", **trusted)
    alone = json.loads((own / "taught_by_nobody" / "results.json").read_text())
    assert not alone["is_control"]
    assert "teacher" not in alone
    evaluated = command("kdexp-eval", f"run={own / 'run'}", **trusted)
    assert f"{found['metrics']['test']['best']['agreement']:.4f}" in evaluated.stdout
    assert "must be a scheme of kdexp" in command("kdexp-eval", f"run={own / 'run'}", rc=2).stderr
