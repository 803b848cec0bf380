"""Names by which runs, teachers and measured cells are found again, as kdexp 0.1.0 wrote them: they must stay.

Each value was written down from the code of that version. A change here means that a finished run is run again, a
teacher is trained again, or a control is not found. When modules move, the imports below move, and nothing else.
"""

# ruff: noqa: E501 (a command line and its identity stand side by side)

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hydra import initialize_config_module
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, RunMode
from hydra.utils import get_class
from omegaconf import OmegaConf
from torch import nn

from kdexp.config import quick
from kdexp.config.compose import HYDRA_VERSION_BASE, compose, plain
from kdexp.config.identity import Identity, fingerprint
from kdexp.experiment.experiment import Experiment
from kdexp.experiment.keys import teacher_key
from kdexp.experiment.members import teachers
from kdexp.experiment.robustness_evaluator import RobustnessEvaluator
from kdexp.schemes.base import runs_in_order
from kdexp.weights import state_digest

CONTENT = "0" * 64
"""In place of the digest of the data, which would depend on the version of torch that makes them up."""


def composed(overrides: str) -> dict[str, Any]:
    """The plain configuration of a run, wherever the machine keeps its data."""
    return plain(
        compose(["experiment=smoke", *overrides.split()], data_dir="data", store_dir="store", output_dir="run")
    )


