//! Ghosts: the objects that stand for a request in flight in the engine in Python (`proxy/ghosts.py`).

use pyo3::intern;
use pyo3::prelude::*;
use std::sync::{Mutex, PoisonError};

const MOST_SPARE: usize = 64; // requests whose ghosts are kept

/// The ghosts of one request. `served`: behind its handle, of the inbound side.
pub struct Ghosts {
    pub stream: Py<PyAny>,
    pub entry: Py<PyAny>,
    pub forwarding: Py<PyAny>,
    pub served: Option<Py<PyAny>>,
}

impl Ghosts {
    fn all(&self) -> impl Iterator<Item = &Py<PyAny>> {
        [&self.stream, &self.entry, &self.forwarding].into_iter().chain(&self.served)
    }
}

/// Makes ghosts, and keeps those of ordinary requests that have ended: to make and destroy them costs more.
pub struct GhostPool {
    new_stream: Py<PyAny>,
    new_entry: Py<PyAny>,
    new_forwarding: Py<PyAny>,
    spare: Mutex<Vec<Ghosts>>,
}

impl GhostPool {
    pub fn new(new_stream: Py<PyAny>, new_entry: Py<PyAny>, new_forwarding: Py<PyAny>) -> Self {
        Self { new_stream, new_entry, new_forwarding, spare: Mutex::new(Vec::with_capacity(MOST_SPARE)) }
    }

    /// Ghosts for a call. `new_forwarding` is that of a message of MCP or A2A, `new_served` that of a handle.
    pub fn take(
        &self,
        call: &Bound<'_, PyAny>,
        new_forwarding: Option<&Py<PyAny>>,
        new_served: Option<&Py<PyAny>>,
    ) -> PyResult<Ghosts> {
        let py = call.py();
        let new = |of: &Py<PyAny>| of.bind(py).call0().map(Bound::unbind);
        let spare = match new_forwarding {
            None => self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop(),
            Some(_) => None,
        };
        let ghosts = match spare {
            Some(spare) => spare,
            None => Ghosts {
                stream: new(&self.new_stream)?,
                entry: new(&self.new_entry)?,
                forwarding: new(new_forwarding.unwrap_or(&self.new_forwarding))?,
                served: new_served.map(new).transpose()?,
            },
        };
        for ghost in ghosts.all() {
            ghost.bind(py).setattr(intern!(py, "warm"), call)?;
        }
        Ok(ghosts)
    }

    /// Keep the ghosts of a request that has ended, unless somebody else holds one of them. They let go of the call, and
    /// so of its token. All must still be ghosts, and none of a message.
    pub fn keep(&self, py: Python<'_>, ghosts: Ghosts) -> PyResult<()> {
        if ghosts.all().all(|ghost| ghost.get_refcnt(py) == 1) {
            for ghost in ghosts.all() {
                ghost.bind(py).setattr(intern!(py, "warm"), py.None())?;
            }
            let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
            if spare.len() < MOST_SPARE {
                spare.push(ghosts);
            }
        }
        Ok(())
    }
}
