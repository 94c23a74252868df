//! The proof of a connection's peer, looked at again whenever the second or our identity has changed.

use pyo3::intern;
use pyo3::prelude::*;
use std::sync::{Mutex, PoisonError};

struct Seen {
    second: i64,
    identity: Py<PyAny>,
    fingerprint: Py<PyAny>,
}

/// Kept at its connection. `guard` is that of the connection, which alone judges.
#[pyclass(frozen)]
pub struct Peer {
    pub guard: Py<PyAny>,
    source: Py<PyAny>,
    seen: Mutex<Option<Seen>>,
}

impl Peer {
    pub fn of(guard: Bound<'_, PyAny>) -> PyResult<Self> {
        let source = guard.getattr("source")?.unbind();
        Ok(Self { guard: guard.unbind(), source, seen: Mutex::new(None) })
    }

    /// The fingerprint of the peer's certificate, if the peer is trusted now. Errors as `PeerGuard.check`.
    pub fn fingerprint<'py>(&self, py: Python<'py>, now: i64) -> PyResult<Bound<'py, PyAny>> {
        let identity = self.source.bind(py).getattr(intern!(py, "current"))?;
        {
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(seen) = seen.as_ref()
                && seen.second == now
                && seen.identity.is(&identity)
            {
                return Ok(seen.fingerprint.bind(py).clone());
            }
        }
        let peer = self.guard.bind(py).call_method1(intern!(py, "check"), (now,))?;
        let fingerprint = peer.getattr(intern!(py, "fingerprint"))?;
        let seen = Seen { second: now, identity: identity.unbind(), fingerprint: fingerprint.clone().unbind() };
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
        Ok(fingerprint)
    }
}
