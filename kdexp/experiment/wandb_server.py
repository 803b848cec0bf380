"""Whether W&B's server can be reached, and in which mode a run starts."""

import logging
import os
import threading
from typing import Literal

import requests
import wandb
from wandb.sdk.lib.wbauth import read_netrc_auth

log = logging.getLogger(__name__)

# A server that does not answer must cost seconds, not the run: together less than 30 s, at the start and at the end.
_PROBE_SECONDS = 5.0


def decide_mode(mode: str) -> Literal["online", "offline", "disabled"]:
    """Online or offline is decided before the first init: after one that failed, W&B cannot even start offline.

    (https://github.com/wandb/wandb/issues/9865)
    """
    mode = wanted_mode(mode)
    if mode == "offline":
        return "offline"
    if mode == "disabled":
        return "disabled"
    if not _api_key():
        if mode == "online":
            say_offline("not logged in")
        return "offline"
    if problem := problem_of_server():
        say_offline(problem)
        return "offline"
    return "online"


def say_offline(reason: str) -> None:
    """Say why a run is kept offline."""
    log.warning("W&B: %s; the run is kept offline and can be sent later with `wandb sync`", reason)


def wanted_mode(mode: str) -> str:
    """The mode that is set: by the environment where the setting is auto."""
    return os.environ.get("WANDB_MODE", "auto") if mode == "auto" else mode


def _api_key() -> str | None:
    return os.environ.get("WANDB_API_KEY") or read_netrc_auth(host=wandb.setup().settings.base_url)


def problem_of_server() -> str | None:
    """Why nothing can be sent to W&B's server now; None: it can."""
    url = wandb.setup().settings.base_url
    found = [f"{url} does not answer"]

    def ask() -> None:
        found.append(_problem_of_answer(url))

    # In a thread: looking up an address, and an answer that drips, have no time limit of their own.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PROBE_SECONDS)
    return found[-1] or None


def _problem_of_answer(url: str) -> str:
    """Ask the server who we are; an empty string when it says so."""
    try:
        answer = requests.post(
            f"{url}/graphql",
            json={"query": "query Viewer { viewer { id } }"},
            auth=("api", _api_key() or ""),
            timeout=_PROBE_SECONDS,
        )
    except requests.exceptions.SSLError:
        return ""  # W&B has certificates of its own; it will find out
    except requests.RequestException:
        return f"{url} does not answer"
    if answer.status_code in (401, 403):
        return f"{url} does not accept the API key"
    if not answer.ok:
        return f"{url} answers with HTTP {answer.status_code}"
    try:
        knows_us = answer.json()["data"]["viewer"]["id"]
    except (ValueError, LookupError, TypeError):
        knows_us = None
    return "" if knows_us else f"{url} does not answer as W&B does"
