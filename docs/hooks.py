"""MkDocs hooks: pictures of results beside the pages that show them, and the sources of rmc_envs."""

from __future__ import annotations

import tempfile
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]


@event_priority(100)  # before mkdocstrings reads its configuration
def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Let mkdocstrings find the folder envs/ under the name that it is installed and imported by."""
    folder = Path(tempfile.mkdtemp(prefix="rmc-docs-"))
    (folder / "rmc_envs").symlink_to(ROOT / "envs", target_is_directory=True)
    config.plugins["mkdocstrings"].config["handlers"]["python"]["paths"] = [str(ROOT), str(folder)]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pictures of benchmarks/results/ as results/NAME.png: tables and pictures are stored once."""
    for path in sorted((ROOT / "benchmarks" / "results").glob("*.png")):
        files.append(File.generated(config, f"results/{path.name}", abs_src_path=str(path)))
    return files
