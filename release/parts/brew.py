"""The formula of Homebrew, which installs the archive of each platform. It is made of the archives
that are there; a platform without one is not in it."""

import hashlib
from pathlib import Path

from .common import PLATFORMS, SUMMARY, Binary, Unusable, file, version_of_package

NAME = 'sidecache.rb'
SYSTEMS = {'darwin': 'macos', 'linux': 'linux'}
PROCESSORS = {'arm64': 'arm', 'x64': 'intel'}


def build(binary: Binary, notices: str, output: Path, work: Path) -> list[Path]:
    """A formula for this machine: it installs the archive of the folder."""
    del notices, work
    return [write(output, binary.version, output.resolve().as_uri())]


def of_release(folder: Path, repository: str) -> Path:
    """The formula for a tap: it fetches the archives of the release from the repository."""
    version = version_of_package()
    return write(folder, version, f'{repository}/releases/download/v{version}', repository)


def write(folder: Path, version: str, source: str, homepage: str | None = None) -> Path:
    archives = {target: folder / f'sidecache-{version}-{target}.tar.gz' for target in PLATFORMS}
    there = {target: archive for target, archive in archives.items() if archive.is_file()}
    if not there:
        raise Unusable(f'{folder} has no archive of version {version}, of which a formula is made')
    parts = {
        'summary': f'{SUMMARY[2:3].upper()}{SUMMARY[3:]}',
        'homepage': f'  homepage "{homepage}"\n' if homepage else '',
        'version': version,
        'platforms': ''.join(systems(there, source)),
    }
    text = file(f'brew/{NAME}')
    for name, value in parts.items():
        text = text.replace('{{' + name + '}}', value)
    path = folder / NAME
    path.write_text(text)
    return path


def systems(archives: dict[str, Path], source: str) -> list[str]:
    """A block for each system, and in it one for each processor."""
    blocks = []
    for npm_os, system in SYSTEMS.items():
        found = {
            PROCESSORS[PLATFORMS[target].npm_cpu]: archive
            for target, archive in archives.items()
            if PLATFORMS[target].npm_os == npm_os
        }
        if found:
            inner = ''.join(processor(name, found[name], source) for name in sorted(found))
            blocks.append(f'  on_{system} do\n{inner}  end\n')
    return blocks


def processor(name: str, archive: Path, source: str) -> str:
    return (
        f'    on_{name} do\n'
        f'      url "{source}/{archive.name}"\n'
        f'      sha256 "{hashlib.sha256(archive.read_bytes()).hexdigest()}"\n'
        '    end\n'
    )
