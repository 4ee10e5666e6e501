"""The files of the container image, which deploy/Dockerfile makes by this."""

import shutil
from pathlib import Path

from .common import Binary, licenses


def build(binary: Binary, notices: str, output: Path, work: Path) -> list[Path]:
    del work
    if not binary.is_linux:
        return []
    folder = output / 'image'
    shutil.rmtree(folder, ignore_errors=True)
    documents = folder / 'usr/share/doc/sidecache'
    documents.mkdir(parents=True)
    shutil.copyfile(binary.path, folder / 'sidecache')
    (folder / 'sidecache').chmod(0o755)
    for entry in licenses(notices):
        (documents / entry.name).write_bytes(entry.data)
    return [folder]
