"""Fetches a file whole with paramiko, or goes on where the local one ends.

Arguments: `begin` or `go on`, the recording, the file. The login comes from the environment.
"""

import sys

from paramiko_login import connect


def main(how, recording, local):
    with connect() as client, client.open_sftp() as sftp:
        if how == "begin":
            sftp.get(recording, local)
            return
        with sftp.open(recording) as source, open(local, "ab") as target:
            source.seek(target.tell())
            while piece := source.read(32768):
                target.write(piece)


main(*sys.argv[1:])
