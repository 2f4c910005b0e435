"""The model that training starts from: its tokenizer, its config, its weights with the task's head.

Knows transformers' loading and what it raises; knows nothing about data or training.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import is_offline_mode
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled
from safetensors import SafetensorError
from tokenizers import Tokenizer

from services import storage
from services.errors import BackendUnavailable, InvalidRequest, NotFound, NotReady
from services.models import model_class
from services.tasks import Facts, Task
from services.tasks.base import SpecialTokens

_FIELD = "spec.base_model"


def locate(base_model: str, scratch: Path) -> str:
    """Returns what transformers loads `base_model` by: a folder, or a hub id that is no folder here.

    An artifact at a remote URI is downloaded into `scratch`. Raises InvalidRequest.
    """
    storage_path = storage.local_path(base_model)
    if storage_path is None:
        return str(_downloaded(base_model, scratch))
    if storage_path.is_dir():
        return str(_model_folder(storage_path, base_model))
    if "://" in base_model or base_model.startswith(("/", ".", "~")):
        raise _invalid(f"there is no folder {base_model}")
    return base_model


def load_config(source: str) -> Any:
    """Returns the model's config. Raises InvalidRequest, BackendUnavailable."""
    with _translated(source):
        config = transformers.AutoConfig.from_pretrained(source)
    if not hasattr(config, "vocab_size"):
        raise _invalid(f"{source} is a {config.model_type} model, which reads no text")
    return config


def save_tokenizer(
    source: str, folder: Path, *, max_length: int, pads_with_eos: bool = False, chat_template: str = ""
) -> SpecialTokens:
    """Writes the model's tokenizer into `folder`, its tokenizer.json set to cut at `max_length`.

    A tokenizer without a padding token takes the one that ends a text if `pads_with_eos`. `chat_template`
    replaces its own unless empty. Raises InvalidRequest if it has no tokenizer.json and none can be made of
    it.
    """
    with _translated(source):
        tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    tokenizer.model_max_length = max_length
    tokenizer.chat_template = chat_template or tokenizer.chat_template
    if pads_with_eos and tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(str(folder))
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise _invalid(f"{source} has a slow tokenizer: no tokenizer.json can be made of it")
    if tokenizer.pad_token_id is None:
        raise _invalid(f"the tokenizer of {source} has no padding token")
    fast = Tokenizer.from_file(str(path))
    fast.enable_padding(pad_id=tokenizer.pad_token_id, pad_token=tokenizer.pad_token)
    fast.enable_truncation(max_length, direction=tokenizer.truncation_side)
    fast.save(str(path))
    return _special_tokens(tokenizer)


def _special_tokens(tokenizer: Any) -> SpecialTokens:
    # A template must not set once more what the tokenizer sets before every text.
    sets_bos = tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    template = tokenizer.chat_template
    return SpecialTokens(
        bos_token="" if sets_bos else tokenizer.bos_token or "",
        eos_token=tokenizer.eos_token or "",
        # Some have several by name.
        chat_template=template if isinstance(template, str) else (template or {}).get("default", ""),
    )


def check_vocabulary(folder: Path, config: Any) -> None:
    """Raises InvalidRequest if the tokenizer saved in `folder` is not that of the model.

    transformers 5 makes up a tokenizer of five tokens where the files of a real one are missing.
    """
    size = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size(with_added_tokens=True)
    if not config.vocab_size // 2 <= size <= config.vocab_size:
        raise _invalid(
            f"its tokenizer has {size} tokens, its model {config.vocab_size}: they do not belong together"
        )


def position_limit(config: Any) -> int:
    """Returns how many tokens the model can read, a large number where nothing limits it."""
    limit = getattr(config, "max_position_embeddings", None) or 0
    if limit <= 0:
        return 1 << 30
    # RoBERTa and its kin count positions from the padding id on.
    offset = config.pad_token_id + 1 if "roberta" in config.model_type or config.model_type in _OFFSET else 0
    return int(limit - offset)


