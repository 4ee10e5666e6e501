"""THIRD-PARTY.txt: the name, version and licence of everything that is in the binary, and the texts
of those licences. What only builds or tests it is left out."""

import json
from collections import defaultdict
from pathlib import Path

from .common import TOP, Unusable, file, run

# Crates put the texts of what they bundle (jemalloc, BoringSSL) one or two folders below.
PATTERNS = ('LICEN[CS]E*', 'COPYING*', 'COPYRIGHT*', 'NOTICE*', 'UNLICENSE*')
DEPTHS = ('', '*/', '*/*/')
# Texts of what a crate carries for its own tests and tools, and sources in files of such names.
SKIPPED = {'tests', 'test', 'benches', 'examples', 'fuzz', 'doc', 'docs', 'tools', 'ci', 'scripts'}
SOURCES = {'.rs', '.c', '.h', '.py', '.go', '.js', '.toml'}
RULE = '=' * 100


def notices(target: str) -> str:
    """The whole text, for the binary of one target. Cargo fetches the sources that it does not have."""
    crates = in_the_binary(target)
    texts = defaultdict(list)
    rows, without = [], []
    for crate in crates:
        name = f'{crate["name"]} {crate["version"]}'
        rows.append(f'{name:<44} {license_of(crate)}')
        found = texts_of(Path(crate['manifest_path']).parent)
        if not found:
            without.append(name)
        for text in found:
            texts[text].append(name)
    parts = [file('third-party.txt').strip(), '\n'.join(rows)]
    if without:
        parts.append('Without a text of their own:\n' + '\n'.join(f'  {name}' for name in without))
    if target.endswith('-linux-gnu'):
        parts.append(RULE + '\n' + file('glibc.txt').strip())
        parts.append(RULE + '\n' + file('LGPL-2.1.txt').strip())
    for text, names in sorted(texts.items(), key=lambda item: item[1]):
        parts.append(f'{RULE}\n{", ".join(names)}\n\n{text}')
    return '\n\n'.join(parts) + '\n'


def in_the_binary(target: str) -> list[dict]:
    """The packages on which the binary depends, other than for its build and its tests."""
    command = ['cargo', 'metadata', '--format-version=1', '--locked']
    whole = json.loads(run([*command, '--filter-platform', target], cwd=TOP))
    packages = {package['id']: package for package in whole['packages']}
    nodes = {node['id']: node for node in whole['resolve']['nodes']}
    seen, waiting = set(), [whole['resolve']['root']]
    while waiting:
        for dependency in nodes[waiting.pop()]['deps']:
            is_normal = any(kind['kind'] is None for kind in dependency['dep_kinds'])
            if is_normal and dependency['pkg'] not in seen:
                seen.add(dependency['pkg'])
                waiting.append(dependency['pkg'])
    seen.discard(whole['resolve']['root'])
    return sorted((packages[key] for key in seen), key=lambda crate: (crate['name'], crate['version']))


def license_of(crate: dict) -> str:
    found = crate['license'] or crate['license_file']
    if not found:
        raise Unusable(f'{crate["name"]} {crate["version"]} names no licence: it must not be shipped')
    return found.replace('/', ' OR ') if crate['license'] and ' ' not in found else found


def texts_of(folder: Path) -> list[str]:
    found = {}
    for depth in DEPTHS:
        for pattern in PATTERNS:
            for path in folder.glob(depth + pattern):
                inner = path.relative_to(folder).parts[:-1]
                if path.is_file() and path.suffix not in SOURCES and not SKIPPED & set(inner):
                    text = path.read_text(encoding='utf-8', errors='replace')
                    lines = [line.rstrip() for line in text.strip().splitlines()]
                    found['\n'.join(lines)] = path
    return sorted(found, key=lambda text: str(found[text]))
