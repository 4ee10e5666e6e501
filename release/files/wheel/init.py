"""Sidecache, a caching sidecar. The command is `sidecache`; `find()` gives its path."""

import os
import sysconfig


def find() -> str:
    """The path of the binary that this package has brought.

    Raises FileNotFoundError if it is not where the installer puts commands.
    """
    schemes = [None]
    if hasattr(sysconfig, 'get_preferred_scheme'):  # Python 3.10
        schemes.append(sysconfig.get_preferred_scheme('user'))
    folders = [sysconfig.get_path('scripts', scheme) if scheme else sysconfig.get_path('scripts') for scheme in schemes]
    # `pip install --target FOLDER` puts commands into FOLDER/bin.
    folders.append(os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'bin'))
    paths = [os.path.join(folder, 'sidecache') for folder in folders]
    for path in paths:
        if os.path.isfile(path):
            return path
    raise FileNotFoundError('sidecache is in none of: ' + ', '.join(paths))
