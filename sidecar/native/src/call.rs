//! One request in flight, from its head to its record.
//!
//! The engine in Python sees it as its own: a stream at the caller's connection, a forwarding that is watched, an open
//! record, a sink at the upstream connection. These are ghosts: objects of its classes without attributes. Whoever
//! reads one attribute gets the real thing (`inflate`), and the engine in Python serves the request to its end.

use crate::ghosts::Ghosts;
use crate::guarded::guarded;
use crate::head;
use crate::operation::Asked;
use crate::peer::Peer;
use crate::prepared::{Pieces, Prepared};
use crate::side::Side;
use crate::text::{milliseconds, put_float, put_number, put_time};
use pyo3::exceptions::PyKeyError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyFloat, PyString};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

pub struct Live {
    pub connection: Py<PyAny>,
    pub upstream: Py<PyAny>,
    pub pool: Py<PyAny>,
    pub ghosts: Ghosts,
    pub data: Py<PyBytes>,
}

/// What has arrived of an answer. Whole: its status, and the answer as it goes to the caller.
enum Arrived {
    Whole(u16, Vec<u8>),
    Part,
}

const MOST_HELD: usize = 64 * 1024; // bytes of an answer that may wait for its rest

struct Done {
    status: u16,
    bytes_out: usize,
    heard_at: f64,
    answered_at: f64,
    seq: u64,
}

/// Of a handle to open: the handles alive, the handle, the epoch in which it was judged, and what makes the ghost of
/// its request.
pub struct Opened {
    pub alive: Py<PyDict>,
    pub handle: Py<PyString>,
    pub epoch: Py<PyAny>,
    pub new_served: Py<PyAny>,
}

#[pyclass(frozen)]
pub struct Call {
    pub side: Arc<Side>,
    pub prepared: Py<Prepared>,
    pub given: Py<PyAny>,
    pub origin: Py<PyAny>,
    pub peer: Option<Py<Peer>>,
    pub opened: Option<Opened>,
    pub asked: Option<Asked>, // by a message of MCP or A2A
    pub method: Box<str>,
    pub path: Box<str>,
    pub target: Option<Box<[u8]>>, // for the next hop, where it is another one
    pub call_in: Option<[u8; 32]>,
    pub call_out: Option<[u8; 32]>,
    pub after_request: bool,
    pub closes: bool, // the caller's connection ends with the answer
    pub started_at: f64,
    pub decided_at: f64,
    pub wall: f64,
    pub request_id: [u8; 32],
    pub trace_id: [u8; 32],
    pub span_id: [u8; 16],
    pub traced: Option<Py<PyAny>>, // where traces are exported: the span id as the engine in Python makes it
    pub flags: u8,
    pub bytes_in: usize,
    live: Mutex<Option<Live>>,
    served: OnceLock<()>, // the ghost behind its handle has become real
    heard_at: OnceLock<f64>,
    done: OnceLock<Done>,
}

fn text(octets: &[u8]) -> &str {
    std::str::from_utf8(octets).unwrap_or_default()
}

