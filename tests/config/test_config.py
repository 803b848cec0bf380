import shlex
from pathlib import Path

import pytest
import yaml
from own_data import example, kitti_road

from kdexp.config.compose import compose, plain
from kdexp.config.identity import Identity
from kdexp.config.schema import Config
from kdexp.config.suggest import nearest
from kdexp.experiment.check import check

CONF = Path(__file__).parents[2] / "conf"
GROUPS = sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name not in ("hydra", "__pycache__"))


def composed(tmp_path, *overrides):
    return compose(["experiment=smoke", *overrides], output_dir=tmp_path, store_dir=tmp_path)


MASKS = ("chase_db1", "image_masks", "shapes")
OF_TIMM = "student=timm student.name=resnet18 or teacher=timm teacher.name=resnet18"

PACKAGE = {
    "feature_layers": "feature_layers@student.feature_layers",
    "corruption": "corruption@robustness.corruptions.kinds",
    "sweep": "+sweep",
}


def test_no_group_has_the_name_of_a_scalar_setting():
    """``alpha=0.5`` would look for the file alpha/0.5.yaml."""
    scalars = {name for name, field in Config.__dataclass_fields__.items() if field.type in (int, float, str)}
    scalars |= {"alpha", "temperature", "seed", "resume", "label_smoothing"}
    assert not scalars & set(GROUPS)


@pytest.mark.parametrize(
    "option",
    [f"{PACKAGE.get(g, g)}={p.stem}" for g in GROUPS for p in sorted((CONF / g).glob("*.yaml")) if p.stem != "base"],
)
def test_every_option_of_every_group_composes_and_passes_the_checks(tmp_path, option):
    group, _, name = option.partition("=")
    if group == "augment" and name in MASKS:  # it is for them alone
        option = f"dataset={name}"
    # Tasks that the data set's option chooses.
    of_data = {"segmentation": "shapes", "text": "trec", "of_table": "csv"}
    if group == "task" and name in of_data:
        option = f"dataset={of_data[name]}"
    overrides = example(option, tmp_path)
    of_networks = ("student", "teacher")
    overrides += [f"{group}.folder=anywhere"] if group in of_networks and name in ("hf_text", "huggingface") else []
    overrides += ["budget.bytes=2e6"] if name == "budget" else []
    overrides += [f"{group}.file=anywhere"] if name in ("onnx", "outputs") else []
    overrides += [f"{group}.target=kdexp.models.cnn.cnn"] if name == "module" else []
    if option == "experiment=road":
        kitti_road(tmp_path)
        overrides = [f"dataset.source.root={tmp_path}", "dataset.source.preset=kitti_road"]
    overrides += ["dataset=shapes"] if name == "masks_turned" else []
    overrides += ["task=generation"] if option == "loss=vae" else []
    overrides += ["robustness=corruptions"] if option.startswith("corruption@") else []
    config = compose([option, *overrides], output_dir=tmp_path)
    check(config)
    assert plain(config)


@pytest.mark.parametrize("name", [path.stem for path in sorted((CONF / "experiment").glob("*.yaml"))])
def test_every_experiment_has_a_control(tmp_path, name):
    more = []
    if name == "road":
        kitti_road(tmp_path)
        more = [f"dataset.source.root={tmp_path}", "dataset.source.preset=kitti_road"]
    config = compose([f"experiment={name}", "distillation=control", *more], output_dir=tmp_path)
    assert Identity(plain(config)).is_control


def test_every_line_of_the_defaults_list_is_explained():
    lines = (CONF / "train.yaml").read_text().splitlines()
    entries = [line for line in lines if line.startswith("  - ") and "override" not in line]
    unexplained = [line for line in entries if "#" not in line]
    assert len(unexplained) <= 1, unexplained


