"""``kdexp-cache``: fill, list, check and remove cached teacher outputs; write them as a file."""

import shutil
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from kdexp import results
from kdexp.cli import program
from kdexp.config import exits
from kdexp.config.compose import HYDRA_VERSION_BASE, one_line, plain
from kdexp.config.require import Values, is_count
from kdexp.config.untrusted import check_folder, printable, stored
from kdexp.experiment.check import check
from kdexp.schemes.base import runs_in_order

TOLERANCE = 1e-2
"""Of an output. On the machine that computed them the outputs are equal; on another, or a GPU, they differ by less than
this, and those of a wrong view or teacher by far more."""
_WRITTEN_AGAIN = "the next run that uses it writes it again"
_TRAINED = ("teachers", "teacher-measures", "teacher-robustness", results.PRIOR_RUNS, results.OLDER_PRIOR_RUNS)
"""Folders of the store whose content takes a training or an evaluation to make again; clean leaves them alone."""
_COMMANDS = ("build", "export", "list", "verify", "clean")
# build and export take what kdexp-train takes, and leave nothing else where they are called.
_SETTINGS = (
    "hydra.mode=RUN",
    "hydra.run.dir=.",
    "hydra.output_subdir=null",
    "hydra/job_logging=console",
    "hydra/help=cache_build",
)


def build(values: Values) -> None:
    """Compute a teacher's outputs for all of an experiment's data, and cache them in the store.

    Several processes may do this at once, and share the work. Of a scheme of several runs it is the first.

    Args:
        values: a checked configuration, in plain values.

    Raises:
        ValueError: a setting breaks a rule.
        FileNotFoundError: data or weights are not where the settings say.
    """
    if values["teacher"]["cache"] == "none":
        raise ValueError("teacher.cache must be views:K, per_epoch or unaugmented for kdexp-cache build, got none")
    _, first = next(runs_in_order(values))

    from kdexp.experiment.experiment import Experiment  # here: --help must not wait for torch

    experiment = Experiment(first)
    kept = experiment.cache
    if kept is None:
        raise ValueError(f"alpha must be < 1 for kdexp-cache build: a control has no teacher, got {values['alpha']}")
    kept.device = experiment.device
    kept.fill()


def export(values: Values, file: Path) -> None:
    """Write a teacher's logits of all samples as they are, for ``teacher=outputs`` or for others.

    Args:
        values: a checked configuration, in plain values.
        file: ends with .safetensors; gets the tensors that `kdexp.teacher.outputs_file.read` takes, float32.

    Raises:
        ValueError: a setting breaks a rule, or the file is there.
        FileNotFoundError: data or weights are not where the settings say.
    """
    if file.suffix != ".safetensors" or file.exists():
        raise ValueError(f"the file must be a new one that ends with .safetensors, got {file}")
    _, first = next(runs_in_order(values))

    from kdexp.experiment.experiment import Experiment  # here: --help must not wait for torch
    from kdexp.experiment.saved_logits import save_logits

    save_logits(Experiment(first), file)


def caches(store_dir: str | Path, key: str | None) -> list[Path]:
    """The folder of the cache of this key in a store, or those of all.

    Args:
        store_dir: the store.
        key: the name of the folder; None or all: of every one.

    Raises:
        ValueError: there is none of that key.
    """
    from kdexp.teacher.cache_folders import folders

    store = Path(store_dir) / "teacher-outputs"
    found = folders(store)
    if key in (None, "all"):
        return found
    chosen = [folder for folder in found if folder.name == key]
    if not chosen:
        raise ValueError(f"key must be one that kdexp-cache list shows, got {key} in {store}")
    return chosen


def show(store_dir: str | Path, key: str | None = None) -> None:
    """Print a line for each cache; for its settings see `caches`."""
    from rich.box import SIMPLE
    from rich.table import Table

    from kdexp.teacher.cache_folders import filled_views, read_metadata, used
    from kdexp.terminal import screen

    table = Table(box=SIMPLE)
    for name in ("key", "teacher", "dataset", "split", "samples", "views", "MB"):
        table.add_column(name, no_wrap=True, justify="right" if name in ("samples", "views", "MB") else "left")
    total, damaged = 0, []
    for folder in caches(store_dir, key):
        size = used(folder)
        total += size
        try:
            metadata = read_metadata(folder)
        except ValueError as error:
            damaged.append(str(error))
            table.add_row(folder.name, *[""] * 5, f"{size / 1e6:.2f}")
            continue
        made = metadata["created_for"]
        table.add_row(
            folder.name,
            str(made.get("teacher")),
            str(made.get("dataset")),
            metadata["split"],
            f"{metadata['samples']:,}",
            str(len(filled_views(folder, metadata["samples"]))),
            f"{size / 1e6:.2f}",
        )
    console = screen(120)
    console.print(table)
    for line in damaged:
        console.print(f"{line}; {_WRITTEN_AGAIN}", soft_wrap=True, highlight=False)
    store = Path(store_dir)
    console.print(f"{total / 1e6:.1f} MB in {store / 'teacher-outputs'}")
    others = [f"{used(store / name) / 1e6:.1f} MB of {name}" for name in _TRAINED if (store / name).is_dir()]
    if others:
        console.print(f"in the store, too, and for you to remove: {', '.join(others)}", soft_wrap=True)


