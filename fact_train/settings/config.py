"""TrainConfig: one field = one flag = one --help line = one entry of --list-axes = one recorded value.

`scope` says what a field may change: `science` fields define the experiment (hashed, never changed on
resume); `schedule` fields say how far and how often (a run can be continued with other values); `machine`
fields say where. `panel` is the heading under which `--help` and `--list-axes` show the field; the order of
the fields is the order in which runs record them, and does not change.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal

from fact_metrics.base.errors import UsageError
from fact_train.settings.checks import find_problem
from fact_train.settings.fields import NOT_NEGATIVE, POSITIVE, fit, setting, value_text
from fact_train.settings.network_fields import NetworkFields
from fact_train.settings.stylex_fields import StylExFields
from fact_train.settings.training_fields import TrainingFields

# The fields of the first published runs. A later one counts in the hash where it is not at its default, so
# that adding a field renames no earlier run; the default of such a field can never change.
_FIRST_FIELDS = frozenset(
    """data resolution resize crop channels alpha max_images mirror cond z_dim w_dim map_depth mapping_lr_mult
    injection g_arch noise fused_modconv d_arch mbstd_group_size channel_base channel_max d_channel_mult
    conv_clamp r1_gamma r1_gamma_final r1_decay_kimg r1_interval pl_weight pl_interval pl_batch_shrink
    pl_decay style_mixing_prob updates batch batch_gpu precision g_lr d_lr beta1 beta2 ema_kimg
    ema_rampup""".split()
)


@dataclass(frozen=True)
class TrainConfig(StylExFields, TrainingFields, NetworkFields):  # their fields from the last to the first
    """Everything that decides a run. Defaults are StyleGAN2's published ones where there are any."""

    # fmt: off
    kimg: float = setting(25000,
        "Train for this many thousand images. 0 writes the untrained network.",
        panel="Run", bounds=NOT_NEGATIVE, scope="schedule")
    kimg_per_tick: float = setting(4, "Print progress every this many thousand images (a tick).",
        panel="Run", bounds=POSITIVE, scope="schedule")
    snapshot_ticks: int = setting(50, "Save a snapshot and a checkpoint every this many ticks.",
        panel="Run", bounds=POSITIVE, scope="schedule")
    image_ticks: int = setting(50, "Save a grid of samples every this many ticks.",
        panel="Run", bounds=POSITIVE, scope="schedule")

    device: str = setting("auto", "Device: auto, cpu, cuda or cuda:N.",
        panel="Run", metavar="DEVICE", scope="machine")
    threads: int | None = setting(None,
        "CPU threads of this process. none takes all available cores, or fewer where those are faster.",
        panel="Run", bounds=POSITIVE, scope="machine")
    follow_load: bool = setting(False,
        "Choose the CPU threads again at every checkpoint. The last bits then depend on other programs.",
        panel="Run", scope="machine")
    log_to: Literal["none", "wandb", "mlflow"] = setting("none",
        "Also send ticks and pictures to Weights & Biases or MLflow. TensorBoard events are always written.",
        panel="Run", scope="machine")
    cuda_graphs: bool = setting(False,
        "Replay all kernels of a phase as one CUDA graph: faster for small networks, with equal results.",
        panel="Run", scope="machine")
    # fmt: on

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            try:
                object.__setattr__(self, f.name, fit(f, getattr(self, f.name)))
            except ValueError as error:
                raise UsageError(f"{flag(f.name)} {getattr(self, f.name)}: {error}.") from None
        problem = find_problem(self, changed=_changed(self))
        if problem is not None:
            name, why = problem
            raise UsageError(f"{flag_with(name, getattr(self, name))}: {why}.")

    @classmethod
    def panel(cls, name: str) -> list[str]:
        """Names of the fields of one panel."""
        return [f.name for f in dataclasses.fields(cls) if f.metadata["panel"] == name]

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TrainConfig":
        known = {f.name for f in dataclasses.fields(cls)}
        extra = sorted(set(values) - known)
        if extra:
            raise UsageError(f"unknown configuration field {extra[0]!r}: written by another version?")
        return cls(**values)

    def science(self) -> dict[str, Any]:
        """The fields that define the experiment, seed included."""
        return {f.name: getattr(self, f.name) for f in fields_of("science")}

    def sha256(self) -> str:
        """Hash of the science fields without the seed: equal for the training seeds of one configuration.

        Later fields count where they are not at their default.
        """
        counts = _FIRST_FIELDS | set(_changed(self))
        values = {k: v for k, v in self.science().items() if k != "seed" and k in counts}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def fields_of(*scopes: str) -> list[dataclasses.Field]:
    """The fields of TrainConfig in these scopes (all without any), in order."""
    return [f for f in dataclasses.fields(TrainConfig) if not scopes or f.metadata["scope"] in scopes]


def flag(name: str) -> str:
    """The command-line flag of a field: r1_gamma -> --r1-gamma."""
    return "--" + name.replace("_", "-")


def flag_with(name: str, value: Any) -> str:
    """A field's flag and value as they are typed: --r1-gamma 10.0, --mirror, --no-mirror."""
    if isinstance(value, bool):
        return flag(name) if value else f"--no-{flag(name)[2:]}"
    return f"{flag(name)} {value_text(value)}"


def differing_fields(a: TrainConfig, b: TrainConfig) -> list[str]:
    """Names of the science fields in which two configurations differ."""
    return [f.name for f in fields_of("science") if getattr(a, f.name) != getattr(b, f.name)]


def changed_fields(values: dict[str, Any]) -> dict[str, Any]:
    """The science fields of a configuration that are not at their default: all that makes it again."""
    return {
        f.name: values[f.name] for f in fields_of("science") if values.get(f.name, f.default) != f.default
    }


def _changed(cfg: TrainConfig) -> list[str]:
    """Names of the fields that are not at their default."""
    return [f.name for f in fields_of() if getattr(cfg, f.name) != f.default]
