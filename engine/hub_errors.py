"""What went wrong between this machine and the hub, in one line, with the mend where there is one."""

from __future__ import annotations

import errno

from engine.types import CheckpointError


def download_failed(repo_id: str, revision: str, error: Exception) -> CheckpointError:
    """To be raised from ``error``, whichever library that comes from."""
    network = network_failure(error)
    reason = f"{repo_id} cannot be downloaded{f': {network}' if network else ' from the hub'}"
    return CheckpointError(f"{repo_id}: {explain(error, revision)}", reason=reason)


def explain(error: BaseException, revision: str) -> str:
    from huggingface_hub import constants, errors

    network = network_failure(error)
    match error:
        case errors.GatedRepoError():
            return "gated: ask for access on its page, then set HF_TOKEN or run `hf auth login`"
        case errors.RepositoryNotFoundError():
            return "no such repository on the hub; a private one needs HF_TOKEN or `hf auth login`"
        case errors.RevisionNotFoundError():
            return f"no revision {revision}"
        case errors.LocalEntryNotFoundError() | errors.DryRunError() if network:
            return f"not here, and {network} at {constants.ENDPOINT}"
        case errors.LocalEntryNotFoundError() | errors.DryRunError() if constants.HF_HUB_OFFLINE:
            return "not here, and HF_HUB_OFFLINE forbids asking the hub"
        case errors.LocalEntryNotFoundError() | errors.DryRunError() if error.__cause__:
            return explain(error.__cause__, revision)
        case OSError(errno=errno.ENOSPC):
            return f"no space left in {constants.HF_HUB_CACHE}; HF_HOME names another place"
    first, *_ = str(error).strip().splitlines() or [repr(error)]
    return f"{network}: {first} ({constants.ENDPOINT})" if network else first


def network_failure(error: BaseException) -> str | None:
    """In the words for a client; None when the hub has answered, or was not asked."""
    from huggingface_hub import constants, errors

    match error:
        case errors.LocalEntryNotFoundError() | errors.DryRunError():
            refused = isinstance(error.__cause__, errors.HfHubHTTPError)
            return None if refused or constants.HF_HUB_OFFLINE else "the hub does not answer"
        case errors.HfHubHTTPError():
            return None
    # The hub's errors are of its HTTP library's kind, which has changed with time.
    of_http: type[Exception] = errors.HfHubHTTPError.__bases__[0]
    return "the connection to the hub broke" if isinstance(error, (of_http, ConnectionError)) else None
