"""Linear separability of a latent space by a classifier's answers.

Karras et al. 2019, arXiv:1812.04948, sec. 4.2 and appendix A.2. The half of the images of which C is surest
gets its class as label, a linear SVM learns the label from the latent, and H(Y|X) is the entropy of
the label given the SVM's side. The score is exp of the sum of H over attributes, here over classes, each one
against all others. 1 is perfect; without any relation a balanced attribute contributes a factor of 2.
"""

import math
import warnings

import torch
from torch import Tensor

KEPT = 0.5  # share of the images, those the classifier is surest of
SETTINGS = {"C": 1.0, "dual": False, "max_iter": 1000}


def conditional_entropy(labels: Tensor, sides: Tensor) -> float:
    """H(labels | sides) in nats of two boolean vectors [N]."""
    total = 0.0
    for side in (False, True):
        on_side = labels[sides == side]
        for label in (False, True):
            share = (on_side == label).double().sum().item() / len(labels)
            if share > 0:
                total -= share * math.log(share / (len(on_side) / len(labels)))
    return total


def separability(latents: Tensor, logits: Tensor) -> tuple[float, list[float | None]]:
    """The score, and H per class in nats, of latents [N, D] and logits [N, K]. Lower is better.

    A class that has all or none of the images contributes None and no factor; two classes are one attribute.
    """
    import numpy as np
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    entropies: list[float | None] = []
    classes = range(1, 2) if logits.shape[1] == 2 else range(logits.shape[1])
    sure = logits.softmax(dim=1).amax(dim=1)
    kept = sure.argsort(descending=True, stable=True)[: max(2, round(KEPT * len(sure)))]
    latents, answers = latents[kept].double(), logits[kept].argmax(dim=1)
    scaled = (latents - latents.mean(dim=0)) / latents.std(dim=0).clamp(min=1e-8)
    for k in classes:
        labels = answers == k
        if labels.all() or not labels.any():
            entropies.append(None)
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            svm = LinearSVC(**SETTINGS, random_state=0).fit(scaled.numpy(), labels.numpy())
        sides = torch.from_numpy(np.asarray(svm.predict(scaled.numpy()), dtype=bool))
        entropies.append(conditional_entropy(labels, sides))
    return math.exp(sum(h for h in entropies if h is not None)), entropies
