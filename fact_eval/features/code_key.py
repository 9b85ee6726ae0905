"""The code behind stored features: what decides an image or a feature, and its hash."""

import functools
import hashlib
import importlib.metadata
from collections.abc import Mapping
from pathlib import Path

import fact_eval
import fact_leaderboard
import fact_metrics
import fact_train
from fact_metrics.base.canonical import canonical_json
from fact_metrics.base.fingerprints import modules_sha256

# From a snapshot or a dataset to the stored row. Every module that these import must be listed too, or in
# tests/test_features_code.py with the reason why it changes no feature.
PACKAGES = {
    package.__name__: Path(package.__file__).parent
    for package in (fact_metrics, fact_train, fact_leaderboard, fact_eval)
}
FEATURE_MODULES = (
    # a snapshot: its file, its networks, and what builds them from a configuration
    "fact_train.snapshot",
    "fact_train.imports",
    "fact_train.networks",
    "fact_train.classifiers.classifier",
    "fact_train.settings.config",
    "fact_train.settings.network_fields",
    "fact_train.settings.training_fields",
    "fact_train.settings.stylex_fields",
    "fact_train.settings.style_fields",
    "fact_train.settings.schedules",
    # images
    "fact_train.data",
    "fact_eval.images",
    "fact_metrics.base.pixels",
    "fact_metrics.base.pictures",
    "fact_metrics.base.image_size",
    "fact_metrics.images",
    "fact_metrics.base.arrays",
    # features
    "fact_eval.features",
    "fact_metrics.features",
    "fact_metrics.base.checkpoints",
    "fact_metrics.base.storages",
    "fact_metrics.base.pickles",
    "fact_metrics.base.tensor_files",
    "fact_metrics.base.torch_files",
    "fact_metrics.base.tf32",
)
FEATURE_LIBRARIES = ("torch", "torchvision", "numpy", "pillow")


@functools.cache
def features_code() -> str:
    """Hash of the code that makes images and features, read once per process."""
    return hash_features_code(PACKAGES)


def hash_features_code(packages: Mapping[str, Path]) -> str:
    """Hash of the modules and library versions that make images and features; `packages` as PACKAGES.

    FileNotFoundError where a module does not exist.
    """
    versions = {name: importlib.metadata.version(name) for name in FEATURE_LIBRARIES}
    text = canonical_json([modules_sha256(FEATURE_MODULES, packages), versions])
    return hashlib.sha256(text.encode()).hexdigest()
