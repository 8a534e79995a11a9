"""Check that a built wheel holds the `m4m` command and the files that are not Python."""

from __future__ import annotations

import sys
import zipfile

DATASETS = "m4m_jax/datasets"
WANTED = (
    f"{DATASETS}/bach_chorales/README.md",
    f"{DATASETS}/bach_chorales/CITATIONS.bib",
    f"{DATASETS}/bach_chorales/TAGS.txt",
    f"{DATASETS}/nottingham/README.md",
    f"{DATASETS}/nottingham/CITATIONS.bib",
    f"{DATASETS}/nottingham/TAGS.txt",
    f"{DATASETS}/midi_folder/README.md",
    f"{DATASETS}/midi_folder/TAGS.txt",
    "m4m_jax/cli/__init__.py",
    "m4m_jax/evaluation/page/page.css",
    "m4m_jax/evaluation/page/page.html",
    "m4m_jax/evaluation/page/page.js",
)


def main(path: str) -> None:
    """Fail where the wheel at `path` lacks something, or holds what is no part of it."""
    with zipfile.ZipFile(path) as wheel:
        names = set(wheel.namelist())
        scripts = [wheel.read(n).decode() for n in names if n.endswith("entry_points.txt")]
    missing = [name for name in WANTED if name not in names]
    strangers = {n.split("/")[0] for n in names if not n.startswith("m4m_jax")}
    if missing or strangers or "m4m = m4m_jax.cli:main" not in "".join(scripts):
        sys.exit(f"{path}: missing {missing}, beside the package {strangers}, scripts {scripts}")
    print(f"{path}: {len(names)} files, nothing missing")


if __name__ == "__main__":
    main(sys.argv[1])