FINGERPRINTS = [
    ("a plain run", "", "454c5db744745deb", "b2f086cd869943cb"),
    ("another loss", "loss=dkd dataset=mnist", "1f36762382fc6892", "a88f2f25cce35983"),
    ("a loss that learns its temperature", "loss=ctkd", "7efdd7914a59ae06", "b2f086cd869943cb"),
    (
        "a binary task",
        "dataset=breast_cancer teacher=mlp_large student=mlp loss=bce_kd",
        "d8cedb80e9e23704",
        "21e84be691b321dc",
    ),
    ("a multilabel task", "dataset.kind=multilabel loss=mse", "29d22b0420ed2025", "8a800e50ca8092f5"),
    (
        "other networks, optimizer and scheduler",
        "dataset=cifar100 teacher=resnet56 student=resnet20 optimizer=sgd scheduler=multistep",
        "59f727cc922818a9",
        "92be32fcbc713903",
    ),
    (
        "a recurrent student",
        "dataset.input_shape=[16,4] dataset.mean=[0] dataset.std=[1.4] teacher=rnn student=rnn",
        "2bb83846fd97f1b9",
        "43cbce07d80ae346",
    ),
    (
        "a student of timm, resized",
        "dataset=cifar10 student=timm teacher=wrn_40_2 +teacher.resize=64",
        "321d5fe593a9546a",
        "87b034a9c237937b",
    ),
    (
        "another precision",
        "trainer.precision=bf16-mixed trainer.gradient_clip_val=1",
        "7e1e869f0e56c090",
        "6b35fb031bb91a6c",
    ),
    ("several processes", "trainer=ddp_cpu", "178423a0fbcac972", "69f7ed7b8189980c"),
    ("a feature distillation loss with a memory", "feature_loss=crd", "d06e54489577b8e6", "b2f086cd869943cb"),
    ("two feature distillation losses", "feature_loss=[at,rkd] alpha=0.5", "224888bfc55d5f80", "b2f086cd869943cb"),
    ("a feature distillation loss that deploys", "feature_loss=simkd alpha=1", "f54ae1cac137b0ad", "b2f086cd869943cb"),
    (
        "a weight that sets in later",
        "feature_loss=reviewkd feature_loss.reviewkd.warmup_epochs=3",
        "ff1121870688b17d",
        "b2f086cd869943cb",
    ),
    ("a chain of assistants", "scheme=teacher_assistant", "82bee27272fbc4d7", "b2f086cd869943cb"),
    ("generations", "scheme=born_again seed=2", "4aba19e16e9b9e21", "bd0164234f6bf8cb"),
    ("students that learn together", "scheme=mutual", "8e20ced9ee31bac2", "b2f086cd869943cb"),
    ("another student beside it", "scheme=mutual +student@scheme.peers.a=cnn", "02227782c874141f", "b2f086cd869943cb"),
    ("a moving average", "scheme=ema", "1c13d54cb479b3bf", "b2f086cd869943cb"),
    ("from one domain to another", "scheme=cross_domain", "8407da62a4a9be1f", "a72d5a379acd2de4"),
    ("adversarial training", "scheme=pgd_at", "464c7b44e5607999", "b2f086cd869943cb"),
    ("adversarial training that keeps answers steady", "scheme=trades", "7d7bdd24e790d5ab", "b2f086cd869943cb"),
    ("robust distillation", "scheme=ard scheme@teacher.recipe.scheme=pgd_at", "faf3f1e398d36992", "b2f086cd869943cb"),
    (
        "robust distillation by soft labels",
        "scheme=rslad scheme@teacher.recipe.scheme=trades",
        "8c4819df3476bc1b",
        "b2f086cd869943cb",
    ),
    ("robust distillation that trusts itself", "scheme=iad", "ec0762bde6aba910", "b2f086cd869943cb"),
    ("robust distillation with the teacher in the attack", "scheme=adaad", "2f0d27bf58bb6975", "b2f086cd869943cb"),
    ("a control", "alpha=1", "b2f086cd869943cb", "b2f086cd869943cb"),
    (
        "alpha=1 that does not stay",
        "alpha=1 alpha_schedule.kind=linear alpha_schedule.final=0.5",
        "03987cc19003fc76",
        "b2f086cd869943cb",
    ),
    (
        "moving alpha and temperature",
        "alpha_schedule={kind:cosine,final:0.9} temperature_schedule={kind:linear,final:1}",
        "032e9f20b8131ab3",
        "b2f086cd869943cb",
    ),
    ("augmentation", "augment=crop_flip_mixup", "e6a78cb9829a67ab", "18e5d4805e44648c"),
    (
        "cached outputs of two views",
        "augment=shift teacher.cache=views:2 seed=3",
        "7c580e68567f7b80",
        "5a923a7bf15084c9",
    ),
    ("cached outputs of samples as they are", "teacher.cache=unaugmented", "ff6bb622f27728f8", "44d3fae15630ae9a"),
    ("several teachers", "teacher=ensemble", "454ad3947620ecae", "b2f086cd869943cb"),
    ("a teacher from a file", "teacher.weights=teacher.safetensors", "89f3d3e235522275", "b2f086cd869943cb"),
    (
        "noisy, few and uneven labels",
        "dataset.label_noise=0.2 dataset.label_noise_kind=pairflip dataset.train_fraction=0.5 dataset.imbalance_ratio=10",
        "2c232770625a9eed",
        "41ff9d298abb8858",
    ),
    (
        "classes drawn evenly, unlabelled samples",
        "dataset.class_sampling=balanced dataset.unlabeled_fraction=0.5",
        "c315089e033f37f7",
        "3d43d0afa9cbe3ad",
    ),
    (
        "a table of one's own",
        "dataset=csv dataset.kind=multiclass dataset.num_classes=2 dataset.input_shape=[1] dataset.mean=[0] dataset.std=[1] dataset.source.file=my.csv dataset.source.label=kind teacher=mlp student=mlp",
        "08df7a7e92496ac1",
        "994738a00b50d509",
    ),
    (
        "arrays of one's own",
        "dataset=arrays dataset.kind=multiclass dataset.num_classes=2 dataset.input_shape=[1] dataset.mean=[0] dataset.std=[1] dataset.source.file=my.npz teacher=mlp student=mlp",
        "77c4d9d9205a413f",
        "4b8c264aac6671cd",
    ),
    (
        "a folder of images",
        "dataset=image_folder dataset.num_classes=2 dataset.input_shape=[3,8,8] dataset.mean=[0,0,0] dataset.std=[1,1,1] dataset.source.root=images teacher=cnn student=cnn",
        "cc7d3e0ac55525d5",
        "bba2828e33b6aa8d",
    ),
    (
        "a table of images",
        "dataset=image_csv dataset.kind=multiclass dataset.num_classes=2 dataset.input_shape=[3,8,8] dataset.mean=[0,0,0] dataset.std=[1,1,1] dataset.source.file=my.csv dataset.source.image=file dataset.source.label=kind",
        "28876dbb762c77b7",
        "0d88ad69f54c114f",
    ),
    ("a quick run", "quick=true", "191b0cacd9b19029", "f6ffffe1631fa7be"),
    (
        "a whole number where there may be a fraction",
        "optimizer.lr=1 label_smoothing=0",
        "1a77d2c3cbfba6a6",
        "8b3c9061faae7aa5",
    ),
]


@pytest.mark.parametrize(
    ("overrides", "run", "control"), [pytest.param(*each[1:], id=each[0]) for each in FINGERPRINTS]
)
def test_fingerprints(overrides, run, control):
    values = composed(overrides)
    assert (Identity(values).fingerprint, Identity(values).control_fingerprint) == (run, control)


def test_what_a_run_does_not_compute_is_in_no_fingerprint():
    overrides = "robustness=all robustness.samples=7 tracking=wandb tracking.project=other sweep_name=mine rerun=all"
    values = composed(overrides)
    assert (Identity(values).fingerprint, Identity(values).control_fingerprint) == FINGERPRINTS[0][2:]


