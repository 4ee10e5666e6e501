"""The packages of npm: `sidecache` has the command, and one package for each platform its binary.
npm installs the one that fits (`optionalDependencies` with `os` and `cpu`); no script runs at
installation, and nothing is downloaded past the registry."""

import json
from pathlib import Path

from .common import LICENSE, LICENSE_FILES, NOTICES, PLATFORMS, SUMMARY, Binary, Entry, file, licenses, tar_gz

KEYWORDS = ['cache', 'proxy', 'http', 'sidecar', 'redis']


def build(binary: Binary, notices: str, output: Path, work: Path) -> list[Path]:
    del work
    return [main(binary.version, notices, output), platform(binary, notices, output)]


def platform_alone(binary: Binary, notices: str, output: Path, work: Path) -> list[Path]:
    del work
    return [platform(binary, notices, output)]


def name_of(platform_name: str) -> str:
    return f'@sidecache/{platform_name}'


def main(version: str, notices: str, output: Path) -> Path:
    """The package that people install. It is the same whatever the platform of the binary is."""
    manifest = {
        **common('sidecache', version, SUMMARY),
        'keywords': KEYWORDS,
        'bin': {'sidecache': 'sidecache.js'},
        'files': ['sidecache.js', *LICENSE_FILES],
        'engines': {'node': '>=18'},
        'optionalDependencies': {name_of(each.npm): version for each in PLATFORMS.values()},
    }
    about = file('about.md').replace('{install}', 'npm install --global sidecache')
    own = [entry for entry in licenses(notices) if entry.name != NOTICES]
    entries = [
        Entry('package.json', encode(manifest)),
        Entry('README.md', about.replace('in the\npackage', 'in the package').encode()),
        Entry('sidecache.js', file('npm/sidecache.js').encode(), 0o755),
        *own,
    ]
    return pack(output / f'sidecache-{version}.tgz', entries)


def platform(binary: Binary, notices: str, output: Path) -> Path:
    """The package with the binary of one platform."""
    where = binary.platform
    summary = f'The binary of Sidecache for {where.npm_os} on {where.npm_cpu}; install `sidecache`'
    manifest = {
        **common(name_of(where.npm), binary.version, summary),
        'os': [where.npm_os],
        'cpu': [where.npm_cpu],
        'files': ['sidecache', *LICENSE_FILES, NOTICES],
        # pnpm and Yarn leave binaries in archives otherwise.
        'preferUnplugged': True,
    }
    entries = [
        Entry('package.json', encode(manifest)),
        Entry('README.md', f'{summary}.\n'.encode()),
        Entry('sidecache', binary.path.read_bytes(), 0o755),
        *licenses(notices),
    ]
    return pack(output / f'sidecache-{where.npm}-{binary.version}.tgz', entries)


def common(name: str, version: str, description: str) -> dict:
    return {'name': name, 'version': version, 'description': description, 'license': LICENSE}


def encode(manifest: dict) -> bytes:
    return (json.dumps(manifest, indent=2) + '\n').encode()


def pack(path: Path, entries: list[Entry]) -> Path:
    path.write_bytes(tar_gz([Entry(f'package/{entry.name}', entry.data, entry.mode) for entry in entries]))
    return path
