"""Mirrors the tree with paramiko in each of the ways that it has, and says what is refused.

Arguments: a folder to mirror to, a recording to read in pieces. The login comes from the environment.
"""

import io
import json
import os
import pathlib
import stat
import sys

from paramiko_login import connect


def walk(sftp, folder):
    """Each file's path and attributes."""
    for entry in sftp.listdir_attr(folder):
        path = f"{folder.rstrip('/')}/{entry.filename}"
        if stat.S_ISDIR(entry.st_mode):
            yield from walk(sftp, path)
        else:
            yield path, entry


def read(sftp, path, prefetch):
    """The bytes of a file, with or without all requests sent ahead."""
    content = io.BytesIO()
    sftp.getfo(path, content, prefetch=prefetch)
    return content.getvalue()


def refusal(act):
    """What the caller of a refused operation is told."""
    try:
        act()
    except OSError as error:
        return [type(error).__name__, str(error)]
    return None


def main():
    mirror, recording = pathlib.Path(sys.argv[1]), sys.argv[2]
    with connect() as client, client.open_sftp() as sftp:
        for path, entry in walk(sftp, "/"):
            target = mirror / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            sftp.get(path, str(target))
            os.utime(target, (entry.st_mtime, entry.st_mtime))
            content = target.read_bytes()
            assert entry.st_size == len(content) == sftp.stat(path).st_size, path
            assert entry.st_mtime == sftp.lstat(path).st_mtime, path
            assert entry.longname.split()[4] == str(len(content)), entry.longname
            assert entry.longname.endswith(" " + entry.filename), entry.longname

        whole = (mirror / recording.lstrip("/")).read_bytes()
        assert read(sftp, recording, True) == whole, "prefetched"
        assert read(sftp, recording, False) == whole, "one request after another"
        with sftp.open(recording) as file:
            # Backwards, overlapping, across the end.
            pieces = [(len(whole) - 1000, 1000), (0, 44), (1_000_000, 400_000), (40, 8), (999_999, 2)]
            for (offset, length), piece in zip(pieces, file.readv(pieces), strict=True):
                assert piece == whole[offset : offset + length], (offset, length)
            file.seek(-100, os.SEEK_END)
            assert file.read(1000) == whole[-100:]
            assert file.read(1000) == b""

        print(
            json.dumps(
                {
                    "put": refusal(lambda: sftp.putfo(io.BytesIO(b"mine"), "/S20160606/mine.wav")),
                    "mkdir": refusal(lambda: sftp.mkdir("/new")),
                    "remove": refusal(lambda: sftp.remove(recording)),
                    "rename": refusal(lambda: sftp.rename(recording, "/S20160606/other.wav")),
                    "missing": refusal(lambda: sftp.stat("/nothing")),
                }
            )
        )


main()
