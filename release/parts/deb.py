"""The package of Debian and its kin: binary, unit, first file, manual pages. It starts nothing by
itself. `dpkg-deb` is all it needs beside Python."""

import gzip
import hashlib
import shutil
from email.utils import formatdate
from pathlib import Path

from .archive import COMPLETIONS
from .common import FILES, LICENSE_FILES, NOTICES, SUMMARY, TOP, Binary, Entry, epoch, file, manuals, run

DOC = 'usr/share/doc/sidecache'
CONFFILES = ('etc/sidecache/proxy.toml',)
SCRIPTS = ('postinst', 'prerm', 'postrm')
COMPLETION_FOLDERS = {
    'bash': 'usr/share/bash-completion/completions/sidecache',
    'zsh': 'usr/share/zsh/vendor-completions/_sidecache',
    'fish': 'usr/share/fish/vendor_completions.d/sidecache.fish',
}
MAINTAINER = 'The Sidecache contributors <maintainers@sidecache.invalid>'


def build(binary: Binary, notices: str, output: Path, work: Path) -> list[Path]:
    if binary.platform.deb is None:
        return []
    root = work / 'deb'
    shutil.rmtree(root, ignore_errors=True)
    entries = [*system_files(binary, work), *documents(binary, notices)]
    for entry in entries:
        write(root, entry)
    sums = [f'{hashlib.md5(entry.data).hexdigest()}  {entry.name}' for entry in entries if entry.name not in CONFFILES]
    size = sum(-(-len(entry.data) // 1024) for entry in entries)
    for name, text, mode in (
        ('control', control(binary, size), 0o644),
        ('conffiles', ''.join(f'/{name}\n' for name in CONFFILES), 0o644),
        ('md5sums', '\n'.join(sums) + '\n', 0o644),
        *((name, file(f'deb/{name}'), 0o755) for name in SCRIPTS),
    ):
        write(root, Entry(f'DEBIAN/{name}', text.encode(), mode))
    for folder in [root, *(path for path in root.rglob('*') if path.is_dir())]:
        folder.chmod(0o755)
    path = output / f'sidecache_{debian_version(binary.version)}_{binary.platform.deb}.deb'
    command = ['dpkg-deb', '--root-owner-group', '-Zxz', '-z1', '--build', str(root), str(path)]
    run(command, env={'PATH': '/usr/bin:/bin', 'SOURCE_DATE_EPOCH': str(epoch())})
    return [path]


def debian_version(version: str) -> str:
    """`1.2.0-rc.1` sorts before `1.2.0` with a tilde."""
    return version.replace('-', '~')


def system_files(binary: Binary, work: Path) -> list[Entry]:
    """What the system uses: the binary, its unit, the rules, manual pages and completions."""
    return [
        Entry('usr/bin/sidecache', binary.path.read_bytes(), 0o755),
        *units('usr/lib/systemd/system'),
        Entry('etc/sidecache/proxy.toml', (TOP / 'deploy/systemd/proxy.toml').read_bytes()),
        *(Entry(f'usr/share/man/man1/{page.name}.gz', compress(page.data)) for page in manuals(binary, work / 'man')),
        *(
            Entry(COMPLETION_FOLDERS[shell], binary.output('completions', shell).encode())
            for shell in COMPLETIONS
        ),
    ]


def units(folder: str) -> list[Entry]:
    """The units of deploy/systemd, with the place where a package puts the binary."""
    found = []
    for name in ('sidecache.service', 'sidecache.socket'):
        text = (TOP / 'deploy/systemd' / name).read_text()
        text = text.replace('/usr/local/bin/', '/usr/bin/').replace('/etc/systemd/system/', f'/{folder}/')
        text = text.replace('deploy/README.md has the commands that install it.', f'/{DOC}/README.Debian has the first steps.')
        found.append(Entry(f'{folder}/{name}', text.encode()))
    return found


def documents(binary: Binary, notices: str) -> list[Entry]:
    own = '\n'.join((TOP / name).read_text() for name in LICENSE_FILES)
    changes = file('deb/changelog').format(
        version=debian_version(binary.version), maintainer=MAINTAINER, date=formatdate(epoch())
    )
    return [
        Entry(f'{DOC}/copyright', (file('deb/copyright') + '\n' + own).encode()),
        Entry(f'{DOC}/{NOTICES}.gz', compress(notices.encode())),
        *(Entry(f'{DOC}/{name}', (TOP / name).read_bytes()) for name in LICENSE_FILES),
        Entry(f'{DOC}/NEWS.md.gz', compress((TOP / 'CHANGELOG.md').read_bytes())),
        Entry(f'{DOC}/changelog.gz', compress(changes.encode())),
        Entry(f'{DOC}/README.Debian', (FILES / 'deb/README.Debian').read_bytes()),
        Entry(f'{DOC}/examples/proxy.toml', (TOP / 'proxy.toml').read_bytes()),
    ]


def compress(data: bytes) -> bytes:
    return gzip.compress(data, 9, mtime=0)


def control(binary: Binary, size: int) -> str:
    fields = {
        'Package': 'sidecache',
        'Version': debian_version(binary.version),
        'Architecture': binary.platform.deb,
        'Maintainer': MAINTAINER,
        'Installed-Size': size,
        # The authorities that certify apps and Redis servers with TLS.
        'Recommends': 'ca-certificates',
        'Suggests': 'redis-server',
        'Section': 'httpd',
        'Priority': 'optional',
        'Description': f'{SUMMARY[2:3].upper()}{SUMMARY[3:]}',
    }
    head = '\n'.join(f'{name}: {value}' for name, value in fields.items())
    return f'{head}\n{file("deb/description")}'


def write(root: Path, entry: Entry) -> None:
    path = root / entry.name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(entry.data)
    path.chmod(entry.mode)
