"""Merges the answers of all workers, for the probe and the admin socket of their parent."""

from __future__ import annotations

import time
from typing import Any, Final

from sidecar.observe.exposition import process_metrics
from sidecar.observe.metrics_merge import families_of, merged, of_silent, text_of
from sidecar.observe.scrape import worker_restarts
from sidecar.proxy.listening.admin import UnansweredError
from sidecar.proxy.listening.status_merge import merge_chains, merge_status, missing_of
from sidecar.workers.parent import Workers

# Less than the second after which a kubelet gives up, so that the answer names the silent worker.
TIMEOUT_S: Final = 0.8


class WorkerGroup:
    """Asks all workers at once. A worker that does not answer in time is not ready, for the probe too (``Probed``)."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._since = int(time.time())

    async def stuck(self) -> list[str]:
        """Return the workers whose event loop is stuck. A worker that is starting is not."""
        answers = await self._workers.ask("turns", TIMEOUT_S)
        living = self._workers.living
        return [
            f"worker {number} does not answer"
            for number, answer in answers.items()
            if answer is None and (worker := living[number]) is not None and worker.up
        ]

    async def missing(self) -> list[str]:
        """Return the reasons of workers that are not ready."""
        if self._workers.stopping:
            return ["stopping"]
        answers = await self._workers.ask("missing", TIMEOUT_S)
        return missing_of(answers)

    async def render(self) -> bytes:
        """Render the workers' metrics, added up; a silent worker counts with its last values, as not ready."""
        answers = await self._workers.ask("metrics", TIMEOUT_S)
        for number, answer in answers.items():
            worker = self._workers.living[number]
            if worker is not None:
                worker.families = of_silent(worker.families) if answer is None else answer
        told = [worker.families for worker in self._workers.living.values() if worker is not None]
        own = families_of([*process_metrics("sidecar_process"), worker_restarts(self._workers.restarts)])
        return text_of(merged([*told, self._workers.retired, own]))

    async def status(self) -> dict[str, Any]:
        """Return one status document for all workers.

        Raises:
            UnansweredError: no worker answers.
        """
        rows = await self._workers.ask("status", TIMEOUT_S)
        if all(row is None for row in rows.values()):
            raise UnansweredError("no worker answers")
        return merge_status(
            rows,
            since=self._since,
            now=int(time.time()),
            restarts=self._workers.restarts,
            stopping=self._workers.stopping,
        )

    async def chains(self) -> dict[str, Any]:
        """Return the requests in progress in all workers."""
        answers = await self._workers.ask("chains", TIMEOUT_S)
        return merge_chains([answer for answer in answers.values() if answer is not None])
