"""The Helm chart, with the version of the package. In a release it names the image of that release
as well, by $SIDECACHE_IMAGE."""

import os
from pathlib import Path

from .common import LICENSE_FILES, TOP, Binary, Entry, Unusable, tar_gz

SOURCE = TOP / 'deploy/helm/sidecache'


def build(binary: Binary, notices: str, output: Path, work: Path) -> list[Path]:
    del notices, work
    files = {path.relative_to(SOURCE).as_posix(): path.read_text() for path in sorted(SOURCE.rglob('*')) if path.is_file()}
    fill_in(files, 'Chart.yaml', '\nversion: 0.0.0\n', f'\nversion: {binary.version}\n')
    fill_in(files, 'Chart.yaml', '\nappVersion: "0.0.0"\n', f'\nappVersion: "{binary.version}"\n')
    image = os.environ.get('SIDECACHE_IMAGE')
    if image:
        # Names of images have no capitals; those of owners may.
        fill_in(files, 'values.yaml', '\n  repository: ""\n', f'\n  repository: {image.lower()}\n')
    entries = [Entry(f'sidecache/{name}', text.encode()) for name, text in files.items()]
    own = [Entry(f'sidecache/{name}', (TOP / name).read_bytes()) for name in LICENSE_FILES]
    # `sidecache-VERSION.tgz` is the package of npm.
    path = output / f'sidecache-chart-{binary.version}.tgz'
    path.write_bytes(tar_gz([*entries, *own]))
    return [path]


def fill_in(files: dict[str, str], name: str, before: str, after: str) -> None:
    if files[name].count(before) != 1:
        raise Unusable(f'{SOURCE / name} has to have one line {before.strip()}')
    files[name] = files[name].replace(before, after)
