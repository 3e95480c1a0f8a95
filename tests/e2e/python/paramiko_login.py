"""How paramiko logs in: with what the environment says."""

import os

import paramiko


def connect():
    client = paramiko.SSHClient()
    client.load_host_keys(os.environ["E2E_KNOWN_HOSTS"])
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    client.connect(
        "127.0.0.1",
        port=int(os.environ["E2E_PORT"]),
        username=os.environ["E2E_USER"],
        password=os.environ.get("E2E_PASSWORD"),
        key_filename=os.environ.get("E2E_KEY"),
        allow_agent=False,
        look_for_keys=False,
        timeout=20,
    )
    return client
