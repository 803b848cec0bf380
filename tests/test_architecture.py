"""The architecture, read from the source: layers, sizes, names that stay private."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PATHS = [path.relative_to(ROOT) for top in ("kdexp", "hydra_plugins") for path in sorted((ROOT / top).rglob("*.py"))]


def name_of(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in PATHS}

LAYERS = [
    "contracts features hooked_loss atomic results recording run_folder weights schedules signals progress_log terminal"
    " naming onnx_file torch_threads config",
    "losses feature_losses models metrics data",
    "teacher robustness tasks",
    "training report",
    "schemes",
    "experiment",
    "export",
    "doctor",
    "sweeps",
    "hydra_plugins",
    "cli",
]
LAYER = {part: number for number, parts in enumerate(LAYERS) for part in parts.split()}

UPWARDS = {
    ("kdexp.config.compose", "kdexp.data.inferred"): "a resolver of Hydra's that fills in what the data say",
}
"""Imports that run upwards, each with its reason."""


@cache
def tree(name: str) -> ast.Module:
    return ast.parse((ROOT / MODULES[name]).read_text())


def imported(name: str) -> set[str]:
    """Our own modules that a module imports, in functions and for types, too."""
    found = set()
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in {name}"
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {each if each in MODULES else str(node.module) for each in full}
    return {each for each in found if each in MODULES}


def part_of(name: str) -> str:
    words = name.split(".")
    return words[0] if words[0] == "hydra_plugins" or len(words) == 1 else words[1]


def test_every_module_has_a_layer():
    parts = {part_of(name) for name in MODULES} - {"kdexp"}
    assert parts == set(LAYER)


def test_imports_run_downwards():
    found = {
        (name, other)
        for name in MODULES
        for other in imported(name)
        if name != "kdexp"
        and other != "kdexp"
        and not other.endswith(".settings")
        and LAYER[part_of(other)] > LAYER[part_of(name)]
    }
    assert found == set(UPWARDS)


CONFIGURATION = {"hydra", "omegaconf"}
LIGHTNING = {"pytorch_lightning", "lightning_fabric", "lightning"}
LEFT_OUT = {
    "losses": CONFIGURATION | LIGHTNING | {"torchmetrics", "torchvision", "timm"},
    "feature_losses": CONFIGURATION | LIGHTNING | {"torchmetrics", "torchvision", "timm"},
    "models": CONFIGURATION | LIGHTNING | {"torchmetrics"},
    "robustness": CONFIGURATION | LIGHTNING,
    "metrics": CONFIGURATION | LIGHTNING,
    "data": CONFIGURATION,
    "teacher": CONFIGURATION | LIGHTNING,
    "tasks": CONFIGURATION | LIGHTNING,
    "training": CONFIGURATION,
    "report": CONFIGURATION | LIGHTNING | {"torch"},
}
"""Libraries that a package does without."""


def libraries(name: str) -> set[str]:
    found = set()
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module))
    return {each.partition(".")[0] for each in found}


@pytest.mark.parametrize("name", MODULES)
def test_a_library_is_imported_where_it_belongs(name):
    if not name.endswith(".settings"):
        assert not libraries(name) & LEFT_OUT.get(part_of(name), set())
    assert "wandb" not in libraries(name) or name in ("kdexp.experiment.tracking", "kdexp.experiment.wandb_server")
    assert "optuna" not in libraries(name) or name == "kdexp.sweeps.optuna_study" or part_of(name) == "hydra_plugins"


@pytest.mark.parametrize("name", [name for name in MODULES if part_of(name) in ("losses", "feature_losses", "models")])
def test_a_method_can_be_taken_home(name):
    """It needs nothing of kdexp but its own package, the contracts and, to read features, the hooks."""
    assert {part_of(other) for other in imported(name)} <= {"contracts", "features", "losses", part_of(name)}


def test_what_measures_does_not_judge():
    """The doctor's measurements know no finding, and one of its files alone knows Lightning."""
    for name in MODULES:
        if name in ("kdexp.doctor.inspection", "kdexp.doctor.measurements"):
            assert "kdexp.doctor.finding" not in imported(name)
        if part_of(name) == "doctor" and name != "kdexp.doctor.inspection":
            assert not libraries(name) & LIGHTNING


