"""How asyncssh logs in: with what the environment says."""

import os

import asyncssh


def connect():
    key = os.environ.get("E2E_KEY")
    return asyncssh.connect(
        "127.0.0.1",
        port=int(os.environ["E2E_PORT"]),
        username=os.environ["E2E_USER"],
        password=os.environ.get("E2E_PASSWORD"),
        client_keys=[key] if key else None,
        agent_path=None,
        config=None,
        known_hosts=os.environ["E2E_KNOWN_HOSTS"],
        connect_timeout=20,
    )