def test_settings_have_their_types(tmp_path):
    config = composed(tmp_path, "alpha=1", "seed=3")
    assert isinstance(config.alpha, float)
    assert isinstance(config.seed, int)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("alpha=1.5", r"^alpha must be in \[0, 1\], got 1.5$"),
        ("alpha=-0.1", r"^alpha must be in \[0, 1\], got -0.1$"),
        ("alpha=nan", r"^alpha must be in \[0, 1\], got nan$"),
        ("alpha=abc", r"^alpha must be a number, got abc$"),
        ("alpha=[0.1,0.5]", r"^alpha must be a number, got \[0.1,0.5\]$"),
        ("alpha=null", r"^alpha must be given, got null$"),
        ("seed=x", r"^seed must be a whole number, got x$"),
        ("trainer.max_epochs=1.5", r"^trainer.max_epochs must be a whole number, got 1.5$"),
        ("quick=maybe", r"^quick must be true or false, got maybe$"),
        ("dataset.mean=[x]", r"^dataset.mean must be a number in each of its values, got \[x\]$"),
        (
            "+distillation=article",
            r"^distillation has a default option, so it is typed without a \+: distillation=article$",
        ),
        (
            "corruption=feature_noise",
            r"^corruption has no default option, so it is typed with a \+: \+corruption=tabular_noise$",
        ),
        ("temperature=0", r"^temperature must be > 0, got 0.0$"),
        ("temperature=-1", r"^temperature must be > 0, got -1.0$"),
        ("temperature=inf", r"^temperature must be a finite number, got inf$"),
        ("label_smoothing=1", r"^label_smoothing must be in \[0, 1\), got 1.0$"),
        ("alpha_schedule.kind=step", r"^alpha_schedule.kind must be one of constant, linear, cosine, got step$"),
        ("alpha_schedule.kind=linear", r"^alpha_schedule.final is needed by kind=linear, got None$"),
        ("alpha_schedule={kind:linear,final:2}", r"^alpha_schedule.final must be in \[0, 1\], got 2.0$"),
        ("temperature_schedule={kind:cosine,final:0}", r"^temperature_schedule.final must be > 0, got 0.0$"),
        ("student.num_classes=7", r"^student.num_classes must be \d+, the outputs that dataset=synthetic .* got 7$"),
        ("teacher.num_classes=7", r"^teacher.num_classes must be \d+, .* got 7$"),
        ("dataset.kind=ranking", r"^dataset.kind must be multiclass, binary or multilabel, got ranking$"),
        ("trainer.compile=perhaps", r"^trainer.compile must be true, false or auto, got perhaps$"),
        ("trainer.channels_last=1.5", r"^trainer.channels_last must be true, false or auto, got 1.5$"),
        ("teacher.recipe.channels_last=x", r"^teacher.recipe.channels_last must be true, false or auto, got x$"),
        ("trainer.max_epochs=0", r"^trainer.max_epochs must be at least 1, got 0$"),
        ("dataset.num_classes=1", r"^dataset.num_classes must be at least 2, got 1$"),
        ("dataset.eval_batch_size=0", r"^dataset.eval_batch_size must be at least 1, got 0$"),
        ("seed=-1", r"^seed must be in \[0, 2\^63\), got -1$"),
        ("trainer.max_steps=0", r"^trainer.max_steps must be null or at least 1, got 0$"),
        (
            "+loss_statement.relative_margins.ece=0.5",
            r"^loss_statement.margins.ece must be left out of one of the two \(~loss_statement.margins.ece\), "
            r"got both 0.01 and a share of 0.5$",
        ),
        ("loss_statement.margins.acc=0", r"^loss_statement.margins.acc must be a number > 0, got 0.0$"),
        ("teacher.weights=null", r"^teacher.weights must be auto, pretrained, built, random or a file, got None$"),
        ("teacher.recipe.max_epochs=0", r"^teacher.recipe.max_epochs must be at least 1, got 0$"),
        ("teacher.recipe.train_fraction=0", r"^teacher.recipe.train_fraction must be in \(0, 1\], got 0$"),
        ("trainer.devices=0", r"^trainer.devices must be a number of devices, a list of them or auto, got 0$"),
        (
            "trainer.devices=100000",
            r"^trainer.devices must be at most \d+, the cores of this machine \(unless KDEXP_MANY_RANKS=1\), got 1000",
        ),
        ("trainer.limit_val_batches=0", r"^trainer.limit_val_batches must be null, .*, got 0$"),
        ("trainer.limit_train_batches=abc", r"^trainer.limit_train_batches must be null, .*, got abc$"),
        ("trainer.gradient_clip_val=-1", r"^trainer.gradient_clip_val must be null or > 0, got -1.0$"),
        ("trainer.log_every_n_steps=0", r"^trainer.log_every_n_steps must be at least 1, got 0$"),
        ("trainer.precision=fp8", r"^trainer.precision must be one of .*, got fp8$"),
        ("trainer.precision=16-mixed", r"^trainer.precision must be 32-true or bf16-mixed with .*, got 16-mixed$"),
        (
            "trainer={precision:16-mixed,gradient_clip_val:1,accelerator:gpu}",
            r"^optimizer.fused must be false with trainer.precision=16-mixed and trainer.gradient_clip_val, got True$",
        ),
        ("tracking.wandb=perhaps", r"^tracking.wandb must be auto, online, offline or disabled, got perhaps$"),
        (
            "student._target_=os.system",
            r"^student._target_ must be a network of kdexp.models, or .* KDEXP_TRUST names, got 'os.system'$",
        ),
        ("student._target_=kdexp.models.mlp.nothing", r"^student._target_ must name something that can be imported"),
        ("teacher.weights_key=model", r"^teacher.weights must be a file with weights_key or rename, got auto$"),
        (
            "+teacher={weights:x.pt,rename:{a: 1}}",
            r"^teacher.rename must be replacements of regular expressions, got 'a': 1$",
        ),
        (
            "dataset.classes=[a,b]",
            r"must have as many different names as dataset.num_classes=10 says, got 2 in \['a', 'b'\]$",
        ),
        (
            "dataset.classes=[a,b,c,d,e,f,g,h,i,a]",
            r"^dataset.classes must have as many different names as dataset.num_classes=10 says, got 9 in \['a', ",
        ),
        ("dataset.input_shape=[]", r"^dataset.input_shape must be sizes of at least 1, one or more, got \[\]$"),
        ("dataset.input_shape=[1,0,8]", r"^dataset.input_shape must be sizes of at least 1, .*, got \[1, 0, 8\]$"),
        ("dataset.input_shape=[-5]", r"^dataset.input_shape must be sizes of at least 1, one or more, got \[-5\]$"),
        ("dataset=image_folder", r"^dataset.source.root must be given, got nothing$"),
        (f"tracking.tags=[{'a' * 65}]", r"^tracking.tags must be of 1 to 64 characters each, got a{65}$"),
        ("tracking.tags=['']", r"^tracking.tags must be of 1 to 64 characters each, got $"),
        ("tracking.project=a/b", r"^tracking.project must be of 1 to 128 characters without / .*, got a/b$"),
        ("optimizer.lr=high", r"^optimizer.lr must be a number >= 0, got high$"),
        ("teacher.recipe.optimizer.lr=high", r"^teacher.recipe.optimizer.lr must be a number >= 0, got high$"),
        ("teacher.recipe.batch_size=few", r"^teacher.recipe.batch_size must be at least 1, got few$"),
        ("teacher.recipe.max_epochs=1.5", r"^teacher.recipe.max_epochs must be at least 1, got 1.5$"),
        ("teacher.recipe.train_fraction=all", r"^teacher.recipe.train_fraction must be in \(0, 1\], got all$"),
        ("teacher.recipe.precision=16", r"^teacher.recipe.precision must be one of 32-true, .*, got 16$"),
        ("teacher.recipe.gradient_clip_val=0", r"^teacher.recipe.gradient_clip_val must be null or > 0, got 0$"),
        ("teacher.recipe.seed=-1", r"^teacher.recipe.seed must be in \[0, 2\^63\), got -1$"),
        ("loss=kdd", r"^there is no loss=kdd; did you mean loss=kd\? \(of loss there are bce_kd, .*, wttm\)$"),
        ("teacher=null", r"^there is no teacher=null \(of teacher there are base, cnn, "),
        ("loss=[kd,3]", r"^there is no loss=3 \(of loss there are bce_kd, "),
        ("feature_loss=[at, null]", r"^there is no feature_loss=null; did you mean feature_loss=\[\]\? "),
        ("scheme=null", r"^there is no scheme=null; did you mean scheme=\[\]\? \(of scheme there are adaad, "),
        ("student=3", r"^there is no student=3 \(of student there are base, cnn, "),
        ("loss=[]", r"^there is no loss=\[\] \(of loss there are bce_kd, "),
        ("loss=nope", r"^there is no loss=nope \(of loss there are bce_kd, "),
        ("loss=fitnet", r"^there is no loss=fitnet; did you mean feature_loss=fitnet\? \("),
        ("feature_loss=[at,rkdd]", r"^there is no feature_loss=rkdd; did you mean feature_loss=rkd\? \("),
        (
            "teacher=resnet65",
            r"^there is no teacher=resnet65; did you mean teacher=resnet56 or teacher=timm teacher.name=resnet65\? ",
        ),
        ("loss.tempratur=4", r"^there is no setting loss.tempratur; did you mean loss.temperature\?$"),
        ("tempratur=4", r"^there is no setting tempratur; did you mean temperature\?$"),
        ("datset=digits", r"^there is no setting datset; did you mean dataset\?$"),
        ("datset@x=digits", r"^there is no setting datset; did you mean dataset\?$"),
        ("epochs=3", r"^there is no setting epochs; did you mean trainer.max_epochs\?$"),
        ("lr=0.1", r"^there is no setting lr; did you mean optimizer.lr\?$"),
        ("++lr=0.1", r"^there is no setting lr; did you mean optimizer.lr\?$"),
        ("~lr", r"^there is no setting lr; did you mean optimizer.lr\?$"),
        ("trainer.max_epoch=3", r"^there is no setting trainer.max_epoch; did you mean trainer.max_epochs\?$"),
        ("+trainer.max_epoch=3", r"^there is no setting trainer.max_epoch; did you mean trainer.max_epochs\?$"),
        ("optimizer.learning_rate=1", r"^there is no setting optimizer.learning_rate; did you mean optimizer.lr\?$"),
        ("wd=0.1", r"^there is no setting wd; did you mean optimizer.weight_decay\?$"),
        ("model=resnet8", r"^there is no setting model; did you mean student=resnet8 or teacher=resnet8\?$"),
        ("model=resnet18", rf"^there is no setting model; did you mean {OF_TIMM}\?$"),
        ("arch=resnet18", rf"^there is no setting arch; did you mean {OF_TIMM}\?$"),
        ("~net", r"^there is no setting net; did you mean student or teacher\?$"),
        (
            "student=resnet18",
            r"; did you mean student=resnet8 or student=timm student.name=resnet18\? \(of student there ",
        ),
        ("teacher=vit_s", r"^there is no teacher=vit_s; did you mean teacher=timm teacher.name=vit_s\? \("),
        ("T=4", r"^there is no setting T; did you mean temperature\?$"),
        ("tau=4", r"^there is no setting tau; did you mean temperature\?$"),
        ("loss.T=4", r"^there is no setting loss.T; did you mean loss.temperature\?$"),
        (
            "seed=0,1",
            r"^seed must be one value without -m, got 0,1; -m seed=0,1 runs each$",
        ),
        (
            "optimizer.betas=0.5,0.9",
            r"^optimizer.betas must be one value without -m, .* \(a list is typed optimizer.betas=\[0.5,0.9\]\)$",
        ),
        ("seed=range(0,2)", r"^seed must be one value without -m, got range\(0,2\); -m seed=range\(0,2\) runs each$"),
        ("alpha=interval(0,1)", r"^alpha must be one value without -m, got interval\(0,1\); -m "),
        ("loss=glob(*)", r"^loss must be one value without -m, got glob\(\*\); -m "),
        ("seeds=0,1", r"^there is no setting seeds; did you mean seed\? Several values need -m, got seeds=0,1$"),
        ("loss=kdd,dkd", r"^there is no loss=kdd; did you mean loss=kd\? .* Several values need -m, got loss=kdd,dkd$"),
        ("hydra.run.dr=x", r"^there is no setting hydra.run.dr; did you mean hydra.run.dir\?$"),
        ("+colour=3", r"^there is no setting colour; --cfg job shows all that there are$"),
        ("teacher.classes=f", r"^teacher.classes has no default, so it is typed with a \+: \+teacher.classes=f$"),
        ("teacher.resize=16", r"^teacher.resize has no default, so it is typed with a \+: \+teacher.resize=16$"),
        ("sweep=seeds", r"^sweep has no default option, so it is typed with a \+: \+sweep=seeds$"),
        ("alpha", r"^a setting must be typed as SETTING=VALUE, got alpha$"),
        ("output_dir=my_run(1)", r"""^output_dir must be in two pairs of quotes, .*: 'output_dir="my_run\(1\)"'$"""),
        ("feature_loss=[at,rkd", r"^feature_loss must have closed brackets and quotes, got \[at,rkd: "),
        (
            "teacher.weights=runs/epoch=1-step=20.ckpt",
            r"^teacher.weights must be in two pairs of quotes.*: 'teacher.weights=\"runs/epoch=1-step=20.ckpt\"'$",
        ),
        (
            "dataset.source.root=données/base",
            r"^dataset.source.root must be in two pairs of quotes.*: 'dataset.source.root=\"données/base\"'$",
        ),
    ],
)
def test_a_wrong_setting_is_one_line_that_says_so(tmp_path, override, message):
    with pytest.raises(ValueError, match=message) as caught:
        check(composed(tmp_path, override))
    assert "\n" not in str(caught.value)


