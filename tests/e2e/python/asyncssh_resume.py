"""Fetches a file whole with asyncssh, or goes on where the local one ends.

Arguments: `begin` or `go on`, the recording, the file. The login comes from the environment.
"""

import asyncio
import sys

from asyncssh_login import connect


async def main(how, recording, local):
    async with connect() as connection, connection.start_sftp_client() as sftp:
        if how == "begin":
            await sftp.get(recording, local)
            return
        with open(local, "ab") as target:
            async with sftp.open(recording, "rb") as source:
                while piece := await source.read(32768, target.tell()):
                    target.write(piece)


asyncio.run(main(*sys.argv[1:]))
