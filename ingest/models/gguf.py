"""GGUF files: reading them, and caching the built-in models as safetensors.

Reading a GGUF file takes half a minute or more. So the built-in models are read once and kept,
de-quantised to float32, in the user's cache (``CIRCUITS_CACHE``). A cache folder is complete when
it appears, because it is renamed; one process writes while others wait for it.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from platformdirs import user_cache_dir

from ingest.models.names import BuiltIn
from registry.errors import BadInput, NotFound, StorageError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["cache_folder", "kept_folder", "read_gguf"]

_LAYOUT = 1
"""Part of a kept model's folder name: increase it when the content written there changes."""

_log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Return the folder for data that can be recomputed: ``CIRCUITS_CACHE`` or the user's cache."""
    return Path(os.environ.get("CIRCUITS_CACHE") or user_cache_dir("circuit-registry")).expanduser()


def kept_folder(built_in: BuiltIn) -> Path:
    """Return the folder of a built-in model; the first time, read its GGUF file and write it.

    Raises:
        NotFound: The package with the weights is not installed.
        BadInput: The package has another file than the known one.
        StorageError: The cache cannot be written.
    """
    models = cache_folder() / "models"
    folder = models / f"{built_in.slug}-{built_in.version}-{_LAYOUT}"
    if folder.is_dir():
        return folder
    with _storage_errors(models):
        models.mkdir(parents=True, exist_ok=True)
        with FileLock(models / f".{folder.name}.lock"):
            if not folder.is_dir():
                _remove_leftovers(folder)
                _keep(built_in, folder)
    return folder


def read_gguf(file: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | None]:
    """Read a GGUF file as a float32 model with eager attention, and its tokenizer if present."""
    import transformers

    from ingest.models.fit import require_plausible_layers
    from ingest.models.leftovers import require_whole

    where: dict[str, Any] = {
        "pretrained_model_name_or_path": str(file.parent),
        "gguf_file": file.name,
        "local_files_only": True,
    }
    with _no_bars():
        # The configuration is passed on; otherwise each of the three calls would read it again.
        config = transformers.AutoConfig.from_pretrained(**where)
        require_plausible_layers(file.name, config.to_dict(), None)
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(**where, config=config)
        except Exception:
            if _has_tokenizer(file):
                raise
            tokenizer = None
        model, found = transformers.AutoModelForCausalLM.from_pretrained(
            **where,
            config=config,
            dtype="float32",
            attn_implementation="eager",
            quantization_config=transformers.GgufConfig(dequantize=True),
            output_loading_info=True,
        )
    # Its weights are now plain float32, but with a quantizer it cannot be saved.
    quantizer = getattr(model, "hf_quantizer", None)
    if quantizer is not None:
        quantizer.remove_quantization_config(model)
    require_whole(file.name, model, found)
    return model, tokenizer


def _keep(built_in: BuiltIn, folder: Path) -> None:
    """Write a built-in model to its folder, which appears only when it is complete."""
    with tempfile.TemporaryDirectory(
        dir=folder.parent, prefix=_prefix(folder), ignore_cleanup_errors=True
    ) as name:
        gguf = _gguf_of(built_in, Path(name))
        _log.info("reading %s for the first time; this takes a minute", built_in.slug)
        model, tokenizer = read_gguf(gguf)
        whole = Path(name) / "whole"
        model.save_pretrained(whole)
        if tokenizer is not None:
            tokenizer.save_pretrained(whole)
        whole.rename(folder)


def _prefix(folder: Path) -> str:
    return f".{folder.name}-"


def _remove_leftovers(folder: Path) -> None:
    """Remove the files of a killed process; the lock shows that no process is writing them."""
    for leftover in folder.parent.glob(f"{_prefix(folder)}*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _gguf_of(built_in: BuiltIn, scratch: Path) -> Path:
    """Find the GGUF file of a package, or join it in ``scratch`` if it comes in chunks."""
    try:
        files = metadata.distribution(built_in.package).files or []
        whole = next((file for file in files if file.suffix == ".gguf"), None)
        if whole is not None:
            gguf = Path(str(whole.locate()))
        else:
            chunks = importlib.import_module(built_in.package.replace("-", "_"))
            gguf = chunks.assemble(scratch / f"{built_in.slug}.gguf")
        if _sha256(gguf) == built_in.gguf_sha256:
            return gguf
    except (metadata.PackageNotFoundError, ModuleNotFoundError, FileNotFoundError) as error:
        raise NotFound(
            "model",
            built_in.slug,
            f"its weights are in a package that is not installed: {built_in.install}",
        ) from error
    raise BadInput(
        f"package {built_in.package!r} has other weights than those of {built_in.slug}: "
        f"{built_in.install}"
    )


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _has_tokenizer(file: Path) -> bool:
    import gguf

    return gguf.GGUFReader(file).get_field("tokenizer.ggml.tokens") is not None


@contextlib.contextmanager
def _no_bars() -> Iterator[None]:
    """Stop the GGUF reader from drawing progress bars, which transformers' switch does not do."""
    from transformers import modeling_gguf_pytorch_utils as reader

    original = reader.tqdm

    def without_bar(*args: Any, **options: Any) -> Any:
        return original(*args, **{**options, "disable": True})

    reader.tqdm = without_bar
    try:
        yield
    finally:
        reader.tqdm = original


@contextlib.contextmanager
def _storage_errors(folder: Path) -> Iterator[None]:
    from safetensors import SafetensorError

    try:
        yield
    except StorageError:
        raise
    except (OSError, SafetensorError) as error:
        raise StorageError(
            f"cannot write models to the cache {str(folder)!r}: {error}; "
            "free some space there or set CIRCUITS_CACHE to another folder"
        ) from error
