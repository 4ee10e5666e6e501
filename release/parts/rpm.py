"""The package of Fedora, RHEL, SUSE and their kin: what the package of Debian has, in their places.
It starts nothing by itself. `rpmbuild` makes it."""

import os
import shutil
from pathlib import Path

from .archive import COMPLETIONS
from .common import FILES, LICENSE, LICENSE_FILES, NOTICES, SUMMARY, TOP, Binary, Entry, Unusable, epoch, file, manuals, run
from .deb import compress, units, write

DOC = 'usr/share/doc/sidecache'
LICENSES = 'usr/share/licenses/sidecache'
CONFIG = 'etc/sidecache/proxy.toml'
# Folders that are the package's own.
FOLDERS = ('etc/sidecache', DOC, f'{DOC}/examples', LICENSES)
COMPLETION_FOLDERS = {
    'bash': 'usr/share/bash-completion/completions/sidecache',
    'zsh': 'usr/share/zsh/site-functions/_sidecache',
    'fish': 'usr/share/fish/vendor_completions.d/sidecache.fish',
}
# The same bytes for the same binary, whoever packs it and wherever; nothing is stripped or changed.
SETTINGS = {
    '_build_id_links': 'none',
    '__os_install_post': '%{nil}',
    '__spec_install_post': '%{nil}',
    'debug_package': '%{nil}',
    '_buildhost': 'sidecache',
    'use_source_date_epoch_as_buildtime': '1',
    'clamp_mtime_to_source_date_epoch': '1',
    '_binary_payload': 'w6.gzdio',
    '_target_os': 'linux',
}


def build(binary: Binary, notices: str, output: Path, work: Path) -> list[Path]:
    arch = binary.platform.rpm
    if arch is None:
        return []
    if shutil.which('rpmbuild') is None:
        raise Unusable('rpmbuild is not there; Debian has it in its package `rpm`. Or name the other kinds with --only')
    root, top = work / 'rpm/root', work / 'rpm/top'
    shutil.rmtree(work / 'rpm', ignore_errors=True)
    entries = files(binary, notices, work)
    for entry in entries:
        write(root, entry)
        os.utime(root / entry.name, (epoch(), epoch()))
    spec = work / 'rpm/sidecache.spec'
    spec.write_text(spec_of(binary, arch, entries))
    defined = {**SETTINGS, '_topdir': top.resolve(), '_rpmdir': top.resolve(), '_rpmfilename': 'made.rpm'}
    flags = [part for name, value in defined.items() for part in ('--define', f'{name} {value}')]
    command = ['rpmbuild', '-bb', '--quiet', '--target', arch, '--buildroot', str(root.resolve()), *flags, str(spec)]
    run(command, env={'PATH': '/usr/bin:/bin', 'HOME': str(work), 'SOURCE_DATE_EPOCH': str(epoch())})
    path = output / f'sidecache-{rpm_version(binary.version)}-1.{arch}.rpm'
    shutil.move(top / 'made.rpm', path)
    return [path]


def rpm_version(version: str) -> str:
    """`1.2.0-rc.1` sorts before `1.2.0` with a tilde."""
    return version.replace('-', '~')


def files(binary: Binary, notices: str, work: Path) -> list[Entry]:
    return [
        Entry('usr/bin/sidecache', binary.path.read_bytes(), 0o755),
        *(
            Entry(unit.name, unit.data.replace(b'README.Debian', b'README.rpm'))
            for unit in units('usr/lib/systemd/system')
        ),
        Entry(CONFIG, (TOP / 'deploy/systemd/proxy.toml').read_bytes()),
        *(Entry(f'usr/share/man/man1/{page.name}.gz', compress(page.data)) for page in manuals(binary, work / 'man')),
        *(Entry(COMPLETION_FOLDERS[shell], binary.output('completions', shell).encode()) for shell in COMPLETIONS),
        *(Entry(f'{LICENSES}/{name}', (TOP / name).read_bytes()) for name in LICENSE_FILES),
        Entry(f'{LICENSES}/{NOTICES}', notices.encode()),
        Entry(f'{DOC}/CHANGELOG.md', (TOP / 'CHANGELOG.md').read_bytes()),
        Entry(f'{DOC}/README.rpm', (FILES / 'rpm/README.rpm').read_bytes()),
        Entry(f'{DOC}/examples/proxy.toml', (TOP / 'proxy.toml').read_bytes()),
    ]


def spec_of(binary: Binary, arch: str, entries: list[Entry]) -> str:
    texts = {name: file(f'rpm/{name}') for name in ('post', 'preun', 'postun', 'description')}
    return file('rpm/sidecache.spec').format(
        version=rpm_version(binary.version),
        summary=f'{SUMMARY[2:3].upper()}{SUMMARY[3:]}',
        license=LICENSE.replace(' OR ', ' or '),
        arch=arch,
        files='\n'.join([*(f'%dir %attr(0755, root, root) /{folder}' for folder in FOLDERS), *map(listed, entries)]),
        **texts,
    )


def listed(entry: Entry) -> str:
    """A line of the list of files: what may be edited stays as it is at an upgrade."""
    if entry.name == CONFIG:
        kind = '%config(noreplace) '
    elif entry.name.startswith(LICENSES):
        kind = '%license '
    else:
        kind = '%doc ' if entry.name.startswith((DOC, 'usr/share/man')) else ''
    return f'{kind}%attr({entry.mode:04o}, root, root) /{entry.name}'