def test_a_teacher_whose_folder_gives_its_weights_has_no_random_ones(tmp_path):
    rule = "^teacher.weights must not be random for a network whose folder gives its weights, got random$"
    with pytest.raises(ValueError, match=rule):
        check(composed(tmp_path, "teacher=hf_text", "teacher.folder=here", "teacher.weights=random"))


def test_what_a_message_says_to_type_is_taken(tmp_path):
    with pytest.raises(ValueError, match="must be in two pairs of quotes") as caught:
        composed(tmp_path, "teacher.weights=runs/épreuve=1.ckpt")
    (typed,) = shlex.split(str(caught.value).partition(": ")[2])
    assert composed(tmp_path, typed).teacher.weights == "runs/épreuve=1.ckpt"


def test_several_mistakes_are_told_one_after_the_other(tmp_path):
    with pytest.raises(ValueError, match=r"^there is no setting epochs; did you mean trainer.max_epochs\?$"):
        composed(tmp_path, "epochs=3", "lr=0.1")


def test_a_name_is_looked_for_among_those_of_the_chosen_options(tmp_path):
    with pytest.raises(ValueError, match=r"did you mean optimizer.momentum\?$"):
        composed(tmp_path, "optimizer=sgd", "momentun=0.8")
    with pytest.raises(ValueError, match=r"^there is no setting momentun; --cfg job"):
        composed(tmp_path, "momentun=0.8")


