"""Access keys of functions, made once per data folder.

Only one secret is stored; the key of each function and system extension is derived
from it, so processes need not agree on anything but that file.
"""

import base64
import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one installation.

    Attributes:
        master: Opens every function and the system webhooks.
    """

    master: str

    @property
    def host(self) -> str:
        """Opens every function of level FUNCTION."""
        return self._derived("host")

    def function(self, name: str) -> str:
        """Opens this function."""
        return self._derived(f"function:{name}")

    def system(self, extension: str) -> str:
        """Opens the webhooks of this extension."""
        return self._derived(f"system:{extension}")

    def admits(self, level: str, name: str, key: str | None) -> bool:
        """Whether a caller who shows `key` may call function `name`.

        Args:
            level: ANONYMOUS, FUNCTION or ADMIN.
            name: Function name.
            key: What the request carries, None for nothing.
        """
        if level == "ANONYMOUS":
            return True
        if key is None:
            return False
        accepted = [self.master]
        if level == "FUNCTION":
            accepted += [self.host, self.function(name)]
        shown = key.encode()
        return any(hmac.compare_digest(shown, good.encode()) for good in accepted)

    def _derived(self, purpose: str) -> str:
        digest = hmac.digest(self.master.encode(), purpose.encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def load(folder: Path) -> Keys:
    """The keys of this data folder; made on the first call, readable by the owner."""
    path = folder / "master.key"
    folder.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        temporary = folder / f"master.key.{os.getpid()}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(32))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)  # unlike a rename, never replaces another's key
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
    return Keys(path.read_text().strip())