impl Call {
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        side: Arc<Side>,
        prepared: Py<Prepared>,
        given: Py<PyAny>,
        origin: Py<PyAny>,
        wall: f64,
        started_at: f64,
    ) -> Self {
        Self {
            side,
            prepared,
            given,
            origin,
            peer: None,
            opened: None,
            asked: None,
            method: Box::default(),
            path: Box::default(),
            target: None,
            call_in: None,
            call_out: None,
            after_request: false,
            closes: false,
            started_at,
            decided_at: started_at,
            wall,
            request_id: [b'0'; 32],
            trace_id: [b'0'; 32],
            span_id: [b'0'; 16],
            traced: None,
            flags: 3,
            bytes_in: 0,
            live: Mutex::new(None),
            served: OnceLock::new(),
            heard_at: OnceLock::new(),
            done: OnceLock::new(),
        }
    }

    pub fn live(&self, live: Live) {
        *self.live.lock().unwrap_or_else(PoisonError::into_inner) = Some(live);
    }

    fn take(&self) -> Option<Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub fn traceparent(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"00-");
        out.extend_from_slice(&self.trace_id);
        out.push(b'-');
        out.extend_from_slice(&self.span_id);
        out.extend_from_slice(&[b'-', b'0', b'0' + self.flags]);
    }

    /// The last lines of the head of a message, with `lines` among them, and its body.
    pub fn end_of_message(&self, out: &mut Vec<u8>, lines: &[u8], body: &[u8]) {
        out.extend_from_slice(b"\r\ntraceparent: ");
        self.traceparent(out);
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(lines);
        if !body.is_empty() || matches!(&*self.method, "POST" | "PUT" | "PATCH") {
            out.extend_from_slice(b"content-length: ");
            put_number(out, body.len() as u64);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(body);
    }

    /// What has arrived; None if it is not certain, or does not leave both connections as they are.
    fn answer(&self, py: Python<'_>, live: &Live, data: &[u8]) -> PyResult<Option<Arrived>> {
        let side = &*self.side;
        let Some(found) = head::answer(data, side.answer_limits) else { return Ok(None) };
        let rest = data.len() - found.fields.end;
        let Some(length) = found.fields.length else { return Ok(None) };
        if rest > length || matches!(found.status, 204 | 304 | 401) {
            return Ok(None);
        }
        if rest < length {
            let waits = length <= MOST_HELD && !found.is_event_stream(data);
            return Ok(waits.then_some(Arrived::Part));
        }
        let Some(line) = side.status_lines.get(&found.status) else { return Ok(None) };
        let (upstream, connection) = (live.upstream.bind(py), live.connection.bind(py));
        let now = |of: &Bound<'_, PyAny>, name| of.getattr(name)?.extract::<f64>();
        let answered_at = side.now(py)?; // an upstream that has aged since it was asked is not kept
        let keeps = upstream.getattr(intern!(py, "state"))?.is(&side.asked)
            && !upstream.getattr(intern!(py, "reading_paused"))?.is_truthy()?
            && answered_at < now(upstream, intern!(py, "ages_at"))?
            && connection.getattr(intern!(py, "stream"))?.is(&live.ghosts.stream)
            && !connection.getattr(intern!(py, "rest"))?.is_truthy()?
            && !connection.getattr(intern!(py, "reading_paused"))?.is_truthy()?
            && !connection.getattr(intern!(py, "writing_paused"))?.is_truthy()?
            && now(connection, intern!(py, "moved_at"))? < now(connection, intern!(py, "ages_at"))?
            && connection.getattr(intern!(py, "teardown"))?.getattr(intern!(py, "phase"))?.is(&side.open)
            && !connection.getattr(intern!(py, "connections"))?.getattr(intern!(py, "draining"))?.is_truthy()?;
        if !keeps {
            return Ok(None);
        }
        let mut out = Vec::with_capacity(data.len() + 64);
        out.extend_from_slice(line);
        let kind = self.asked.as_ref().map(|asked| asked.kind.get());
        let passes = kind.and_then(|kind| kind.answer_passes.as_ref()).unwrap_or(&side.answer_passes);
        for field in &found.fields.all {
            match passes.pass(py, &data[field.name.clone()], &mut out)? {
                None => return Ok(None),
                Some(false) => {}
                Some(true) => {
                    out.extend_from_slice(b": ");
                    out.extend_from_slice(&data[field.value.clone()]);
                    out.extend_from_slice(b"\r\n");
                }
            }
        }
        if let Some(asked) = &self.asked {
            let Some(lines) = asked.answered(py, &found, data)? else { return Ok(None) };
            out.extend_from_slice(&lines);
        }
        out.extend_from_slice(b"content-length: ");
        put_number(&mut out, rest as u64);
        out.extend_from_slice(if self.closes { b"\r\nconnection: close\r\n\r\n" } else { b"\r\n\r\n" });
        out.extend_from_slice(&data[found.fields.end..]);
        Ok(Some(Arrived::Whole(found.status, out)))
    }

    /// Pass the answer on, and end the request, in the order of the engine in Python.
    fn finish(slf: &Bound<'_, Self>, live: Live, status: u16, message: &[u8]) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let side = &*this.side;
        let now = side.now(py)?;
        let heard_at = *this.heard_at.get_or_init(|| now);
        let moved = PyFloat::new(py, now);
        let (upstream, connection) = (live.upstream.bind(py), live.connection.bind(py));
        upstream.setattr(intern!(py, "sink"), py.None())?;
        upstream.setattr(intern!(py, "moved_at"), &moved)?;
        upstream.setattr(intern!(py, "state"), &side.idle)?;
        upstream.setattr(intern!(py, "kept"), true)?;
        side.keep(live.pool.bind(py), upstream)?;
        connection.setattr(intern!(py, "stream"), py.None())?;
        connection.setattr(intern!(py, "moved_at"), &moved)?;
        let transport = connection.getattr(intern!(py, "transport"))?;
        Side::defer(connection, intern!(py, "writes"), transport, message)?;
        if this.closes {
            connection.call_method0(intern!(py, "close"))?;
        }
        side.young.bind(py).discard(&live.ghosts.forwarding)?;
        if let Some(opened) = &this.opened {
            // It is gone already where the agent has shown it past its end: `Handles` has forgotten it then.
            let alive = opened.alive.bind(py);
            if alive.contains(&opened.handle)? {
                alive.del_item(&opened.handle)?;
            }
        }
        let log = side.log.bind(py);
        side.entries.bind(py).del_item(&live.ghosts.entry)?;
        let seq = Side::count(log, intern!(py, "last_seq"))?;
        let _ = this.done.set(Done { status, bytes_out: message.len(), heard_at, answered_at: now, seq });
        side.put(slf)?;
        if this.asked.is_none() && this.served.get().is_none() {
            side.ghosts.keep(py, live.ghosts)?;
        }
        let (op, total_ms) = (this.asked.as_ref().map(|asked| &*asked.op), milliseconds(now - this.started_at));
        if side.finished.get().add(py, this.prepared.get(), op, total_ms, this.decide_ms()) >= side.count_at {
            side.tally.bind(py).call_method0(intern!(py, "counted"))?;
        }
        Ok(())
    }

    /// The id of the span. Where traces are exported it knows its parent, if the span is recorded.
    fn span<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        let plain = || PyString::new(py, text(&self.span_id)).into_any();
        self.traced.as_ref().map_or_else(plain, |id| id.bind(py).clone())
    }

    fn decide_ms(&self) -> f64 {
        milliseconds(self.decided_at - self.started_at)
    }

    fn total_ms(&self) -> Option<f64> {
        self.done.get().map(|done| milliseconds(done.answered_at - self.started_at))
    }

    /// Write the line of a record, linked to the one before it.
    pub fn put_line(&self, py: Python<'_>, before: &[u8], out: &mut Vec<u8>) -> PyResult<()> {
        let done = self.done.get().ok_or_else(|| PyKeyError::new_err("the request has not ended"))?;
        let _ = py;
        let prepared = self.prepared.get();
        let mut pieces = prepared.pieces();
        let quoted = |out: &mut Vec<u8>, value: Option<&[u8]>| match value {
            None => out.extend_from_slice(b"null"),
            Some(value) => {
                out.push(b'"');
                out.extend_from_slice(value);
                out.push(b'"');
            }
        };
        let next = |out: &mut Vec<u8>, pieces: &mut Pieces<'_>| {
            out.extend_from_slice(pieces.next().unwrap_or_default());
        };
        next(out, &mut pieces);
        out.push(b'"');
        put_time(out, self.wall);
        out.push(b'"');
        next(out, &mut pieces);
        put_number(out, done.seq);
        next(out, &mut pieces);
        quoted(out, self.asked.as_ref().map(|asked| asked.op.as_bytes()));
        next(out, &mut pieces);
        quoted(out, Some(self.method.as_bytes()));
        next(out, &mut pieces);
        quoted(out, Some(self.path.as_bytes()));
        for _ in 0..2 {
            next(out, &mut pieces); // of the answer, and of the upstream's: the same
            put_number(out, done.status.into());
        }
        let ids: [Option<&[u8]>; 5] = [
            self.call_in.as_ref().map(|id| &id[..]),
            self.call_out.as_ref().map(|id| &id[..]),
            Some(&self.request_id),
            Some(&self.trace_id),
            Some(&self.span_id),
        ];
        for id in ids {
            next(out, &mut pieces);
            quoted(out, id);
        }
        for size in [self.bytes_in, done.bytes_out] {
            next(out, &mut pieces);
            put_number(out, size as u64);
        }
        let upstream_ms = milliseconds(done.heard_at - self.decided_at);
        for time in [self.decide_ms(), upstream_ms, milliseconds(done.answered_at - self.started_at)] {
            next(out, &mut pieces);
            put_float(out, time);
        }
        next(out, &mut pieces);
        out.extend_from_slice(if self.after_request { b"true" } else { b"false" });
        next(out, &mut pieces);
        quoted(out, (!before.is_empty()).then_some(before));
        next(out, &mut pieces);
        Ok(())
    }
}

