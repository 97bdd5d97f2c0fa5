"""The embedded default bundle and index, from nothing: phantom CT to evaluated, indexed bundle.

Stages, each with its own folder in the work folder and skipped when that is complete::

    archive/                phantom DICOM with cases.csv
    trunk/                  ResNet-50 trained on small inputs: where every input size starts
    size-160/               one folder an input size
        prepared/ training/ onnx/ evaluation/ bundle/ index/ int8/ bundle-int8/

The index is built in float32 with ``bundle``; ``bundle-int8`` is the same bundle with the same hash
and the int8 forms of its backbone: what ships.

Several input sizes share archive and trunk; :mod:`export.input_sizes` compares them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from export.dataset import SliceSet, load_slice_set
from export.quantization.settings import QuantizeSettings
from export.train_settings import TrainSettings
from export.whole_files import write_json
from ildsdk.errors import ConfigError
from ildsdk.settings import MethodSettings

INTENDED_USE = (
    "Trying and testing the ildsdk software. Trained on computer-made phantoms only: its answers "
    "say nothing about any real patient and must not be used for diagnosis or any clinical "
    "decision."
)
INPUT_SIZE = 160
"""What two cores can train; docs/input-size.md has what was compared so far."""
SHIPPED_NAME = "bundle-int8"
TRUNK_WEIGHTS = "resnet50.safetensors"
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DefaultBundleSettings:
    """What the default bundle is made of.

    Attributes
    ----------
    n_cases_per_label : int
        Phantom cases of each class, held-out ones included.
    n_held_out_per_label : int
        Of these, cases of each class kept out of training and index.
    phantom_seed : int
        Seed of the first case of each class.
    phantom_size : int
        Rows and columns of a phantom slice.
    difficulty : float
        0 to 1, see ``export.phantom``.
    input_size : int
        Side of the model input in pixels.
    trunk_schedule : tuple of (int, int)
        Stage 1 on small inputs, shared by all input sizes: (side, epochs).
    n_epochs : int
        Epochs of stage 1 at ``input_size``, from the trunk's weights.
    training : TrainSettings
        Everything else; its ``schedule`` is set by the two above.
    quantization : QuantizeSettings
        Of the int8 forms.
    """

    n_cases_per_label: int = 24
    n_held_out_per_label: int = 6
    phantom_seed: int = 1000
    phantom_size: int = 512
    difficulty: float = 0.5
    input_size: int = INPUT_SIZE
    trunk_schedule: tuple[tuple[int, int], ...] = ((112, 8),)
    n_epochs: int = 3
    training: TrainSettings = dataclasses.field(
        default_factory=lambda: TrainSettings(
            precision="auto", fusion_epochs=5, fusion_learning_rate=3e-4
        )
    )
    quantization: QuantizeSettings = dataclasses.field(default_factory=QuantizeSettings)

    def __post_init__(self) -> None:
        if not 1 <= self.n_held_out_per_label <= self.n_cases_per_label - 2:
            raise ConfigError(
                f"n_held_out_per_label is {self.n_held_out_per_label}, expected 1 to "
                f"{self.n_cases_per_label - 2} of {self.n_cases_per_label} cases"
            )

    def archive_facts(self) -> dict[str, Any]:
        """How the archive is made, for provenance and model card."""
        names = (
            "n_cases_per_label", "n_held_out_per_label", "phantom_seed", "phantom_size",
            "difficulty",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names}

    def trunk_training(self) -> TrainSettings:
        """Settings of the shared trunk."""
        return dataclasses.replace(self.training, schedule=self.trunk_schedule)

    def final_training(self) -> TrainSettings:
        """Settings at the final input size."""
        return dataclasses.replace(self.training, schedule=((self.input_size, self.n_epochs),))


def make_default_bundle(
    work: Path,
    settings: DefaultBundleSettings,
    *,
    name: str = "phantom-default",
    n_processes: int = 2,
    say: Say = lambda line: None,
    show_progress: bool = True,
) -> Path:
    """Run every stage that is not complete; returns the bundle that ships (index beside it).

    Raises
    ------
    ConfigError
        The work folder was begun with other settings.
    ModelError
        The exported graphs differ from the trained networks, or the int8 form answers otherwise
        than float32.
    """
    from export.bundling import assemble_bundle, build_index_from_cases
    from export.train import MODEL_NAME, load_trained

    folder = train_and_evaluate(
        work, settings, n_processes=n_processes, say=say, show_progress=show_progress
    )
    trained = load_trained(folder / "training" / MODEL_NAME)
    if not (folder / "bundle").exists():
        say("bundle")
        assemble_bundle(
            folder / "bundle", name, trained, folder / "onnx", folder / "evaluation",
            MethodSettings(input_size=settings.input_size), is_synthetic=True,
            license="Apache-2.0", intended_use=INTENDED_USE, data=settings.archive_facts(),
        )  # fmt: skip
    if not (folder / "index").exists():
        say("index")
        archive = work / "archive"
        build_index_from_cases(
            folder / "index", archive / "cases.csv", list(trained.train_cases), folder / "bundle",
            _held_out_calibration(folder / "evaluation"), show_progress,
        )  # fmt: skip
    if not (folder / SHIPPED_NAME).exists():
        _add_int8(folder, settings, say)
    return folder / SHIPPED_NAME


def _add_int8(folder: Path, settings: DefaultBundleSettings, say: Say) -> None:
    from export.quantization.adding import add_int8
    from export.quantization.quantizing import REPORT_NAME, quantize
    from ildsdk.bundle import Bundle

    bundle = Bundle.open(folder / "bundle")
    if not (folder / "int8" / REPORT_NAME).exists():
        say("int8")
        quantize(
            bundle, load_slice_set(folder / "prepared"), folder / "index", folder / "int8",
            settings.quantization, say=say,
        )  # fmt: skip
    add_int8(bundle, folder / "int8", folder / SHIPPED_NAME)


def train_and_evaluate(
    work: Path,
    settings: DefaultBundleSettings,
    *,
    n_processes: int = 2,
    say: Say = lambda line: None,
    show_progress: bool = True,
) -> Path:
    """Run the stages up to the evaluation for one input size; returns its folder.

    Raises
    ------
    ConfigError, ModelError
        As :func:`make_default_bundle`.
    """
    # Imported here: torch takes a second, and `--help` should not.
    from export.bundling import export_trained
    from export.evaluate import evaluate
    from export.train import MODEL_NAME, load_trained, train

    _check_settings(work, settings)
    _make_archive(work / "archive", settings, n_processes, show_progress)
    folder = work / f"size-{settings.input_size}"
    slices = _prepared(work, settings.input_size, n_processes, say, show_progress)
    test_share = settings.n_held_out_per_label / settings.n_cases_per_label
    if not (folder / "training" / MODEL_NAME).exists():
        trunk = _trunk(work, settings, test_share, n_processes, say, show_progress)
        say(f"train at {settings.input_size} px")
        train(
            slices, folder / "training", settings.final_training(),
            test_share=test_share, initial_weights=trunk, show_progress=show_progress,
        )  # fmt: skip
    trained = load_trained(folder / "training" / MODEL_NAME)
    if not (folder / "onnx" / "export.json").exists():
        say("export to ONNX")
        export_trained(slices, trained, folder / "onnx", say=say)
    if not (folder / "evaluation" / "evaluation.md").exists():
        say("evaluate")
        evaluate(
            slices, trained, folder / "onnx", folder / "evaluation", is_synthetic=True,
            n_threads=settings.training.n_threads, show_progress=show_progress,
        )  # fmt: skip
    return folder


def _make_archive(
    archive: Path, settings: DefaultBundleSettings, n_processes: int, show_progress: bool
) -> None:
    """Write the phantom DICOM archive with its ``cases.csv``, unless it is there."""
    from tqdm import tqdm

    from export.phantom import PhantomSettings, write_archive

    if (archive / "cases.csv").exists():
        return
    with tqdm(total=0, desc="phantom", unit="case", disable=not show_progress) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        write_archive(
            archive,
            settings.n_cases_per_label,
            seed=settings.phantom_seed,
            settings=PhantomSettings(size=settings.phantom_size, difficulty=settings.difficulty),
            n_workers=n_processes,
            progress=progress,
        )


def _prepared(
    work: Path, input_size: int, n_processes: int, say: Say, show_progress: bool
) -> SliceSet:
    from export.prepare import prepare
    from export.sources import archive_sources

    folder = work / f"size-{input_size}" / "prepared"
    if (folder / "table.json").exists():
        return load_slice_set(folder)
    say(f"prepare at {input_size} px")
    return prepare(
        archive_sources(work / "archive" / "cases.csv"), folder,
        MethodSettings(input_size=input_size),
        n_processes=n_processes, show_progress=show_progress, say=say,
    )  # fmt: skip


def _trunk(
    work: Path, settings: DefaultBundleSettings, test_share: float, n_processes: int, say: Say,
    show_progress: bool,
) -> Path:  # fmt: skip
    """State dict of the shared trunk; the cases held out are those of every input size."""
    from safetensors.torch import save_file

    from export.systems import SYSTEMS
    from export.train import split_and_train

    path = work / "trunk" / TRUNK_WEIGHTS
    if not path.exists():
        side = settings.trunk_schedule[-1][0]
        slices = _prepared(work, side, n_processes, say, show_progress)
        say(f"train the trunk at {side} px")
        trained = split_and_train(
            slices, work / "trunk", settings.trunk_training(), system=SYSTEMS["resnet50"],
            test_share=test_share, show_progress=show_progress,
        )  # fmt: skip
        assert trained.backbone is not None
        draft = path.with_suffix(".partial")
        state = {name: value.contiguous() for name, value in trained.backbone.state_dict().items()}
        save_file(state, draft)
        draft.replace(path)
    return path


def _held_out_calibration(evaluation: Path) -> tuple[float, str]:
    """Threshold of "no similar case" measured on the held-out cases.

    The indexed cases were trained on: left out one at a time they still resemble each other
    more than a new case does.
    """
    figures = json.loads((evaluation / "evaluation.json").read_text(encoding="utf-8"))
    threshold = float(figures["systems"]["fusion"]["no_match_threshold"])
    return threshold, "percentile 1 of best scores of held-out cases"


def _check_settings(work: Path, settings: DefaultBundleSettings) -> None:
    """Archive and trunk are those of all input sizes, the last epochs those of one."""
    shared = {
        **settings.archive_facts(),
        "trunk": dataclasses.asdict(settings.trunk_training()),
    }
    own = dataclasses.asdict(settings.final_training())
    _compare_settings(work / "default-bundle.json", shared)
    _compare_settings(work / f"size-{settings.input_size}" / "training.json", own)


def _compare_settings(path: Path, ours: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    ours = json.loads(json.dumps(ours))
    if path.exists():
        theirs = json.loads(path.read_text(encoding="utf-8"))
        changed = sorted(key for key in ours if ours[key] != theirs.get(key))
        if changed:
            raise ConfigError(
                f"{path.parent.name!r} was begun with other settings ({', '.join(changed)}); "
                "use another --work folder or delete it"
            )
    else:
        write_json(path, ours)