def test_settings_import_the_ground_alone():
    for name in MODULES:
        if name.endswith(".settings"):
            assert {part_of(other) for other in imported(name) if not other.endswith(".settings")} <= {
                "config",
                "metrics",
            }


def test_there_is_no_circle():
    graph = {name: imported(name) - {name, "kdexp"} for name in MODULES}
    while leaves := {name for name, others in graph.items() if not others & set(graph)}:
        graph = {name: others for name, others in graph.items() if name not in leaves}
    assert not graph


@pytest.mark.parametrize("name", MODULES)
def test_a_file_has_at_most_400_lines(name):
    assert len((ROOT / MODULES[name]).read_text().splitlines()) <= 400


def functions(node: ast.AST, prefix: str) -> Iterator[tuple[str, int]]:
    for child in ast.iter_child_nodes(node):
        own = prefix
        if isinstance(child, ast.FunctionDef | ast.ClassDef):
            own = f"{prefix}.{child.name}"
            if isinstance(child, ast.FunctionDef):
                assert child.end_lineno is not None
                yield own, child.end_lineno - child.lineno + 1
        yield from functions(child, own)


def test_a_function_has_at_most_64_lines():
    assert [(where, lines) for name in MODULES for where, lines in functions(tree(name), name) if lines > 64] == []


def test_names_with_an_underscore_are_used_in_their_own_module_alone():
    found = []
    for name in MODULES:
        own = {}
        for node in ast.walk(tree(name)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith(("kdexp", "hydra_plugins")):
                for alias in node.names:
                    if f"{node.module}.{alias.name}" in MODULES:
                        own[alias.asname or alias.name] = alias.name
                    elif alias.name.startswith("_") and not alias.name.startswith("__"):
                        found.append((name, alias.name))
        for node in ast.walk(tree(name)):
            of_own = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in own
            if of_own and node.attr.startswith("_") and not node.attr.startswith("__"):
                found.append((name, f"{node.value.id}.{node.attr}"))
    assert found == []


def annotations(node: ast.AST) -> Iterator[ast.expr]:
    for each in ast.walk(node):
        if isinstance(each, ast.arg | ast.AnnAssign) and each.annotation is not None:
            yield each.annotation
        elif isinstance(each, ast.FunctionDef) and each.returns is not None:
            yield each.returns


def test_any_stands_at_the_edges_alone():
    """At most 6 a thousand lines: what Hydra, a file or a library gives."""
    notes = [note for name in MODULES for note in annotations(tree(name))]
    count = sum(isinstance(part, ast.Name) and part.id == "Any" for note in notes for part in ast.walk(note))
    assert 1000 * count <= 6 * sum(len((ROOT / path).read_text().splitlines()) for path in PATHS)


def test_who_needs_a_thing_takes_the_thing_and_not_the_configuration():
    """Hydra's and the programs' entries, `Experiment`, and what checks or builds all of it."""
    found = [
        f"{name}.{node.name}"
        for name in MODULES
        for node in ast.walk(tree(name))
        if isinstance(node, ast.FunctionDef)
        for given in [*node.args.args, *node.args.kwonlyargs]
        if given.arg == "config" or (given.annotation and ast.unparse(given.annotation) == "DictConfig")
    ]
    assert len(found) <= 22, found


@pytest.mark.parametrize("name", MODULES)
def test_a_file_has_at_most_12_imports_of_our_own(name):
    assert len(imported(name)) <= 12


def test_nothing_keeps_the_formatter_out():
    assert [name for name in MODULES if "fmt: skip" in (ROOT / MODULES[name]).read_text()] == []


def test_a_package_names_itself_and_nothing_else():
    for name, path in MODULES.items():
        if path.name == "__init__.py" and name != "kdexp":
            assert [type(node) for node in tree(name).body] == [ast.Expr], name
