"""pictologics beside pyradiomics in one run, one thread, on the lung of bench_radiomics.

pictologics needs Python 3.12 or later, so it runs under an interpreter of its own and only
ratios to pyradiomics are compared with ours. In the project's environment write the slice:

    python benchmarks/compare_pictologics.py write slice.npz

then, where pictologics and pyradiomics are installed:

    python benchmarks/compare_pictologics.py measure slice.npz

pictologics gets a bin width of 25, and no more than the families that pyradiomics has.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from pathlib import Path


def write(path: Path) -> None:
    import numpy as np

    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.radiomics_slices import real_lungs

    lungs = real_lungs(Path(__file__).resolve().parents[2] / "shared" / "data")
    _, pixels, mask, _ = min(lungs, key=lambda one: abs(np.count_nonzero(one[2]) - 70_000))
    np.savez(path, pixels=pixels, mask=mask)


def measure(path: Path) -> None:
    os.environ.update(
        PICTOLOGICS_DISABLE_WARMUP="1", PICTOLOGICS_NUM_THREADS="1", OMP_NUM_THREADS="1"
    )
    import logging
    import warnings

    import numpy as np

    warnings.simplefilter("ignore")
    import pictologics
    import SimpleITK
    from pictologics.features.intensity import calculate_intensity_features
    from pictologics.features.morphology import calculate_morphology_features
    from pictologics.features.texture import calculate_all_texture_features
    from pictologics.preprocessing import discretise_image
    from radiomics import featureextractor

    logging.disable(logging.WARNING)
    with np.load(path) as arrays:
        pixels, mask = arrays["pixels"], arrays["mask"]
    picture = pictologics.Image(pixels.T[..., None].astype(np.float64), (0.7, 0.7, 1.0), (0, 0, 0))
    region = pictologics.Image(mask.T[..., None].astype(np.uint8), (0.7, 0.7, 1.0), (0, 0, 0))
    inside = region.array > 0

    def by_pictologics() -> int:
        low = float(np.floor(picture.array[inside].min() / 25) * 25)
        levels = discretise_image(picture, "FBS", region, bin_width=25.0, min_val=low)
        n_bins = int(levels.array[inside].max())
        return (
            len(calculate_intensity_features(picture.array[inside]))
            + len(calculate_morphology_features(region))
            + len(
                calculate_all_texture_features(
                    levels.array,
                    region.array,
                    n_bins,
                    families=["glcm", "glrlm", "glszm", "ngldm", "ngtdm"],
                )
            )
        )

    image, labels = SimpleITK.GetImageFromArray(pixels), SimpleITK.GetImageFromArray(mask * 1)
    extractor = featureextractor.RadiomicsFeatureExtractor(additionalInfo=False)
    extractor.disableAllFeatures()
    for name in ("shape2D", "firstorder", "glcm", "glrlm", "glszm", "gldm", "ngtdm"):
        extractor.enableFeatureClassByName(name)

    def by_pyradiomics() -> int:
        return len(extractor.execute(image, labels))

    actions = {"pictologics": by_pictologics, "pyradiomics": by_pyradiomics}
    n_values = {name: action() for name, action in actions.items()}
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(15):
        for name, action in actions.items():
            start = time.perf_counter()
            action()
            times[name].append((time.perf_counter() - start) * 1e3)
    median = {name: statistics.median(found) for name, found in times.items()}
    print(
        f"pictologics {pictologics.__version__}, Python {sys.version.split()[0]}, "
        f"{np.count_nonzero(mask)} pixels, values {n_values}, median ms "
        f"{ {name: round(found, 2) for name, found in median.items()} }, "
        f"pictologics {median['pyradiomics'] / median['pictologics']:.1f} x faster"
    )


if __name__ == "__main__":
    {"write": write, "measure": measure}[sys.argv[1]](Path(sys.argv[2]))
