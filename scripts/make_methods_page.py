"""Write docs/methods.md: a section for each soft and each feature distillation loss, from its yaml and its docstrings.

Run it after a change of either: python scripts/make_methods_page.py
"""

import inspect
import re
from importlib import import_module
from itertools import groupby
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "methods.md"

HEAD = """# Methods

Made by `python scripts/make_methods_page.py` from the docstrings and conf/; edit those.

Every method is one word on the command line, `kdexp-train loss=NAME` or `kdexp-train feature_loss=NAME`, and one
function in anyone's own loop, `from kdexp.losses.dkd import dkd`, which needs nothing but PyTorch;
[method_results.md](method_results.md) has what came of all of them beside a tuned control;
[own_training.md](own_training.md) shows a feature loss there, with its layers found and its parameters trained. The
training loss is

    L = alpha * L_hard + (1 - alpha) * weight * L_soft + sum_k weight_k * L_feature_k

where **alpha weighs the hard term**, the cross entropy with the labels, `loss=NAME` chooses the soft term, and
`feature_loss=NAME` or `'feature_loss=[NAME,NAME]'` (in quotes: brackets mean something to a shell) adds
feature distillation terms.

- `loss=NAME` alone gives the published setting: its yaml's `published` block is the default of `alpha` and
  `temperature`, which the command line, a preset (`distillation=NAME`) or an experiment overrides; without one they
  are 0.1 and 4. Where the published weights do not sum to one, alpha and weight keep their ratio, and the yaml says
  what the sum is.
- `weight` is a key of every yaml: `loss.weight=2`, `feature_loss.at.weight=500`. The weights of feature losses
  are relative to the part of the logits, alpha and 1 - alpha, which sums to one.
- `alpha=1 feature_loss=NAME` is the setting of most of their papers: cross entropy and that term, without a soft one.
- `warmup_epochs` lets a term's weight rise linearly over so many epochs: in epoch e, from 0, it is
  `weight * min((e + 1) / warmup_epochs, 1)`. `init_fraction` is the fraction of the epochs, from the first,
  in which a feature loss trains alone, and `weight_after_init` the factor of its weight from then on. A key that a
  yaml does not have is added with a plus: `+loss.warmup_epochs=20`.

For all of them: at least float32 whatever autocast says; no gradient for the teacher; a shape that does not fit is a
`ValueError` that names the argument, the rule and the shape, never broadcast. Sizes with one name (N, C) are the same;
C' may differ from C; `...` are further dimensions that arguments share, `*` are any. For the soft ones: a mean over
samples, and over the positions of dense (N, C, H, W) logits; a sum over classes. The sigmoid of a binary or
multi-label task counts as a softmax over two classes for each label. A label of -1 is no label: methods that need the
true class leave that sample out. After mixup the true class is the one with the largest share.
"""


def page() -> str:
    """The page's text."""
    parts = [HEAD, "# Soft terms\n", *sections("loss"), "# Feature distillation terms\n", *sections("feature_loss")]
    return "\n".join(parts)


def sections(group: str) -> list[str]:
    """A section for each module that a yaml of the group names."""
    files = sorted((ROOT / "conf" / group).glob("*.yaml"), key=lambda file: (module_of(file), file.stem))
    return [section(name, list(same)) for name, same in groupby(files, module_of)]


def module_of(file: Path) -> str:
    """The module of a yaml's method, which a feature loss has under its own name, and maybe its group's."""
    content = yaml.safe_load(file.read_text())
    while "_target_" not in content:
        content = content.get(file.parent.name) or content[file.stem]
    return content["_target_"].rpartition(".")[0]


def section(module_name: str, files: list[Path]) -> str:
    module = import_module(module_name)
    own = [value for value in vars(module).values() if getattr(value, "__module__", "") == module_name]
    public = [value for value in own if not value.__name__.startswith("_")]
    names = ", ".join(file.stem for file in files)
    parts = [f"## {names}", "", str(inspect.getdoc(module)), ""]
    for value in public:
        parts += [f"### `{module_name}.{value.__name__}{signature(value)}`", "", markdown(inspect.getdoc(value)), ""]
    for file in files:
        parts += [f"`{file.parent.name}={file.stem}`", "", "```yaml", file.read_text().rstrip(), "```", ""]
    return "\n".join(parts)


def signature(value: object) -> str:
    """Arguments and defaults, without types, which the text below gives."""
    parameters = inspect.signature(value).parameters.values()
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in parameters]
    return str(inspect.Signature(bare))


def markdown(docstring: str) -> str:
    """A Google-style docstring with its sections as lists."""
    lines = []
    for line in docstring.splitlines():
        if re.fullmatch(r"(Args|Attributes|Returns|Raises|Warns):", line):
            lines += [f"**{line[:-1]}**", ""]
        elif entry := re.fullmatch(r"    (\w+): (.*)", line):
            lines.append(f"- `{entry[1]}`: {entry[2]}")
        else:
            lines.append(line.replace("    ", "  ", 1) if line.startswith("        ") else line.removeprefix("    "))
    return "\n".join(re.sub(r"^    ", "  ", line) for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page())