_OFFSET = ("camembert", "mpnet", "longformer", "data2vec-text", "esm", "luke", "ibert")


def load_model(source: str, task: Task, facts: Facts) -> tuple[Any, list[str]]:
    """Returns the fp32 model with the task's head, and the weights beside the head that start fresh.

    A head of another shape is replaced. The head is initialised from torch's global seed.
    """
    model, missing, _ = _load(source, task, facts)
    # A model without a head, as that of vectors, is its own base model.
    below_head = "" if model.base_model is model else model.base_model_prefix + "."
    return model, [name for name in missing if name.startswith(below_head)]


def load_trained_model(source: str, task: Task, facts: Facts) -> Any:
    """Returns the fp32 model with the task's head as it was trained.

    Raises InvalidRequest if the base model has no such head, or one for other labels.
    """
    config = load_config(source)
    for name, wanted in task.config(facts).items():
        if (found := getattr(config, name, None)) not in (None, wanted):
            message = f"its config says {name} is {found}; the data and the task_spec make it {wanted}"
            raise InvalidRequest.field(_FIELD, message, reason="OTHER_HEAD")
    model, missing, mismatched = _load(source, task, facts)
    if fresh := [*missing, *mismatched]:
        message = f"it has no trained head for {task.id}: {fresh[0]} would start fresh; let it be trained"
        raise InvalidRequest.field(_FIELD, message, reason="NO_TRAINED_HEAD")
    return model


def _load(source: str, task: Task, facts: Facts) -> tuple[Any, list[str], list[str]]:
    """Returns the model and the weights that start fresh: those missing, and those of another shape."""
    with _translated(source):
        model, loading = model_class(task.auto_model).from_pretrained(
            source,
            **task.config(facts),
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    missing = sorted(name for name in loading["missing_keys"] if not name.startswith(_UNREAD))
    return model, missing, sorted(name for name, *_ in loading["mismatched_keys"])


# BERT's pooler, which feeds heads; in a model that has none nobody reads it.
_UNREAD = "pooler."


def input_names(model: Any, task: Task) -> list[str]:
    """Returns the task's inputs that this model takes (DistilBERT takes no token_type_ids)."""
    accepted = inspect.signature(model.forward).parameters
    return [spec.name for spec in task.inputs if spec.name in accepted]


def _downloaded(uri: str, scratch: Path) -> Path:
    storage.check_uri(uri, field=_FIELD)
    try:
        storage.download(uri, scratch)
    except (NotFound, NotReady) as error:
        raise _invalid(error.message) from error
    return _model_folder(scratch, uri)


def _model_folder(folder: Path, base_model: str) -> Path:
    if not (folder / "config.json").is_file():
        raise _invalid(f"the folder {base_model} has no config.json, so it holds no model")
    return folder


@contextmanager
def _translated(source: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        if _hub_unreachable(error):
            raise BackendUnavailable(
                f"the model hub did not answer for {source!r}, which is no folder here",
                reason="HUB_UNAVAILABLE",
                retry_seconds=10.0,
            ) from error
        raise _invalid(f"cannot load {source!r}: {_reason(error)}") from error


def _hub_unreachable(error: BaseException) -> bool:
    chain: BaseException | None = error
    while chain is not None:
        if isinstance(chain, OfflineModeIsEnabled):
            return False
        if isinstance(chain, ConnectionError | TimeoutError) or (
            isinstance(chain, LocalEntryNotFoundError) and not is_offline_mode()
        ):
            return True
        chain = chain.__cause__ or chain.__context__
    return False


def _reason(error: BaseException) -> str:
    if is_offline_mode() and isinstance(error.__cause__, LocalEntryNotFoundError | OfflineModeIsEnabled):
        return "it is no folder here, not in the cache, and HF_HUB_OFFLINE forbids to ask the hub"
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _invalid(description: str) -> InvalidRequest:
    return InvalidRequest.field(_FIELD, description, reason="UNREADABLE_BASE_MODEL")
