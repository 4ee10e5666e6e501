"""The wheel: `pip install sidecache` puts the binary where pip puts commands. No line of Python is
between the caller and the binary; `python -m sidecache` is for where that folder is not on PATH."""

import base64
import hashlib
import zipfile
from datetime import datetime, timezone
from pathlib import Path

from .common import LICENSE, LICENSE_FILES, NOTICES, SUMMARY, Binary, Entry, epoch, file, licenses, python_version

KEYWORDS = 'cache,proxy,http,sidecar,redis'
CLASSIFIERS = (
    'Environment :: Console',
    'Intended Audience :: System Administrators',
    'Operating System :: MacOS',
    'Operating System :: POSIX :: Linux',
    'Programming Language :: Rust',
    'Topic :: Internet :: Proxy Servers',
)


def build(binary: Binary, notices: str, output: Path, work: Path) -> list[Path]:
    del work
    version = python_version(binary.version)
    stem = f'sidecache-{version}'
    tag = f'py3-none-{binary.platform.wheel}'
    info = f'{stem}.dist-info'
    entries = [
        Entry('sidecache/__init__.py', file('wheel/init.py').encode()),
        Entry('sidecache/__main__.py', file('wheel/main.py').encode()),
        Entry(f'{stem}.data/scripts/sidecache', binary.path.read_bytes(), 0o755),
        *(Entry(f'{info}/licenses/{entry.name}', entry.data) for entry in licenses(notices)),
        Entry(f'{info}/METADATA', metadata(version).encode()),
        Entry(f'{info}/WHEEL', wheel(tag).encode()),
    ]
    record = f'{info}/RECORD'
    lines = [f'{entry.name},sha256={digest(entry.data)},{len(entry.data)}' for entry in entries]
    entries.append(Entry(record, '\n'.join([*lines, f'{record},,', '']).encode()))
    path = output / f'{stem}-{tag}.whl'
    write(path, entries)
    return [path]


def metadata(version: str) -> str:
    fields = [
        ('Metadata-Version', '2.4'),
        ('Name', 'sidecache'),
        ('Version', version),
        ('Summary', SUMMARY),
        ('Keywords', KEYWORDS),
        ('License-Expression', LICENSE),
        *(('License-File', name) for name in (*LICENSE_FILES, NOTICES)),
        *(('Classifier', name) for name in CLASSIFIERS),
        ('Requires-Python', '>=3.8'),
        ('Description-Content-Type', 'text/markdown'),
    ]
    head = '\n'.join(f'{name}: {value}' for name, value in fields)
    return f'{head}\n\n{file("about.md").replace("{install}", "pip install sidecache")}'


def wheel(tag: str) -> str:
    python, abi, platforms = tag.split('-')
    tags = [f'Tag: {python}-{abi}-{platform}' for platform in platforms.split('.')]
    return '\n'.join(['Wheel-Version: 1.0', 'Generator: sidecache-release', 'Root-Is-Purelib: false', *tags, ''])


def digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()


def write(path: Path, entries: list[Entry]) -> None:
    when = datetime.fromtimestamp(epoch(), timezone.utc).timetuple()[:6]
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for entry in entries:
            info = zipfile.ZipInfo(entry.name, when)
            info.create_system = 3  # Unix, so that the mode counts.
            info.external_attr = (0o100000 | entry.mode) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, entry.data)
