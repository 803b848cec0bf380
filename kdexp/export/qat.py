"""Quantisation-aware distillation: a short fine-tuning in which the student rounds to 8 bits and follows its teacher.

Weights and activations are rounded in the forward pass, and gradients go straight through (Jacob et al. 2018,
"Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", arXiv 1712.05877).
"""

import logging

import torch

from kdexp.contracts import Outputs
from kdexp.experiment.experiment import Experiment
from kdexp.experiment.members import has_soft_term
from kdexp.export import pt2e
from kdexp.export.graph import Graph
from kdexp.export.settings import Qat
from kdexp.training.terms import total_loss

log = logging.getLogger(__name__)


def fine_tuned(experiment: Experiment, graph: Graph, settings: Qat) -> torch.nn.Module:
    """The network of a graph in 8 bits, after a fine-tuning by the run's hard and soft term, on the CPU.

    Args:
        experiment: of the run, whose training batches, teacher, alpha and temperature (those of its first epoch, where
            they are scheduled) are taken; feature losses are left out.
        graph: of its student, for normalised inputs.
        settings: how long.

    Raises:
        ValueError: the run's teacher is not at hand, or its task has terms that need the network itself.
    """
    if "images" in experiment.data.task.supports:
        raise ValueError(
            "quantize must be another than qat for task=generation, whose soft term runs the decoder alone"
        )
    distiller = experiment.distiller if experiment.teacher is not None or not has_soft_term(experiment.values) else None
    if distiller is None:
        store = experiment.config.store_dir
        raise ValueError(f"store_dir must hold the run's teacher for quantize=qat, got {store}")
    batches = experiment.data.student.epochs("cpu")
    if experiment.teacher is not None:
        experiment.teacher.to("cpu")
    torch.manual_seed(experiment.config.seed)
    network = pt2e.trainable(graph.network, graph.feed(next(batches(0)).inputs[:2]))
    pt2e.set_training(network, True)
    optimizer = torch.optim.AdamW(network.parameters(), settings.learning_rate)
    steps = settings.epochs * len(batches)
    slower = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    for epoch in range(settings.epochs):
        total = 0.0
        for batch in batches(epoch):
            teacher = distiller.teacher_outputs(batch.inputs)
            terms = distiller.logit_terms(Outputs(network(*graph.feed(batch.inputs))), teacher, batch)
            loss = total_loss(terms)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            slower.step()
            total += loss.item()
        log.info("qat: epoch %d of %d, loss %.4f", epoch + 1, settings.epochs, total / len(batches))
    pt2e.set_training(network, False)
    return pt2e.converted(network)
