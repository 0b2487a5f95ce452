"""Where prepared data lie; a batch is planned with it, so nothing slow is imported."""

import hashlib
from pathlib import Path

from lib.config import project_path


def prepared_folder(name: str, data_root: str | None, data_dir: str) -> Path:
    """Return where a data set is prepared: `data/<name>`, for `folder` one for each `data_root`.

    Raises:
        ValueError: If `folder` comes without `data_root`.
    """
    if name != "folder":
        return project_path(data_dir) / name
    if data_root is None:
        raise ValueError(
            "data_root: dataset 'folder' needs the folder of your videos "
            "(<class>/<video> or {train,val}/<class>/<video>)"
        )
    root = project_path(data_root)
    digest = hashlib.sha256(str(root).encode()).hexdigest()[:6]
    return project_path(data_dir) / f"folder-{root.name}-{digest}"


def is_prepared(folder: Path) -> bool:
    """Tell whether a folder holds a complete data set."""
    return (folder / "dataset.json").is_file()
