"""Admission within the control plane: the webhook, what it knows of the cluster, and the API server's trust in it."""

from __future__ import annotations

from collections.abc import Callable

from ambient.control.admission_checks import View
from ambient.control.metrics import ControlMetrics
from ambient.control.settings import ControlSettings
from ambient.control.trust import Trust
from ambient.control.webhook import Webhook
from ambient.control.webhook_config import WebhookConfiguration
from ambient.kube.records import Records
from ambient.model.address import Endpoint


class Admission:
    """`hear` each snapshot of the objects; `start`, then `run` until cancelled, then `stop`."""

    def __init__(
        self,
        settings: ControlSettings,
        listen: Endpoint,
        trust: Trust,
        leading: Callable[[], bool],
        metrics: ControlMetrics,
    ) -> None:
        self._settings = settings
        self._listen = listen
        self._trust = trust
        self._view = self._seen(Records(), known=False)
        self._webhook = Webhook(lambda: self._view, metrics)
        self._configuration = (
            WebhookConfiguration(trust.api, settings.webhook_name, lambda: trust.issuer.roots, leading, metrics)
            if trust.api is not None
            else None
        )
        self.port = 0

    def hear(self, records: Records) -> None:
        """Objects changed."""
        self._view = self._seen(records, known=True)

    async def start(self) -> None:
        """Listen; raises Unavailable when the address cannot be had."""
        self.port = await self._webhook.start(self._listen, self._trust.tls.context())

    async def run(self) -> None:
        if self._configuration is not None:
            await self._configuration.run()

    async def stop(self) -> None:
        await self._webhook.stop()

    def _seen(self, records: Records, *, known: bool) -> View:
        settings = self._settings
        return View(
            records,
            known,
            settings.root_namespace,
            settings.namespace,
            settings.trust_domain_aliases | {settings.trust_domain},
            settings.dry_run_policies,
        )
