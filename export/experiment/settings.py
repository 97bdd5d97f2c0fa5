"""Settings of an experiment, read from a TOML file."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from export.systems import SYSTEMS
from export.train_settings import TrainSettings
from ildsdk.errors import ConfigError
from ildsdk.settings import MethodSettings, settings_from_mapping

BUILT_IN = Path(__file__).resolve().parents[1] / "experiments"
"""Folder of the experiments that come with the code."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PhantomData:
    """A phantom archive made in memory as it is prepared.

    Attributes
    ----------
    cases_per_label : int
        Cases of each class; the paper has 20.
    seed : int
        Seed of the first case of each class.
    size : int
        Rows and columns of a slice.
    difficulty : float
        0 (easy) to 1 (hard).
    """

    cases_per_label: int = 20
    seed: int = 0
    size: int = 512
    difficulty: float = 0.5

    def __post_init__(self) -> None:
        if not (isinstance(self.cases_per_label, int) and self.cases_per_label >= 2):
            raise ConfigError(f"cases_per_label is {self.cases_per_label!r}, expected 2 or more")
        if not 0 <= self.difficulty <= 1:
            raise ConfigError(f"difficulty is {self.difficulty!r}, expected 0 to 1")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveData:
    """An archive of your own.

    Attributes
    ----------
    cases_csv : str
        Table of cases as for ``ildsdk index build``; a relative path counts from the
        experiment's file.
    every_mm : float
        Slice sampling; 0 takes every slice.
    synthetic : bool
        True where the archive holds phantoms: the report says so.
    """

    cases_csv: str
    every_mm: float = 10.0
    synthetic: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.every_mm) and self.every_mm >= 0):
            raise ConfigError(f"every_mm is {self.every_mm!r}, expected 0 or more (mm)")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FoldSettings:
    """Folds by case within each class; the paper has 5 (16 : 4 of 20 cases)."""

    n_folds: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if not (isinstance(self.n_folds, int) and self.n_folds >= 2):
            raise ConfigError(f"n_folds is {self.n_folds!r}, expected 2 or more")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ReportSettings:
    """What :func:`export.reporting.write_report` is asked for."""

    top_n: int = 10
    n_bootstrap: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        if not (isinstance(self.top_n, int) and self.top_n >= 5):
            raise ConfigError(f"top_n is {self.top_n!r}, expected 5 or more")
        if not (isinstance(self.n_bootstrap, int) and self.n_bootstrap >= 1):
            raise ConfigError(f"n_bootstrap is {self.n_bootstrap!r}, expected 1 or more")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentSettings:
    """One experiment.

    Attributes
    ----------
    name : str
        Stands in the report.
    initial_weights : dict
        Backbone name to a state dict in torchvision's naming; the others start at random.
    systems : tuple of str
        Names of :data:`export.systems.SYSTEMS` to train and compare.
    training : TrainSettings
        For every system.
    training_of : dict
        System name to the training settings of that one (``[training.NAME]`` in the file: only
        what differs). Systems on one backbone share its training, so they must agree on it.
    """

    name: str
    data: PhantomData | ArchiveData
    method: MethodSettings
    folds: FoldSettings
    initial_weights: dict[str, str]
    systems: tuple[str, ...]
    training: TrainSettings
    training_of: dict[str, TrainSettings]
    report: ReportSettings

    @property
    def is_synthetic(self) -> bool:
        """Made from phantoms."""
        return isinstance(self.data, PhantomData) or self.data.synthetic

    def training_for(self, name: str) -> TrainSettings:
        """Training settings of a system."""
        return self.training_of.get(name, self.training)


def find_experiment(name: str | Path) -> Path:
    """Path of an experiment's file: as given, or one of the built-in ones.

    Raises
    ------
    ConfigError
        Neither exists.
    """
    for path in (Path(name), BUILT_IN / str(name)):
        if path.is_file():
            return path
    known = ", ".join(sorted(path.name for path in BUILT_IN.glob("*.toml")))
    raise ConfigError(f"there is no experiment {Path(name).name!r}; built in: {known}")


