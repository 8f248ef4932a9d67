"""The worker process of the product: the layer's worker with the product's log, without Faust's banner."""

from __future__ import annotations

import logging
from typing import Any, ClassVar

from faust_exactly_once import Worker as LayerWorker
from streamsocial_billing.cli.shared import give_up, the_settings
from streamsocial_billing.logs import setup
from streamsocial_billing.logs.masking import secrets_of


class Worker(LayerWorker):
    """Sets its log up before anything else, so that every line has one format.

    `chosen_format`, `chosen_level` are what the command line said, None where it said nothing.
    """

    chosen_format: ClassVar[str | None] = None
    chosen_level: ClassVar[str | None] = None

    def __init__(self, app: Any, *services: Any, **options: Any) -> None:
        super().__init__(app, *services, **options)
        self.spinner = None
        self._has_log = False

    def execute_from_commandline(self) -> Any:
        """Run until stopped; ends with SystemExit as the layer's worker does."""
        try:
            self._setup_logging()
        except OSError as exc:  # --logfile
            give_up(exc)
        super().execute_from_commandline()

    def _setup_logging(self) -> None:
        """Called here and by mode, which would do it later."""
        if self._has_log:
            return
        self._has_log = True
        settings = the_settings()
        secrets = secrets_of(settings)
        if self.logging_config is not None:  # somebody's own; what must not be read is masked all the same
            super()._setup_logging()
            setup.guard(logging.getLogger().handlers, secrets)
            return
        level = self.chosen_level
        setup.set_up(
            form=self.chosen_format or settings.log_format,
            level=None if level is None else logging.getLevelNamesMapping()[level],
            file=str(self.logfile) if self.logfile else None, secrets=secrets, more=self.loghandlers,
        )  # fmt: skip

    def _on_sigint(self) -> None:
        """Ctrl-C is a stop like any other: the log says it."""
        self._on_sigterm()
