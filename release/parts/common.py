"""The binary that is packed, what it says of itself, and the files that every package carries."""

import gzip
import io
import json
import os
import re
import struct
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
FILES = TOP / 'release' / 'files'
SUMMARY = 'A caching sidecar: makes a legacy web app fast without ever making it wrong'
LICENSE = 'MIT OR Apache-2.0'
LICENSE_FILES = ('LICENSE-MIT', 'LICENSE-APACHE')
NOTICES = 'THIRD-PARTY.txt'


class Unusable(Exception):
    """What is given cannot be packed; the text says what to do."""


@dataclass(frozen=True)
class Platform:
    """How each kind of package calls one target."""

    npm_os: str
    npm_cpu: str
    wheel: str
    deb: str | None = None
    rpm: str | None = None

    @property
    def npm(self) -> str:
        return f'{self.npm_os}-{self.npm_cpu}'


# A static binary asks nothing of the C library: it runs where wheels of either tag are installed.
LINUX_WHEEL = 'manylinux_2_17_{0}.manylinux2014_{0}.musllinux_1_1_{0}'
PLATFORMS = {
    'x86_64-unknown-linux-gnu': Platform('linux', 'x64', LINUX_WHEEL.format('x86_64'), 'amd64', 'x86_64'),
    'aarch64-unknown-linux-gnu': Platform('linux', 'arm64', LINUX_WHEEL.format('aarch64'), 'arm64', 'aarch64'),
    'x86_64-apple-darwin': Platform('darwin', 'x64', 'macosx_10_12_x86_64'),
    'aarch64-apple-darwin': Platform('darwin', 'arm64', 'macosx_11_0_arm64'),
}


@dataclass(frozen=True)
class Binary:
    """A binary that was looked at, and may be packed."""

    path: Path
    version: str
    target: str

    @property
    def platform(self) -> Platform:
        return PLATFORMS[self.target]

    @property
    def is_linux(self) -> bool:
        return self.platform.npm_os == 'linux'

    def output(self, *arguments: str) -> str:
        return run([str(self.path), *arguments])


def run(command: list[str], **options) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    if done.returncode != 0:
        raise Unusable(f'{command[0]} failed with {done.returncode}: {done.stderr.strip()}')
    return done.stdout


def look_at(path: Path) -> Binary:
    """Refuses what must not ship: another version, a debug build, a binary that needs libraries."""
    if not path.is_file():
        raise Unusable(f'{path} is not there; release/build makes it')
    told = json.loads(run([str(path.resolve()), 'version', '--json']))
    found = Binary(path.resolve(), told['version'], told['target'])
    wanted = version_of_package()
    if found.version != wanted:
        raise Unusable(f'{path} is version {found.version}; Cargo.toml says {wanted}')
    if told['profile'] != 'release':
        raise Unusable(f'{path} is a build of profile {told["profile"]}; release/build makes one that ships')
    if found.target not in PLATFORMS:
        raise Unusable(f'{found.target} has no packages; allowed: {", ".join(PLATFORMS)}')
    if found.is_linux and needs_libraries(path):
        raise Unusable(f'{path} needs shared libraries of this machine; release/build makes a static one')
    return found


def version_of_package() -> str:
    text = (TOP / 'Cargo.toml').read_text()
    found = re.search(r'^version = "([^"]+)"$', text, re.MULTILINE)
    if not found:
        raise Unusable('Cargo.toml names no version')
    return found.group(1)


def python_version(version: str) -> str:
    """SemVer's `1.2.0-rc.1` as Python writes it (PEP 440): `1.2.0rc1`."""
    numbers, _, pre = version.partition('-')
    if not pre:
        return numbers
    found = re.fullmatch(r'(alpha|beta|rc)\.(\d+)', pre)
    if not found:
        raise Unusable(f'version {version}: allowed before a release are -alpha.N, -beta.N and -rc.N')
    return numbers + {'alpha': 'a', 'beta': 'b', 'rc': 'rc'}[found.group(1)] + found.group(2)


def needs_libraries(path: Path) -> bool:
    """Whether an ELF file of 64 bits names a loader (PT_INTERP), as all that needs libraries do."""
    data = path.read_bytes()
    if data[:5] != b'\x7fELF\x02':
        raise Unusable(f'{path} is no ELF file of 64 bits')
    start, = struct.unpack_from('<Q', data, 32)
    size, count = struct.unpack_from('<HH', data, 54)
    kinds = {struct.unpack_from('<I', data, start + at * size)[0] for at in range(count)}
    return 3 in kinds


def epoch() -> int:
    """The time of all files in packages, in seconds: that of the commit, so that two builds of one
    commit are the same bytes. $SOURCE_DATE_EPOCH goes first, as packagers expect."""
    given = os.environ.get('SOURCE_DATE_EPOCH')
    if given:
        return int(given)
    try:
        return int(run(['git', 'log', '-1', '--format=%ct'], cwd=TOP))
    except (OSError, ValueError, Unusable):
        return 946_684_800  # 2000-01-01: zip archives know no time before 1980.


@dataclass(frozen=True)
class Entry:
    """A file of an archive."""

    name: str
    data: bytes
    mode: int = 0o644


def tar_gz(entries: list[Entry]) -> bytes:
    """A compressed archive whose bytes depend on its entries and on `epoch` alone. Folders come
    before what is in them, owned by root."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode='w', format=tarfile.GNU_FORMAT) as archive:
        for folder in folders_of(entries):
            archive.addfile(header(folder, 0o755, tarfile.DIRTYPE))
        for entry in entries:
            info = header(entry.name, entry.mode, tarfile.REGTYPE)
            info.size = len(entry.data)
            archive.addfile(info, io.BytesIO(entry.data))
    return gzip.compress(raw.getvalue(), 6, mtime=0)


def folders_of(entries: list[Entry]) -> list[str]:
    parents = {str(parent) for entry in entries for parent in Path(entry.name).parents}
    return sorted(parents - {'.'})


def header(name: str, mode: int, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.mode, info.type, info.mtime = mode, kind, epoch()
    info.uname = info.gname = 'root'
    return info


def licenses(notices: str) -> list[Entry]:
    """The licences of Sidecache, and those of what is in it."""
    own = [Entry(name, (TOP / name).read_bytes()) for name in LICENSE_FILES]
    return [*own, Entry(NOTICES, notices.encode())]


def manuals(binary: Binary, folder: Path) -> list[Entry]:
    """The manual pages of all commands, as the binary writes them."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    binary.output('man', '--write', str(folder))
    return [Entry(page.name, page.read_bytes()) for page in sorted(folder.iterdir())]


def file(name: str) -> str:
    """A text of release/files."""
    return (FILES / name).read_text()
