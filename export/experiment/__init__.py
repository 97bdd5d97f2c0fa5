"""Whole experiments from one file of settings: six systems, folds by case, report."""

from __future__ import annotations

from export.experiment.run import run_experiment
from export.experiment.settings import ExperimentSettings, load_settings

__all__ = ["ExperimentSettings", "load_settings", "run_experiment"]