#[pymethods]
impl Call {
    /// Take the whole answer. False: the engine in Python goes on with it, and with the request. None: its rest is
    /// missing, and nothing was taken.
    fn __call__(
        slf: &Bound<'_, Self>,
        upstream: &Bound<'_, PyAny>,
        data: &Bound<'_, PyBytes>,
    ) -> PyResult<Option<bool>> {
        let (py, this) = (slf.py(), slf.get());
        let Some(live) = this.take() else { return Ok(Some(false)) };
        let found = if live.upstream.is(upstream) {
            this.side.certain(py, || this.answer(py, &live, data.as_bytes()))
        } else {
            Ok(None)
        };
        match found {
            Ok(Some(Arrived::Whole(status, message))) => {
                guarded(|| Self::finish(slf, live, status, &message)).map(|()| Some(true))
            }
            Ok(Some(Arrived::Part)) => {
                this.live(live);
                let now = this.side.now(py)?;
                this.heard_at.get_or_init(|| now);
                Ok(None)
            }
            other => {
                this.live(live);
                if let Some(asked) = &this.asked {
                    asked.state.bind(py).call_method0(intern!(py, "handed_over"))?;
                }
                this.inflate(py)?;
                other.map(|_| Some(false))
            }
        }
    }

    /// Make the ghosts real: the engine in Python serves this request from here on. Without effect the second time.
    fn inflate(&self, py: Python<'_>) -> PyResult<()> {
        let Some(live) = self.take() else { return Ok(()) };
        let mut traceparent = Vec::with_capacity(55);
        self.traceparent(&mut traceparent);
        let mut at = Vec::with_capacity(27);
        put_time(&mut at, self.wall);
        let known = PyDict::new(py);
        known.set_item("ts", text(&at))?;
        known.set_item("op", self.asked.as_ref().map(|asked| &*asked.op))?;
        known.set_item("method", &*self.method)?;
        known.set_item("path", &*self.path)?;
        known.set_item("call_in", self.call_in.as_ref().map(|id| text(id)))?;
        known.set_item("call_out", self.call_out.as_ref().map(|id| text(id)))?;
        known.set_item("request_id", text(&self.request_id))?;
        known.set_item("trace_id", text(&self.trace_id))?;
        known.set_item("span_id", self.span(py))?;
        known.set_item("decide_ms", self.decide_ms())?;
        known.set_item("after_request", self.after_request)?;
        let connections = (live.connection, live.upstream, &self.origin);
        let ghosts = (live.ghosts.stream, live.ghosts.entry, live.ghosts.forwarding);
        let target = self.target.as_ref().map(|target| PyBytes::new(py, target));
        let handle = self.opened.as_ref().map(|opened| &opened.handle);
        let read = self.asked.as_ref().map(|asked| &asked.state);
        let message = (live.data, self.bytes_in, target, handle, read);
        let noted = (self.started_at, self.decided_at, text(&traceparent), known);
        self.side.inflate.bind(py).call1((&self.given, connections, ghosts, message, noted))?; // `warm.WarmSide.inflate`
        Ok(())
    }