# The members of an ensemble have a key each.
TEACHERS = [
    ("plain", "", ["8fd16e795d1e866b"]),
    ("robust", "scheme@teacher.recipe.scheme=pgd_at teacher.recipe.scheme.attack.steps=7", ["1736ed93e4430c1d"]),
    ("member", "teacher=ensemble", ["8df4c64acc67a0c8", "4eb695bd095021f3", "29df0e1eeb629cf8"]),
    ("noisy", "teacher.recipe.label_noise=0.2 teacher.recipe.train_fraction=0.5", ["e7049e24dbaea732"]),
    ("augmented", "augment@teacher.recipe.augment=crop_flip", ["590daf10fc3c0275"]),
    ("one epoch, quick", "teacher.recipe.max_epochs=1 quick=true", ["7360eb32d19b5cc7"]),
    (
        "other",
        "dataset=cifar100 teacher=resnet56 optimizer@teacher.recipe.optimizer=sgd teacher.recipe.monitor=val/nll",
        ["96c29d193a5c3099"],
    ),
]


def teacher_keys(overrides: str) -> dict[str, str]:
    """Names of the folders in store/teachers, by the teacher's setting."""
    config = OmegaConf.create(composed(overrides))
    data: Any = SimpleNamespace(content=CONTENT)
    return {
        name: fingerprint(teacher_key(member, config.dataset, config.task, data.content, quick.mark(config.quick)))
        for name, member in teachers(config).items()
    }


@pytest.mark.parametrize(("overrides", "keys"), [pytest.param(*each[1:], id=each[0]) for each in TEACHERS])
def test_teachers_keys(overrides, keys):
    assert list(teacher_keys(overrides).values()) == keys


NETWORKS = {
    "linear": "59d58e1b078ca19f503cb30ce81085126f2fb2f37530afdec9eefcc9b3119b86",
    "with buffers": "4d467fc100a7627ce0dae2f9cb8c69345a5f20553787d94f6d9f571d3e2ed63e",
    "folder of both": "9c4cab752ae3897f",
}


def network_digests() -> dict[str, str]:
    """What the measures and measured cells of teachers are found by, of networks with weights of known bits."""
    linear, normalised = nn.Linear(2, 2), nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 1))
    with torch.no_grad():
        for network in (linear, normalised):
            for parameter in network.parameters():
                parameter.fill_(0.5)
    digests = {"linear": state_digest(linear), "with buffers": state_digest(normalised)}
    return digests | {"folder of both": fingerprint(list(digests.values()))}


def test_digests_of_networks():
    assert network_digests() == NETWORKS


PRIOR_RUNS = {
    "teacher_assistant": [("first", "94ce886a144e0aa3"), ("", "dfe2beb23ac44ef6")],
    "born_again": [
        ("generation_1", "3830841673d1c0d3"),
        ("generation_2", "836042f99c19597e"),
        ("", "bc7fe5234bb23eeb"),
    ],
    "cross_domain": [("teacher", "e501290ad418e2f0"), ("", "07f1a887711c86b2")],
    "mutual": [("", "8e20ced9ee31bac2")],
}


def prior_runs() -> dict[str, list[tuple[str, str]]]:
    """Names and fingerprints of the runs that come before a run, and of the run itself."""
    schemes = ("teacher_assistant", "born_again", "cross_domain", "mutual")
    return {
        scheme: [(name, Identity(values).fingerprint) for name, values in runs_in_order(composed(f"scheme={scheme}"))]
        for scheme in schemes
    }


def test_prior_runs():
    assert prior_runs() == PRIOR_RUNS


CELLS = {
    "images: clean clean 0": "c1cc55af7f92db4a",
    "images: corruptions_lite gaussian_noise 1": "05f9c0092b7f6aa5",
    "images: corruptions_lite defocus_blur 3": "52e540da4914b90e",
    "images: corruptions_lite fog 3": "18d638902ddfc956",
    "images: corruptions_lite saturate 2": "68e2cd52d16a9b4e",
    "images: corruptions_lite jpeg_compression 5": "1422de77e416b1fa",
    "images: corruptions_lite rotate 4": "eea225b68f6db159",
    "images: noise_dose uniform_noise 0.4": "6635083ae65e6195",
    "images: attacks pgd_linf 0.0313725": "b2468ca8e13b7606",
    "images: attack_more_steps pgd_l2 0.5": "f7ca3181320e1e1f",
    "images: attack_unbounded pgd_linf 1": "a77d7fde309637cd",
    "images: attacks autoattack_linf 0.0313725": "6ade8454261a9ba1",
    "images: shift synthetic 1": "d7662b0aba457111",
    "images: ood synthetic 1": "8aa6896f06dbe8cc",
    "images: calibration clean 0": "162a9b5ff0e53f52",
    "images: features synthetic 0": "9d203a76229b660c",
    "images: all 144": "36114f0b6e5627d8",
    "table: corruptions_lite missing_values 2": "612475d86b791e5d",
    "table: noise_dose feature_noise 4": "8b556965ea7d40ed",
    "table: attacks fgsm 0.156862": "decd82a13f48db61",
    "table: all 46": "2cf2ffe82c9dfd32",
}

