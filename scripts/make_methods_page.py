"""Write docs/methods.md: a section for each loss, from its yaml and its docstrings.

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

Every method is one word on the command line, `kdexp-train loss=NAME`, and one function in anyone's own loop,
`from kdexp.losses.dkd import dkd`, which needs nothing but PyTorch. The training loss is

    L = alpha * L_hard + (1 - alpha) * L_soft

where **alpha weighs the hard term**, the cross entropy with the labels, and `loss=NAME` is the soft term. A published
pair of weights (w1 for the cross entropy, w2 for the method) becomes the method's
`weight = w2 * alpha / (w1 * (1 - alpha))` at the default alpha = 0.1.

For all of them: a mean over samples, and over the positions of dense (N, C, H, W) logits; a sum over classes; at least
float32 whatever autocast says; no gradient for the teacher. The sigmoid of a binary or multi-label task counts as a
softmax over two classes for each label. A label of -1 is no label: methods that need the true class leave that sample
out. After mixup the true class is the one with the largest share.
"""


def page() -> str:
    """The page's text."""
    files = sorted((ROOT / "conf" / "loss").glob("*.yaml"), key=lambda file: (module_of(file), file.stem))
    sections = [section(name, list(group)) for name, group in groupby(files, module_of)]
    return "\n".join([HEAD, *sections])


def module_of(file: Path) -> str:
    return yaml.safe_load(file.read_text())["_target_"].rpartition(".")[0]


def section(module_name: str, files: list[Path]) -> str:
    module = import_module(module_name)
    own = [value for value in vars(module).values() if getattr(value, "__module__", "") == module_name]
    public = [value for value in own if not value.__name__.startswith("_")]
    names = ", ".join(file.stem for file in files)
    parts = [f"## {names}", "", str(module.__doc__), ""]
    for value in public:
        parts += [f"### `{module_name}.{value.__name__}{signature(value)}`", "", markdown(inspect.getdoc(value)), ""]
    for file in files:
        parts += [f"`loss={file.stem}`", "", "```yaml", file.read_text().rstrip(), "```", ""]
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
