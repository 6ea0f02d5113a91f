"""Everything that says who is who, put together from the settings: who may call, who signs, what proves that we are we.

`start` before anything is served, `run` beside it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509

from ambient.ca.entitle import NotEntitled
from ambient.ca.rotation import Pace
from ambient.ca.token import Caller
from ambient.control import join
from ambient.control.access import Gate, Verifier
from ambient.control.authority import SigningAuthority
from ambient.control.ca_store import CaStore, FolderStore, PluggedStore, SecretStore
from ambient.control.issuers import Issuer, NoIssuer, OwnIssuer
from ambient.control.join import JoinedTokens
from ambient.control.kubernetes_signer import KubernetesSigner
from ambient.control.metrics import ControlMetrics
from ambient.control.root_bundles import RootBundles
from ambient.control.root_plan import Wanted
from ambient.control.serving_files import ServingFiles
from ambient.control.settings import ControlSettings
from ambient.control.signed_tokens import SignedTokens
from ambient.control.tls import ServerCertificate
from ambient.control.token_review import TokenReviews
from ambient.errors import InvalidInput, MeshError, Unavailable
from ambient.kube.api.client import ApiClient
from ambient.kube.api.events import EventWriter, Regarding
from ambient.kube.source import KUBERNETES

LOOK_S: Final = 2.0
_FIRST_WAIT_S: Final = 0.5
_LONGEST_WAIT_S: Final = 10.0
_RENEW_AGAIN_S: Final = 30.0

_log = logging.getLogger("ambient.control.trust")


class Trust:
    """`gate`, `issuer` and `tls` are for the servers; `members` has to hear of the objects; `bundles` (in a cluster)
    tells every namespace the roots. `leading`: whether we are the replica that writes. `trouble`: why `start` has not
    come to its end."""

    def __init__(self, settings: ControlSettings, environment: Mapping[str, str], metrics: ControlMetrics) -> None:
        """Raises InvalidInput for settings that do not go together."""
        self._settings = settings
        self._metrics = metrics
        self.api = ApiClient.open(environment) if settings.objects == KUBERNETES else None
        self.members = JoinedTokens(self._verifier())
        self.gate = Gate(self.members, accounts=settings.client_accounts | join.ACCOUNTS)
        self.authority = self._authority() if settings.issuer == "own" else None
        self.issuer = self._issuer()
        self.tls = ServerCertificate(self.issuer, settings.own_names, settings.xds_listen.ip)
        self.bundles = (
            RootBundles(
                self.api, settings.root_config_map, self._wanted, lambda: self.leading(), own=settings.namespace
            )
            if self.api is not None
            else None
        )
        self.events = EventWriter(self.api, "ambient-control", settings.replica) if self.api is not None else None
        self.leading: Callable[[], bool] = lambda: False
        self.trouble = ""
        self._roots = ""
        self._renew_again_at = 0.0

    async def start(self) -> None:
        """Have an authority and a server certificate, and wait until they are to be had. Raises InvalidInput."""
        wait_s = _FIRST_WAIT_S
        while True:
            try:
                if self.authority is not None:
                    await self.authority.load()
                    await self._inherit(self.authority)
                await self.tls.renew(datetime.now(UTC))
            except Unavailable as error:
                if self.api is None:
                    raise
                self.trouble = f"nothing can be served yet: {error}"
                _log.error("%s", self.trouble)
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, _LONGEST_WAIT_S)
            else:
                self._changed()
                return

    async def run(self) -> None:
        """Follow changes, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow())
            if self.bundles is not None:
                group.create_task(self.bundles.run())
            if self.events is not None:
                group.create_task(self.events.run())

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            await self.follow()

    async def follow(self) -> None:
        """Take up changes of the authority, and renew our own certificate when due; a failure leaves what is in use."""
        changed = await self.authority.follow() if self.authority is not None else False
        if changed:
            _log.warning("the certificate authority changed")
        try:
            self._changed()
            if changed or (self.tls.due(datetime.now(UTC)) and time.monotonic() >= self._renew_again_at):
                await self.tls.renew(datetime.now(UTC))
        except MeshError as error:
            # Whoever signs may be asked for a lot by then: not at every look.
            self._renew_again_at = time.monotonic() + _RENEW_AGAIN_S
            _log.error("server certificate not renewed: %s", error)

    def identity_refused(self, caller: Caller, error: NotEntitled) -> None:
        """Say it where people look: a node that asks for what is not its own may have been taken over."""
        if self.events is not None:
            note = f"{caller.account} asked for a certificate of {error.where}: {error.why}"
            self.events.say(Regarding("v1", "Node", caller.node), "IdentityRefused", note, "IssueCertificate")

    async def stop(self) -> None:
        if self.api is not None:
            await self.api.close()

    def _changed(self) -> None:
        roots = self.issuer.roots
        if roots == self._roots:
            return
        self._roots = roots
        ends = [one.not_valid_after_utc for one in x509.load_pem_x509_certificates(roots.encode())]
        signer = self.authority.authority.not_after if self.authority is not None else min(ends)
        self._metrics.authority(signer, len(ends))
        if self.bundles is not None:
            self.bundles.look()

    async def _inherit(self, authority: SigningAuthority) -> None:
        """Roots of a replaced authority that we told everybody to trust before we were started are trusted still."""
        if self.bundles is None:
            return
        found = await self.bundles.inherited(self._settings.namespace)
        if found is not None:
            authority.inherit(*found)

    def _wanted(self) -> Wanted:
        retires = self.authority.retires if self.authority is not None else None
        return Wanted(self.issuer.roots, retires.isoformat(timespec="seconds") if retires is not None else "")

    def _verifier(self) -> Verifier:
        settings = self._settings
        if settings.token_key is not None:
            return SignedTokens(settings.token_key, issuer=settings.token_issuer, audience=settings.token_audience)
        return TokenReviews(
            self._needed_api("AMBIENT_TOKEN_KEY"), audience=settings.token_audience, stale_s=settings.token_stale_s
        )

    def _authority(self) -> SigningAuthority:
        settings = self._settings
        store: CaStore
        folder = FolderStore(settings.ca_dir) if settings.ca_dir is not None else None
        if self.api is None:
            if folder is None:
                raise InvalidInput("missing setting", "AMBIENT_CA_DIR")
            store = folder
        else:
            store = SecretStore(self.api, settings.namespace, settings.ca_secret)
            if folder is not None:
                store = PluggedStore(folder, store)
        # Trusted as long as anything that it signed may live, whatever else is asked for.
        retire_s = max(settings.root_retire_s, settings.longest_ttl_s)
        pace = Pace(timedelta(seconds=settings.root_announce_s), timedelta(seconds=retire_s))
        return SigningAuthority(
            store,
            trust_domain=settings.trust_domain,
            create=settings.create_root,
            pace=pace,
            staged=self.api is not None,
            lifetime=timedelta(seconds=settings.root_lifetime_s),
        )

    def _issuer(self) -> Issuer:
        settings = self._settings
        default, longest = timedelta(seconds=settings.default_ttl_s), timedelta(seconds=settings.longest_ttl_s)
        authority = self.authority
        if authority is not None:
            return OwnIssuer(lambda: authority.authority, default=default, longest=longest)
        if settings.roots is None:
            raise InvalidInput("missing setting", "AMBIENT_ROOTS", f"AMBIENT_ISSUER={settings.issuer} needs it")
        roots = RootsFile(settings.roots).read
        if settings.issuer == "none":
            if settings.serving_dir is None:
                raise InvalidInput("missing setting", "AMBIENT_SERVING_DIR", "AMBIENT_ISSUER=none needs it")
            return NoIssuer(roots, ServingFiles(settings.serving_dir).serving)
        if not settings.signer:
            raise InvalidInput("missing setting", "AMBIENT_SIGNER", "AMBIENT_ISSUER=kubernetes needs it")
        return KubernetesSigner(
            self._needed_api("AMBIENT_ISSUER"),
            settings.signer,
            roots,
            default=default,
            longest=longest,
            domain=settings.signer_domain,
            approve=settings.signer_approve,
        )

    def _needed_api(self, variable: str) -> ApiClient:
        if self.api is None:
            raise InvalidInput("setting", variable, "needs a Kubernetes API server (AMBIENT_OBJECTS=kubernetes)")
        return self.api


class RootsFile:
    """PEM of roots in a file that may change; a broken or missing one leaves the last good one in force."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._good = ""

    def read(self) -> str:
        """Raises Unavailable when there never was a good one."""
        try:
            pem = self._file.read_text()
            x509.load_pem_x509_certificates(pem.encode())
        except (OSError, ValueError) as error:
            if not self._good:
                raise Unavailable("roots", str(self._file), str(error)) from None
        else:
            self._good = pem
        return self._good