@pytest.mark.parametrize(
    ("typed", "names", "found"),
    [
        ("lr", ["optimizer.lr", "teacher.recipe.optimizer.lr"], "optimizer.lr"),
        ("teacher.recipe.lr", ["optimizer.lr", "teacher.recipe.optimizer.lr"], "teacher.recipe.optimizer.lr"),
        ("temp", ["tags", "temperature", "temperature_schedule"], "temperature"),
        ("batchsize", ["dataset.batch_size", "dataset.eval_batch_size"], "dataset.batch_size"),
        ("xyz", ["alpha", "seed"], None),
        ("alpha", [], None),
    ],
)
def test_the_nearest_name(typed, names, found):
    assert nearest(typed, names) == nearest(typed, names[::-1]) == found


def test_a_control_is_known_by_alpha_alone(tmp_path):
    assert Identity(composed(tmp_path, "alpha=1")).is_control
    assert Identity(composed(tmp_path, "distillation=control")).is_control
    assert not Identity(composed(tmp_path, "alpha=1", "alpha_schedule={kind:linear,final:0}")).is_control
    assert not Identity(composed(tmp_path, "alpha=0.99")).is_control


def test_fingerprints_ignore_where_a_run_lies_and_see_what_it_computes(tmp_path):
    base = plain(composed(tmp_path))
    moved = plain(compose(["experiment=smoke", "tracking=none"], output_dir="/elsewhere", data_dir="/other"))
    warmer = plain(composed(tmp_path, "temperature=8"))
    alone = plain(composed(tmp_path, "alpha=1", "temperature=1", "teacher=cnn"))
    seeded = plain(composed(tmp_path, "seed=1"))
    assert Identity(base).fingerprint == Identity(moved).fingerprint
    assert len({Identity(c).fingerprint for c in (base, warmer, alone, seeded)}) == 4
    assert (
        Identity(base).control_fingerprint
        == Identity(warmer).control_fingerprint
        == Identity(alone).control_fingerprint
    )
    assert Identity(base).control_fingerprint != Identity(seeded).control_fingerprint


