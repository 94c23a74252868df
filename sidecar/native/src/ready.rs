//! A request that may begin, and its beginning.

use crate::call::{Call, Live};
use crate::side::Side;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyFloat, PyList};

const LARGE: usize = 4096; // bytes of a request

/// Everything that is known of a request before anything is changed.
pub struct Ready<'py> {
    pub call: Call,
    pub pool: Bound<'py, PyAny>,
    pub idle: Bound<'py, PyList>,
    pub upstream: Bound<'py, PyAny>,
    pub message: Vec<u8>,
}

impl<'py> Ready<'py> {
    /// Send the request, and leave its ghosts where the engine in Python keeps its objects.
    pub fn start(self, side: &Side, connection: &Bound<'py, PyAny>, data: &Bound<'py, PyBytes>) -> PyResult<()> {
        let py = connection.py();
        let Self { mut call, pool, idle, upstream, message } = self;
        let decided_at = side.now(py)?;
        call.decided_at = decided_at;
        let call = Bound::new(py, call)?;
        let this = call.get();
        let new_forwarding = this.asked.as_ref().map(|asked| &asked.kind.get().new_forwarding);
        let new_served = this.opened.as_ref().map(|opened| &opened.new_served);
        let ghosts = side.ghosts.take(&call, new_forwarding, new_served)?;
        if let (Some(opened), Some(served)) = (&this.opened, &ghosts.served) {
            opened.alive.bind(py).set_item(&opened.handle, served)?;
        }
        let reader = upstream.getattr(intern!(py, "reader"))?;
        if !reader.getattr(intern!(py, "head"))?.is_none() {
            reader.call_method1(intern!(py, "expect"), (&*this.method,))?;
        }
        idle.del_item(idle.len() - 1)?;
        Side::count(side.log.bind(py), intern!(py, "promised"))?;
        side.entries.bind(py).set_item(&ghosts.entry, py.None())?;
        side.young.bind(py).add(&ghosts.forwarding)?;
        connection.setattr(intern!(py, "stream"), &ghosts.stream)?;
        connection.setattr(intern!(py, "share"), &side.spent)?;
        upstream.setattr(intern!(py, "state"), &side.asked)?;
        upstream.setattr(intern!(py, "sink"), &ghosts.forwarding)?;
        upstream.setattr(intern!(py, "warm"), &call)?;
        upstream.setattr(intern!(py, "moved_at"), PyFloat::new(py, decided_at))?;
        this.live(Live {
            connection: connection.clone().unbind(),
            upstream: upstream.clone().unbind(),
            pool: pool.unbind(),
            ghosts,
            data: head_of(data),
        });
        let transport = upstream.getattr(intern!(py, "transport"))?;
        Side::defer(&upstream, intern!(py, "writes"), transport, &message)
    }
}

/// The bytes that a request is made real from: without a large body, which would be held until the answer.
fn head_of(data: &Bound<'_, PyBytes>) -> Py<PyBytes> {
    let octets = data.as_bytes();
    let end = if octets.len() < LARGE { None } else { octets.windows(4).position(|four| four == b"\r\n\r\n") };
    end.map_or_else(|| data.clone().unbind(), |end| PyBytes::new(data.py(), &octets[..end + 4]).unbind())
}