    /// What a `ServedRequest` is made of: (what was given, the call id, the guard, the epoch).
    #[allow(clippy::type_complexity)]
    fn served(&self, py: Python<'_>) -> PyResult<(Py<PyAny>, Option<&str>, Option<Py<PyAny>>, Option<Py<PyAny>>)> {
        let _ = self.served.set(());
        let guard = self.peer.as_ref().map(|peer| peer.get().guard.clone_ref(py));
        let epoch = self.opened.as_ref().map(|opened| opened.epoch.clone_ref(py));
        Ok((self.given.clone_ref(py), self.call_in.as_ref().map(|id| text(id)), guard, epoch))
    }

    /// Read one key of the record, as far as requests are counted, named and exported by it.
    fn __getitem__<'py>(&self, py: Python<'py>, key: &str) -> PyResult<Bound<'py, PyAny>> {
        let prepared = self.prepared.get();
        Ok(match key {
            "event" => intern!(py, "request").clone().into_any(),
            "span_id" => self.span(py),
            "direction" => self.side.direction.bind(py).clone(),
            "route" => prepared.route_name.bind(py).clone(),
            "decision" => intern!(py, "allow").clone().into_any(),
            "reason" => intern!(py, "ok").clone().into_any(),
            "chain_depth" => prepared.depth.bind(py).clone(),
            "op" => self.asked.as_ref().map(|asked| &*asked.op).into_pyobject(py)?,
            "total_ms" => self.total_ms().into_pyobject(py)?,
            "decide_ms" => self.decide_ms().into_pyobject(py)?.into_any(),
            "seq" => self.done.get().map(|done| done.seq).into_pyobject(py)?,
            "request_id" => PyString::new(py, text(&self.request_id)).into_any(),
            "path" => PyString::new(py, &self.path).into_any(),
            "method" => PyString::new(py, &self.method).into_any(),
            _ => return Err(PyKeyError::new_err(key.to_owned())),
        })
    }

    /// Read one key, or None.
    fn get<'py>(&self, py: Python<'py>, key: &str) -> Option<Bound<'py, PyAny>> {
        self.__getitem__(py, key).ok()
    }
}
