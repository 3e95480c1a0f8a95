"""Mirrors the tree with three sessions of asyncssh at once, and says what is refused.

Arguments: three folders to mirror to, a recording to be refused with. The login comes from the environment.
"""

import asyncio
import json
import os
import pathlib
import sys

import asyncssh
from asyncssh_login import connect


async def whole_tree(sftp, mirror):
    await sftp.mget("/*", mirror, recurse=True, preserve=True)


async def by_patterns(sftp, mirror):
    for folder in await sftp.glob("/*"):
        target = pathlib.Path(mirror) / folder.lstrip("/")
        target.mkdir()
        # Any name but `.` and `..`.
        await sftp.mget(f"{folder}/[!.]*", target, preserve=True)


async def file_by_file(sftp, mirror):
    async for entry in sftp.scandir("/"):
        if entry.filename in (".", ".."):
            continue
        target = pathlib.Path(mirror) / entry.filename
        target.mkdir()
        async for below in sftp.scandir(f"/{entry.filename}"):
            if below.filename in (".", ".."):
                continue
            async with sftp.open(f"/{entry.filename}/{below.filename}", "rb") as file:
                content = await file.read()
            assert len(content) == below.attrs.size, below.filename
            path = target / below.filename
            path.write_bytes(content)
            os.utime(path, (below.attrs.mtime, below.attrs.mtime))


async def session(work, mirror):
    async with connect() as connection, connection.start_sftp_client() as sftp:
        await work(sftp, mirror)


async def refusal(act):
    """What the caller of a refused operation is told."""
    try:
        await act
    except asyncssh.SFTPError as error:
        return [type(error).__name__, error.reason]
    return None


async def main():
    works = (whole_tree, by_patterns, file_by_file)
    await asyncio.gather(*(session(*pair) for pair in zip(works, sys.argv[1:4], strict=True)))
    recording = sys.argv[4]
    async with connect() as connection, connection.start_sftp_client() as sftp:
        print(
            json.dumps(
                {
                    "put": await refusal(sftp.put(__file__, "/S20160606/mine.wav")),
                    "mkdir": await refusal(sftp.mkdir("/new")),
                    "remove": await refusal(sftp.remove(recording)),
                    "rename": await refusal(sftp.rename(recording, "/S20160606/other.wav")),
                    "missing": await refusal(sftp.get("/nothing", "/dev/null")),
                }
            )
        )


asyncio.run(main())