def load_settings(path: Path) -> ExperimentSettings:
    """Read and check an experiment's file.

    Raises
    ------
    ConfigError
        Not TOML, or a setting that is unknown, missing or out of range.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path.name} is not TOML: {error}") from error
    values.setdefault("name", path.stem)
    values.setdefault("systems", list(SYSTEMS))
    for table in ("data", "method", "folds", "training", "report", "initial_weights"):
        if not isinstance(values.setdefault(table, {}), dict):
            raise ConfigError(f"{table} in {path.name} is a value, expected a table [{table}]")
    known = {field.name for field in dataclasses.fields(ExperimentSettings)} - {"training_of"}
    if strangers := sorted(set(values) - known):
        raise ConfigError(
            f"unknown setting {strangers[0]!r} in {path.name} (known: {', '.join(sorted(known))})"
        )
    training, training_of = _training(values["training"])
    settings = ExperimentSettings(
        name=str(values["name"]),
        data=_data(values["data"], path),
        method=settings_from_mapping(MethodSettings, values["method"]),
        folds=settings_from_mapping(FoldSettings, values["folds"]),
        initial_weights=_initial_weights(values["initial_weights"], path),
        systems=_systems(values["systems"]),
        training=training,
        training_of=training_of,
        report=settings_from_mapping(ReportSettings, values["report"]),
    )
    _check_shared_stages(settings, path.name)
    return settings


def _check_shared_stages(settings: ExperimentSettings, file_name: str) -> None:
    """Systems on one backbone train it once, so they must ask for the same."""
    first_on: dict[str, str] = {}
    for name in settings.systems:
        backbone = SYSTEMS[name].backbone
        if backbone is None:
            continue
        first = first_on.setdefault(backbone, name)
        ours, theirs = (settings.training_for(n).of_stage_1() for n in (name, first))
        if changed := [key for key in ours if ours[key] != theirs[key]]:
            raise ConfigError(
                f"{file_name}: {name!r} and {first!r} share {backbone}, but differ in "
                f"{', '.join(changed)} of its training"
            )


def _data(values: Mapping[str, Any], path: Path) -> PhantomData | ArchiveData:
    values = dict(values)
    source = values.pop("source", "phantom")
    if source == "phantom":
        return settings_from_mapping(PhantomData, values)
    if source == "archive":
        found = settings_from_mapping(ArchiveData, values)
        absolute = str((path.resolve().parent / found.cases_csv).resolve())
        return dataclasses.replace(found, cases_csv=absolute)
    raise ConfigError(f"data.source is {source!r}, expected 'phantom' or 'archive'")


def _initial_weights(values: Mapping[str, Any], path: Path) -> dict[str, str]:
    backbones = sorted({system.backbone for system in SYSTEMS.values() if system.backbone})
    found = {}
    for name, file in values.items():
        if name not in backbones:
            raise ConfigError(f"initial_weights.{name} is unknown (known: {', '.join(backbones)})")
        absolute = (path.resolve().parent / str(file)).resolve()
        if not absolute.is_file():
            raise ConfigError(f"initial_weights.{name}: there is no file {absolute.name!r}")
        found[name] = str(absolute)
    return found


def _systems(names: Any) -> tuple[str, ...]:
    if not isinstance(names, list) or not names:
        raise ConfigError(f"systems is {names!r}, expected a list of {', '.join(SYSTEMS)}")
    for name in names:
        if name not in SYSTEMS:
            raise ConfigError(f"system {name!r} is unknown (known: {', '.join(SYSTEMS)})")
    return tuple(name for name in SYSTEMS if name in names)  # in the order of Table 2


def _training(values: Mapping[str, Any]) -> tuple[TrainSettings, dict[str, TrainSettings]]:
    common = {key: value for key, value in values.items() if not isinstance(value, dict)}
    own = {key: value for key, value in values.items() if isinstance(value, dict)}
    for name in own:
        if name not in SYSTEMS:
            raise ConfigError(f"[training.{name}] names no system (known: {', '.join(SYSTEMS)})")
    settings = settings_from_mapping(TrainSettings, common)
    return settings, {
        name: settings_from_mapping(TrainSettings, {**common, **changed})
        for name, changed in own.items()
    }
