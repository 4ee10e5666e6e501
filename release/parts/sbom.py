"""The bill of materials: CycloneDX 1.5 in JSON, with what is in the binary, each with its licence
and the hash that Cargo.lock has of its archive. Scanners read it."""

import json
import re
import uuid
from datetime import datetime, timezone
from pathlib import Path

from .common import LICENSE, TOP, Binary, epoch
from .notices import in_the_binary, license_of


def build(binary: Binary, notices: str, output: Path, work: Path) -> list[Path]:
    del notices, work
    path = output / f'sidecache-{binary.version}-{binary.target}.cdx.json'
    path.write_text(json.dumps(document(binary), indent=1, sort_keys=True) + '\n')
    return [path]


def document(binary: Binary) -> dict:
    name = f'sidecache {binary.version} {binary.target}'
    sums = checksums((TOP / 'Cargo.lock').read_text())
    return {
        'bomFormat': 'CycloneDX',
        'specVersion': '1.5',
        'serialNumber': f'urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, name)}',
        'version': 1,
        'metadata': {
            'timestamp': datetime.fromtimestamp(epoch(), timezone.utc).strftime('%Y-%m-%dT%H:%M:%SZ'),
            'component': component('application', 'sidecache', binary.version, LICENSE, None),
        },
        'components': [
            component('library', crate['name'], crate['version'], license_of(crate), sums)
            for crate in in_the_binary(binary.target)
        ],
    }


def component(kind: str, name: str, version: str, terms: str, sums: dict | None) -> dict:
    found = {
        'type': kind,
        'name': name,
        'version': version,
        'bom-ref': f'{name}@{version}',
        'licenses': [{'expression': terms}],
    }
    if sums is not None:
        found['purl'] = f'pkg:cargo/{name}@{version.replace("+", "%2B")}'
        found['hashes'] = [{'alg': 'SHA-256', 'content': sums[name, version]}]
    return found


def checksums(lock: str) -> dict[tuple[str, str], str]:
    pattern = r'^name = "(.+)"\nversion = "(.+)"\nsource = .+\nchecksum = "([0-9a-f]{64})"$'
    return {(name, version): value for name, version, value in re.findall(pattern, lock, re.MULTILINE)}