def verify(
    store_dir: str | Path, key: str | None = None, *, samples: int, seed: int
) -> Iterator[tuple[str, bool, str]]:
    """Verify the checksums of all that is cached, and run the teachers again on a stratified random sample.

    Args:
        store_dir: see `caches`.
        key: see `caches`.
        samples: of each cache.
        seed: of their choice.

    Yields:
        (key, whether it may be used, what was found) of each cache.
    """
    if not is_count(samples):
        raise ValueError(f"samples must be at least 1, got {samples}")
    from kdexp.experiment.experiment import Experiment
    from kdexp.teacher.cache_folders import read_metadata

    for folder in caches(store_dir, key):
        try:
            metadata = read_metadata(folder)
        except ValueError as error:
            yield folder.name, False, f"{error}; {_WRITTEN_AGAIN}"
            continue
        try:
            check_folder(folder, "store_dir")
            config = OmegaConf.create(stored(metadata["config"]))
        except ValueError as error:
            yield folder.name, False, f"not one that kdexp wrote: {error}"
            continue
        except (LookupError, TypeError, AttributeError) as error:
            yield folder.name, False, _damaged(folder, error)
            continue
        try:
            config.store_dir = str(store_dir)
            config.dataset.num_workers = 0  # samples are read one at a time
            experiment = Experiment(config, may_train_teacher=False)
            kept = experiment.cache
            if kept is not None:
                kept.device = experiment.device
        except (ValueError, OSError) as error:
            yield folder.name, True, f"not verified: teacher weights or data not found: {one_line(error)}"
            continue
        except (OmegaConfBaseException, LookupError, TypeError, AttributeError) as error:
            yield folder.name, False, _damaged(folder, error)
            continue
        if kept is None or metadata["split"] not in kept.splits or kept.splits[metadata["split"]].folder != folder:
            yield folder.name, True, "stale: of another version, or its teacher no longer exists; no run reads it"
            continue
        outputs = kept.splits[metadata["split"]]
        damaged = outputs.damaged()
        if damaged:
            yield folder.name, False, f"{damaged} corrupt shard(s); the next job recomputes them"
            continue
        sample = kept.sample(metadata["split"], samples, seed)
        largest = outputs.largest_difference(sample, augmented=kept.augmented(metadata["split"]))
        found = f"{len(sample)} samples computed again: largest difference {largest:.1e}"
        yield folder.name, largest <= TOLERANCE, found


def _damaged(folder: Path, error: Exception) -> str:
    from kdexp.teacher.cache_folders import METADATA, file_in

    return f"{file_in(folder, METADATA)} is damaged: {one_line(error) or type(error).__name__}; {_WRITTEN_AGAIN}"


def clean(store_dir: str | Path, key: str | None) -> None:
    """Remove caches; a job that is using one goes on with what it has open. For its settings see `caches`.

    Raises:
        ValueError: it was not said which.
    """
    from kdexp.teacher.cache_folders import used

    if key is None:
        raise ValueError("key must be one that kdexp-cache list shows, or all, got nothing")
    freed = 0
    for folder in caches(store_dir, key):
        freed += used(folder)
        shutil.rmtree(folder)
    print(f"{freed / 1e6:.1f} MB freed")


def _as_trained(do: Callable[[Values], None]) -> None:
    @hydra.main(version_base=HYDRA_VERSION_BASE, config_path="pkg://kdexp.conf", config_name="train")
    def of_settings(config: DictConfig) -> None:
        try:
            check(config)
            do(plain(config))
        except (ValueError, OSError) as error:
            exits.leave(exits.WRONG_INPUT, one_line(error))

    of_settings()


@hydra.main(version_base=HYDRA_VERSION_BASE, config_path="pkg://kdexp.conf", config_name="cache")
def _keep(config: DictConfig) -> None:
    whole = True
    try:
        if config.command == "list":
            show(config.store_dir, config.key)
        elif config.command == "clean":
            clean(config.store_dir, config.key)
        else:
            for key, good, found in verify(config.store_dir, config.key, samples=config.samples, seed=config.seed):
                whole &= good
                print(printable(f"{key}  {'ok ' if good else 'BAD'}  {found}"), flush=True)
    except (ValueError, OSError) as error:
        exits.leave(exits.WRONG_INPUT, one_line(error))
    if not whole:
        sys.exit(exits.FAILED)


def _command() -> None:
    command = sys.argv[1] if len(sys.argv) > 1 else None
    if command in ("-h", "--help"):
        _keep()
        return
    if command not in _COMMANDS:
        raise ValueError(f"kdexp-cache takes one of {', '.join(_COMMANDS)} first, got {command or 'nothing'}")
    given = sys.argv[2:]
    if command in ("build", "export"):
        do = build
        if command == "export" and "--help" not in given and "-h" not in given:
            if not given or "=" in given[0] or given[0][0] == "-":
                raise ValueError(f"kdexp-cache export takes a file first, got {given[0] if given else 'nothing'}")
            do = partial(export, file=Path(given.pop(0)))
        # Hydra's parser wants all settings side by side.
        first = next((place for place, word in enumerate(given) if "=" in word and word[0] != "-"), len(given))
        sys.argv[1:] = [*given[:first], *_SETTINGS, *given[first:]]
        _as_trained(do)
    else:
        sys.argv[1:] = [*given, f"command={command}"]
        _keep()


def main() -> None:
    """The command."""
    program.program(_command)


if __name__ == "__main__":
    main()