def test_whether_a_source_domain_may_be_fetched_is_in_no_fingerprint(tmp_path):
    fetched, local = (
        plain(composed(tmp_path, "scheme=cross_domain", "dataset@scheme.source=mnist", *more))
        for more in (["scheme.source.source.download=true"], [])
    )
    assert fetched["scheme"] != local["scheme"]
    assert Identity(fetched).fingerprint == Identity(local).fingerprint


def test_an_ensemble_may_have_more_members_and_is_else_what_it_was(tmp_path):
    three = composed(tmp_path, "teacher=ensemble")
    assert list(three.teacher.members) == ["a", "b", "c"]
    four = composed(tmp_path, "teacher=ensemble", "teacher@teacher.members.d=mlp", "teacher.members.d.recipe.seed=3")
    assert four.teacher.members.d._target_.endswith(".mlp")
    assert [member.recipe.seed for member in four.teacher.members.values()] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ([f"~teacher.members.{name}" for name in "abc"], r"members must have a teacher at least, got \{\}"),
        (["teacher.members=null"], "members must have a teacher at least, got None"),
        (["teacher.members.b=null"], r"members.b must be .* ~teacher.members.b leaves it out\), got None"),
        (["teacher.members.b=cnn"], r"members.b must be .*\(teacher@teacher.members.b=NAME chooses one, .*, got cnn"),
    ],
)  # fmt: skip
def test_an_ensemble_of_no_teachers_is_one_line(tmp_path, typed, message):
    with pytest.raises(ValueError, match=rf"^teacher\.{message}$"):
        check(composed(tmp_path, "teacher=ensemble", *typed))


def test_teachers_and_students_offer_the_same_networks():
    not_networks = {"base", "ensemble", "onnx", "outputs"}
    options = {g: {p.stem for p in (CONF / g).glob("*.yaml")} - not_networks for g in ("teacher", "student")}
    assert options["teacher"] == options["student"]


def test_every_yaml_is_small_and_plain():
    for path in CONF.rglob("*.yaml"):
        assert yaml.safe_load(path.read_text()) is not None, path


def test_what_was_composed_before_is_no_part_of_what_is_composed_next():
    """Options are put together once in a process; each configuration is one of its own."""
    first = compose(["loss=dkd", "alpha=0.3"], output_dir="a")
    before = plain(first)
    first.alpha, first.loss.temperature = 0.9, 77
    first.teacher.recipe.max_epochs = 99
    assert plain(compose(["loss=dkd", "alpha=0.3"], output_dir="a")) == before
    assert compose(["loss=dkd", "alpha=0.5"], output_dir="a").alpha == 0.5


def test_from_python_a_run_has_no_folder_of_its_own():
    with pytest.raises(ValueError, match=r"^output_dir must be given from Python, compose"):
        compose(["experiment=smoke"])