DATA = "dataset.source.train_samples=200 dataset.source.test_samples=32"
IMAGES = (
    f"{DATA} dataset.input_shape=[3,32,32] dataset.mean=[0.5,0.5,0.5] dataset.std=[0.25,0.25,0.25] robustness=all "
    "robustness.shift.dataset=synthetic robustness.ood.dataset=synthetic robustness.attacks.samples=20 "
    "robustness.attacks.autoattack={norm:linf,eps:0.0313725,attacks:null}"
)
TABLE = f"{DATA} dataset.input_shape=[6] dataset.mean=[0] dataset.std=[1] teacher=mlp student=mlp robustness=all"
CHOSEN = {
    "images": (
        "clean clean 0", "corruptions_lite gaussian_noise 1", "corruptions_lite defocus_blur 3",
        "corruptions_lite fog 3", "corruptions_lite saturate 2", "corruptions_lite jpeg_compression 5",
        "corruptions_lite rotate 4", "noise_dose uniform_noise 0.4", "attacks pgd_linf 0.0313725",
        "attack_more_steps pgd_l2 0.5", "attack_unbounded pgd_linf 1", "attacks autoattack_linf 0.0313725",
        "shift synthetic 1", "ood synthetic 1", "calibration clean 0", "features synthetic 0",
    ),
    "table": ("corruptions_lite missing_values 2", "noise_dose feature_noise 4", "attacks fgsm 0.156862"),
}  # fmt: skip


def measured_cells() -> dict[str, str]:
    """Names of files in a run's robustness/, without .safetensors, of some cells; and a digest of those of all."""
    found = {}
    for kind, overrides in (("images", IMAGES), ("table", TABLE)):
        config = OmegaConf.create(composed(overrides))
        experiment = Experiment(config)
        experiment.data.__dict__["content"] = CONTENT
        evaluator = RobustnessEvaluator(experiment, torch.device("cpu"))
        keys = {}
        for condition in evaluator.conditions:
            axis, name, level, _ = condition.identity
            keys[f"{axis} {name} {level:g}"] = evaluator.measurements.key(condition, "s", "t")
        found |= {f"{kind}: {name}": keys[name] for name in CHOSEN[kind]}
        found[f"{kind}: all {len(keys)}"] = fingerprint(keys)
    return found


def test_measured_cells():
    assert measured_cells() == CELLS


SWEEPS = {
    "experiment=smoke alpha=0.1,0.5 temperature=1,4": "synthetic_alpha_temperature-5e7000",
    "experiment=smoke +sweep=label_noise dataset.label_noise=0,0.5": "synthetic_distillation_dataset.label_noise_kind_dataset.label_noise_seed-fea450",
    "experiment=article_robustness": "digits_alpha_seed_robustness_dataset.train_fraction_dataset.label_noise-ccdf72",
    "experiment=quickstart tracking=none data_dir=elsewhere": "digits_alpha_seed-478730",
    "experiment=smoke scheme=ema alpha=0.1,0.5": "synthetic_alpha-fa0564",
    "experiment=smoke scheme=ard scheme@teacher.recipe.scheme=pgd_at alpha=0.1,0.5": "synthetic_alpha-492c1f",
}
SWEPT = (
    "experiment=smoke alpha=0.1,0.5 temperature=1,4",
    "experiment=smoke +sweep=label_noise dataset.label_noise=0,0.5",
    "experiment=article_robustness",
    "experiment=quickstart tracking=none data_dir=elsewhere",
    "experiment=smoke scheme=ema alpha=0.1,0.5",
    "experiment=smoke scheme=ard scheme@teacher.recipe.scheme=pgd_at alpha=0.1,0.5",
)


def sweep_names() -> dict[str, str]:
    """The folder in multirun/ of the sweep that each of these command lines would begin or continue."""
    found = {}
    for overrides in SWEPT:
        with initialize_config_module("kdexp.conf", version_base=HYDRA_VERSION_BASE):
            hydra = GlobalHydra.instance().hydra
            assert hydra is not None
            config = hydra.compose_config("train", overrides.split(), RunMode.MULTIRUN, with_log_configuration=False)
            context = HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks())
            Plugins.instance().register(get_class(config.hydra.sweeper._target_))  # as the program does
            Plugins.instance().instantiate_sweeper(hydra_context=context, task_function=print, config=config)
            found[overrides] = config.sweep_name
    return found


def test_sweeps_folders():
    assert sweep_names() == SWEEPS
