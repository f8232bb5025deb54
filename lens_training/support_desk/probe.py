"""Fits the `legal_risk` probe of the embedded model and measures it on held-out tickets, decoys included."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from lens_training.support_desk.states import prompt_states
from wonder.embedded import SUPPORT_DESK
from wonder.embedded.world import Ticket
from wonder.probes.bundle import ProbeBundle, save_bundle
from wonder.probes.fingerprint import model_fingerprint
from wonder.probes.fit import fit_probe, shuffled_label_auroc
from wonder.probes.manifest import ProbeManifest
from wonder.probes.metrics import auroc, probe_metrics

CONCEPT = "legal_risk"
DEFINITION = (
    "The writer threatens or reports legal consequences for the company: a lawyer or court acting against it, a "
    "regulator, ombudsman or police report, an injury or fire caused by a product, a leak of personal data, or a "
    "claim for damages. Merely mentioning a lawyer, a court, terms or a legal address does not count."
)


@dataclass(frozen=True)
class ProbeReport:
    """The bundle, and how its calibrated probability works as a threshold on held-out tickets."""

    bundle: ProbeBundle
    cv_log_loss: dict[str, float]
    decoy_auroc: float
    """AUROC with only decoys as negatives."""
    precision_at_080: float
    recall_at_080: float
    decoys_over_080: float
    """Share of decoys whose probability exceeds .8."""


def fit_legal_risk(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    *,
    train: Sequence[Ticket],
    held_out: Sequence[Ticket],
    created: date,
) -> ProbeReport:
    """Fit, measure and save the bundle into `folder`, which must not hold one."""
    labels_N, held_labels_N = _labels(train), _labels(held_out)
    states = prompt_states(model, tokenizer, [ticket.text for ticket in train])
    fitted = fit_probe(states, labels_N)
    held_ND = prompt_states(model, tokenizer, [ticket.text for ticket in held_out])[fitted.hook_point]
    logits_N = fitted.probe.logits(held_ND)
    shuffled = shuffled_label_auroc(states[fitted.hook_point], labels_N, held_ND, held_labels_N)
    manifest = ProbeManifest(
        name=CONCEPT,
        concept=CONCEPT,
        definition=DEFINITION,
        polarity="high means the text carries legal risk",
        model=SUPPORT_DESK,
        revision=model_fingerprint(model)[:12],
        model_fingerprint=model_fingerprint(model),
        dtype="float32",
        hook_point=fitted.hook_point,
        d_model=model.config.hidden_size,
        method=fitted.method,
        data_sha256=_digest(train),
        train_count=len(train),
        train_positives=int(labels_N.sum()),
        held_out_count=len(held_out),
        held_out_positives=int(held_labels_N.sum()),
        prevalence=labels_N.float().mean().item(),
        metrics=probe_metrics(logits_N, held_labels_N),
        shuffled_label_auroc=shuffled,
        calibration=fitted.calibration,
        created=created,
    )
    bundle = save_bundle(folder, manifest, fitted.probe.tensors())
    probability_N = bundle.probability(held_ND @ bundle.weight_D + bundle.bias)
    fires_N = probability_N > 0.8
    decoy_N = torch.tensor([ticket.decoy for ticket in held_out])
    return ProbeReport(
        bundle=bundle,
        cv_log_loss=fitted.cv_log_loss,
        decoy_auroc=auroc(logits_N[held_labels_N | decoy_N], held_labels_N[held_labels_N | decoy_N]),
        precision_at_080=held_labels_N[fires_N].float().mean().item(),
        recall_at_080=fires_N[held_labels_N].float().mean().item(),
        decoys_over_080=fires_N[decoy_N].float().mean().item(),
    )


def _labels(tickets: Sequence[Ticket]) -> Tensor:
    return torch.tensor([ticket.legal_risk for ticket in tickets])


def _digest(tickets: Sequence[Ticket]) -> str:
    lines = (json.dumps([ticket.text, ticket.legal_risk], ensure_ascii=False) for ticket in tickets)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
