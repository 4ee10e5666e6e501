"""The archive: the binary with its licences, manual pages, completions and a first file. And what
deploy/Dockerfile puts into an image, for the same binary."""

from pathlib import Path

from .common import TOP, Binary, Entry, licenses, manuals, tar_gz

COMPLETIONS = {'bash': 'sidecache.bash', 'zsh': '_sidecache', 'fish': 'sidecache.fish'}


def build(binary: Binary, notices: str, output: Path, work: Path) -> list[Path]:
    top = f'sidecache-{binary.version}-{binary.target}'
    entries = [
        Entry('sidecache', binary.path.read_bytes(), 0o755),
        *licenses(notices),
        Entry('CHANGELOG.md', (TOP / 'CHANGELOG.md').read_bytes()),
        # Not beside the binary: there `init` could not write one, and `sidecache` would serve it.
        Entry('examples/proxy.toml', (TOP / 'proxy.toml').read_bytes()),
        *(Entry(f'man/man1/{page.name}', page.data) for page in manuals(binary, work / 'man')),
        *completions(binary, 'completions'),
    ]
    entries = [Entry(f'{top}/{entry.name}', entry.data, entry.mode) for entry in entries]
    path = output / f'{top}.tar.gz'
    path.write_bytes(tar_gz(entries))
    return [path]


def completions(binary: Binary, folder: str) -> list[Entry]:
    return [
        Entry(f'{folder}/{name}', binary.output('completions', shell).encode())
        for shell, name in COMPLETIONS.items()
    ]
