"""How sentence-transformers say that a model pools: modules.json names a folder with the settings."""

from __future__ import annotations

from quipu.convert.checkpoint import Checkpoint
from quipu.errors import ModelFileError, UnsupportedModelError
from quipu.types import Pooling

_MODES = {
    "pooling_mode_mean_tokens": Pooling.MEAN,
    "pooling_mode_cls_token": Pooling.CLS,
    "pooling_mode_lasttoken": Pooling.LAST,
}


def read_pooling(checkpoint: Checkpoint) -> Pooling | None:
    """The pooling of a sentence encoder; None where the folder does not say.

    Raises:
        ModelFileError: the settings are damaged or not there.
        UnsupportedModelError: it pools in a way that GGUF does not express.
    """
    path = checkpoint.folder / "modules.json"
    settings = checkpoint.list_settings("modules.json")
    folders = [module.text("path", "") for module in settings if module.text("type", "").endswith(".Pooling")]
    if not folders:
        return None
    child = checkpoint.child(folders[0])
    pooling = None if child is None else checkpoint.settings(child.name, "config.json")
    if pooling is None:
        raise ModelFileError(f"{path} names {folders[0]!r}, where no config.json is; fetch the whole model")
    modes = {name for name in pooling.values if name.startswith("pooling_mode_") and pooling.flag(name)}
    if len(modes) != 1 or not modes <= _MODES.keys():
        raise UnsupportedModelError(
            f"{pooling.path}: pooling by {', '.join(sorted(modes)) or 'nothing'} is not supported, only one of "
            f"{', '.join(_MODES)} is; use another model"
        )
    return _MODES[modes.pop()]
