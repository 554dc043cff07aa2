# SPDX-License-Identifier: GPL-2.0
"""Initramfs archives, for tools/cdm/vm and tools/cdm/bench."""

import os
import stat


class Cpio:
    """Writes a "newc" archive, the format of an initramfs."""

    def __init__(self, path):
        self.out = open(path, "wb")
        self.ino = 0
        self.dirs = set()

    def entry(self, name, mode, data=b"", rdev=(0, 0)):
        self.ino += 1
        name = name.encode() + b"\0"
        fields = (self.ino, mode, 0, 0, 1, 0, len(data), 0, 0, *rdev,
                  len(name), 0)
        header = b"070701" + b"".join(b"%08x" % f for f in fields)
        for part in (header + name, data):
            self.out.write(part + b"\0" * (-len(part) % 4))

    def parents(self, name):
        parent = os.path.dirname(name)
        if parent and parent not in self.dirs:
            self.directory(parent)

    def directory(self, name):
        self.parents(name)
        if name not in self.dirs:
            self.dirs.add(name)
            self.entry(name, stat.S_IFDIR | 0o755)

    def file(self, name, data, mode=0o755):
        self.parents(name)
        if not isinstance(data, bytes):
            data = data.encode()
        self.entry(name, stat.S_IFREG | mode, data)

    def copy(self, name, path, mode=0o755):
        with open(path, "rb") as f:
            self.file(name, f.read(), mode)

    def symlink(self, name, target):
        self.parents(name)
        self.entry(name, stat.S_IFLNK | 0o777, target.encode())

    def device(self, name, mode, major, minor):
        self.parents(name)
        self.entry(name, mode, rdev=(major, minor))

    def close(self):
        self.entry("TRAILER!!!", 0)
        self.out.close()
