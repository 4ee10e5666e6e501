"""`python -m sidecache`: becomes the binary, with the same arguments."""

import os
import sys

from sidecache import find

if __name__ == '__main__':
    binary = find()
    os.execv(binary, [binary, *sys.argv[1:]])
