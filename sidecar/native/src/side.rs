//! One side of a sidecar: the objects of the engine in Python that a warm request touches, held once.

use crate::finished::Finished;
use crate::ghosts::GhostPool;
use crate::guarded::guarded;
use crate::head::{self, Limits, RequestHead};
use crate::names::Names;
use crate::writes::WriteBatch;
use pyo3::exceptions::PyException;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PySet, PyString};
use std::collections::HashMap;

pub const MOST_ROUTES: usize = 512; // remembered
pub const MOST_RECORD: usize = 2048; // bytes of a line that needs no cleaning: `record_text.MAX_TEXT`
const LONGEST_PATH: usize = 512;
const MOST_HELD: usize = 16 * 1024; // bytes of a body that may be waited for

/// A head that is certain, with its whole body behind it, unless it `lacks` some. `path_end` is of its target.
pub struct Whole {
    pub head: RequestHead,
    pub path_end: usize,
    pub lacks: bool,
}

/// A pool, its idle connections, and the last of them.
type Free<'py> = (Bound<'py, PyAny>, Bound<'py, PyList>, Bound<'py, PyAny>);

pub struct Side {
    pub snapshots: Py<PyAny>,
    pub log: Py<PyAny>,
    pub writer: Py<PyAny>,
    pub entries: Py<PyDict>,
    pub young: Py<PySet>,
    pub pools: Py<PyDict>,
    pub wall: Py<PyAny>,
    pub monotonic: Py<PyAny>,
    pub inflate: Py<PyAny>,
    pub next_trace: Option<Py<PyAny>>, // None: traces are not exported
    pub ghosts: GhostPool,
    refusal: Py<PyAny>,
    report: Py<PyAny>,
    pub client: Py<PyAny>,
    pub idle: Py<PyAny>,
    pub asked: Py<PyAny>,
    pub spent: Py<PyAny>,
    pub open: Py<PyAny>,
    pub direction: Py<PyAny>,
    pub tally: Py<PyAny>,
    pub finished: Py<Finished>,
    records: Py<PyAny>,
    append: Py<PyAny>, // to them
    pub at_once: usize,
    pub max_idle: usize,
    pub count_at: usize,
    pub limits: Limits,
    pub answer_limits: Limits,
    pub most_body: usize,
    pub passes: Names,
    pub answer_passes: Names,
    pub status_lines: HashMap<u16, Vec<u8>>,
}

impl Side {
    pub fn of(parts: &Bound<'_, PyAny>) -> PyResult<Self> {
        let get = |name: &str| parts.getattr(name).map(Bound::unbind);
        let number = |name: &str| parts.getattr(name)?.extract::<usize>();
        let limits = Limits { head: number("max_head")?, target: number("max_target")?, fields: number("max_fields")? };
        let answers = Limits { head: number("max_answer_head")?, target: 0, fields: number("max_answer_fields")? };
        Ok(Self {
            snapshots: get("snapshots")?,
            log: get("log")?,
            writer: get("writer")?,
            entries: parts.getattr("entries")?.cast_into::<PyDict>()?.unbind(),
            young: parts.getattr("young")?.cast_into::<PySet>()?.unbind(),
            pools: parts.getattr("pools")?.cast_into::<PyDict>()?.unbind(),
            wall: get("wall")?,
            monotonic: get("monotonic")?,
            ghosts: GhostPool::new(get("new_stream")?, get("new_entry")?, get("new_forwarding")?),
            inflate: get("inflate")?,
            next_trace: parts.getattr("next_trace")?.extract()?,
            refusal: get("refusal")?,
            report: get("report")?,
            client: get("client")?,
            idle: get("idle")?,
            asked: get("asked")?,
            spent: get("spent")?,
            open: get("open")?,
            direction: get("direction")?,
            tally: get("tally")?,
            finished: parts.getattr("finished")?.cast_into::<Finished>()?.unbind(),
            count_at: number("count_at")?,
            records: get("records")?,
            append: parts.getattr("records")?.getattr("append")?.unbind(),
            at_once: number("at_once")?,
            max_idle: number("max_idle")?,
            limits,
            answer_limits: answers,
            most_body: number("max_body")?,
            passes: Names::new(get("passes")?),
            answer_passes: Names::new(get("answer_passes")?),
            status_lines: parts.getattr("status_lines")?.extract()?,
        })
    }

    /// Run a step that has changed nothing yet. None: the engine in Python takes over, and refuses what was refused.
    ///
    /// Any other error than a refusal is a bug of ours. It is reported, and the engine in Python takes over too.
    pub fn certain<T>(&self, py: Python<'_>, step: impl FnOnce() -> PyResult<Option<T>>) -> PyResult<Option<T>> {
        match guarded(step) {
            Err(error) if error.matches(py, &self.refusal)? => Ok(None),
            Err(error) if error.is_instance_of::<PyException>(py) => {
                self.report.bind(py).call1((error.into_value(py),))?;
                Ok(None)
            }
            found => found,
        }
    }

