"""The errors this project raises on purpose; everything else that escapes is a bug.

Each names *what* failed, *where* (file, field, peer, kernel object) and *why*, so that the text alone is
enough to act on.
"""


class MeshError(Exception):
    """Base of all deliberate errors. `str()` gives "what: where: why" without empty parts."""

    def __init__(self, what: str, where: str = "", why: str = "") -> None:
        super().__init__(what, where, why)
        self.what = what
        self.where = where
        self.why = why

    def __str__(self) -> str:
        return ": ".join(part for part in (self.what, self.where, self.why) if part)


class InvalidInput(MeshError):
    """Input from outside (YAML, xDS, CSR, CLI, IPC) that is refused whole; nothing was changed."""


class ProtocolError(MeshError):
    """A peer broke the rules of a protocol (HTTP/2, HBONE, ZDS, xDS, DNS)."""


class Refused(MeshError):
    """We understood the request and will not do it (policy, entitlement, limit)."""


class Unavailable(MeshError):
    """Something we depend on does not answer now; trying again later may work."""


class KernelError(MeshError):
    """A system call failed; `why` carries the errno text and, where known, what to do about it."""
