"""A student's file of weights as a run leaves it, without a training."""

import torch

from kdexp.config.compose import compose
from kdexp.experiment import networks
from kdexp.experiment.experiment import Experiment
from kdexp.weights import save_weights


def saved(folder, *overrides, **changed):
    """The experiment, and its student in ``student.safetensors`` with random weights; `changed` is said otherwise."""
    experiment = Experiment(compose([*overrides, "tracking=none"], output_dir=folder))
    config = experiment.config
    network = experiment.new_student()
    networks.prepare(network, lambda: experiment.data.student.splits)
    torch.manual_seed(1)
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.running_mean.uniform_(-0.1, 0.1)
    about = networks.description(config.student, "student", config.dataset, [], experiment.data.description)
    save_weights(network, folder / "student.safetensors", {**about, **changed})
    return experiment, network.eval()


def stored_test(experiment):
    """Inputs of test as the data set stores them."""
    split = experiment.data.student.splits.test
    return split.inputs[split.index]


@torch.no_grad()
def evaluated(experiment, network):
    """The logits of test, as kdexp's own evaluation has them."""
    return torch.cat([network(batch.inputs) for batch in experiment.data.student.eval_batches("test", "cpu")])