    /// A request that is there to its last byte, or lacks some of a short body, on a canonical path that holds no token.
    pub fn whole(&self, data: &[u8], head: Option<RequestHead>) -> Option<Whole> {
        let head = head?;
        let (length, there) = (head.fields.length.unwrap_or(0), data.len() - head.fields.end);
        let lacks = there < length;
        let most = if lacks { MOST_HELD.min(self.most_body) } else { self.most_body };
        if there > length || length > most || &data[head.method.clone()] == b"HEAD" {
            return None;
        }
        let target = &data[head.target.clone()];
        let path_end = head::canonical(target)?;
        if path_end > LONGEST_PATH || head::may_hold_token(&target[..path_end]) {
            return None;
        }
        Some(Whole { head, path_end, lacks })
    }

    /// Monotonic seconds.
    pub fn now(&self, py: Python<'_>) -> PyResult<f64> {
        self.monotonic.bind(py).call0()?.extract()
    }

    /// Tell if the record of one more request has room, as `AccessLog.reserve` asks.
    pub fn has_room(&self, py: Python<'_>, now: f64) -> PyResult<bool> {
        let (log, writer) = (self.log.bind(py), self.writer.bind(py));
        let number = |of: &Bound<'_, PyAny>, name| of.getattr(name)?.extract::<i64>();
        if now > writer.getattr(intern!(py, "reliable_until"))?.extract::<f64>()? {
            return Ok(false);
        }
        let lines = number(log, intern!(py, "promised"))? - number(writer, intern!(py, "lines_out"))?;
        let bytes = number(writer, intern!(py, "bytes_in"))? - number(writer, intern!(py, "bytes_out"))?;
        Ok(lines < number(log, intern!(py, "max_records"))? && bytes < number(log, intern!(py, "max_bytes"))?)
    }

    /// The free connection that the pool would give, left in its place; None if a call has to wait, or look further.
    pub fn free<'py>(&self, py: Python<'py>, key: &Bound<'py, PyAny>) -> PyResult<Option<Free<'py>>> {
        let Some(pool) = self.pools.bind(py).get_item(key)? else { return Ok(None) };
        let idle = pool.getattr(intern!(py, "idle"))?.cast_into::<PyList>()?;
        let Some(last) = idle.len().checked_sub(1) else { return Ok(None) };
        if last < pool.getattr(intern!(py, "usual"))?.len()? {
            return Ok(None); // all are promised to calls that wait
        }
        let upstream = idle.get_item(last)?;
        let usable = upstream.get_type().is(&self.client) // and not one of HTTP/2
            && upstream.getattr(intern!(py, "state"))?.is(&self.idle)
            && !upstream.getattr(intern!(py, "reading_paused"))?.is_truthy()?
            && !upstream.getattr(intern!(py, "writing_paused"))?.is_truthy()?
            && !upstream.getattr(intern!(py, "transport"))?.call_method0(intern!(py, "is_closing"))?.is_truthy()?;
        Ok(usable.then_some((pool, idle, upstream)))
    }

    /// Write at the end of this event-loop iteration.
    pub fn defer(
        of: &Bound<'_, PyAny>,
        name: &Bound<'_, PyString>,
        transport: Bound<'_, PyAny>,
        data: &[u8],
    ) -> PyResult<()> {
        let py = of.py();
        let writes = of.getattr(name)?;
        let data = PyBytes::new(py, data);
        match writes.cast::<WriteBatch>() {
            Ok(batch) => WriteBatch::defer(batch, transport.unbind(), data.unbind()),
            Err(_) => writes.call_method1(intern!(py, "defer"), (transport, data)).map(|_| ()),
        }
    }

    /// Keep a connection whose request has ended, as `OriginPool.keep`.
    pub fn keep(&self, pool: &Bound<'_, PyAny>, upstream: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = pool.py();
        let idle = pool.getattr(intern!(py, "idle"))?.cast_into::<PyList>()?;
        let is_plain = !pool.getattr(intern!(py, "retired"))?.is_truthy()?
            && idle.len() < self.max_idle
            && pool.getattr(intern!(py, "waiting"))?.len()? == 0;
        if is_plain { idle.append(upstream) } else { pool.call_method1(intern!(py, "keep"), (upstream,)).map(|_| ()) }
    }

    /// Give a record to its writer, as `Writer.put`.
    pub fn put(&self, record: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = record.py();
        let (writer, records) = (self.writer.bind(py), self.records.bind(py));
        if records.len()? + 1 >= self.at_once || !writer.getattr(intern!(py, "awake"))?.is_truthy()? {
            writer.call_method1(intern!(py, "put"), (record,)).map(|_| ())
        } else {
            self.append.bind(py).call1((record,)).map(|_| ())
        }
    }

    /// Add one to a counter.
    pub fn count(of: &Bound<'_, PyAny>, name: &Bound<'_, PyString>) -> PyResult<u64> {
        let next = of.getattr(name)?.extract::<u64>()? + 1;
        of.setattr(name, next)?;
        Ok(next)
    }
}
