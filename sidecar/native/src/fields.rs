//! The fields of a request on their way: those that pass are written, those that are ours are read.

use crate::call::Call;
use crate::head::{self, RequestHead};
use crate::names::Names;
use crate::random;
use crate::side::Side;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyTuple};

/// A `TraceContext`: (traceparent, trace id, span id, tracestate).
type Trace<'py> = (String, Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyAny>);

/// Fields that never pass and that a request is judged or joined by.
#[derive(Default)]
pub struct Own<'a> {
    pub authorization: Option<&'a [u8]>,
    pub handle: Option<&'a [u8]>,
    pub call_in: Option<[u8; 32]>,
    pub trace: Option<([u8; 32], u8)>,
    pub traceparent: Option<&'a [u8]>, // of which `trace` is
}

impl Side {
    /// Write the fields that pass by `passes`, and return those that are ours to read. None: one of them is not certain.
    pub fn fields<'a>(
        &self,
        py: Python<'_>,
        data: &'a [u8],
        head: &RequestHead,
        passes: &Names,
        out: &mut Vec<u8>,
    ) -> PyResult<Option<Own<'a>>> {
        let mut own = Own::default();
        for field in &head.fields.all {
            let (name, value) = (&data[field.name.clone()], &data[field.value.clone()]);
            match passes.pass(py, name, out)? {
                None => return Ok(None),
                Some(true) => {
                    out.extend_from_slice(b": ");
                    out.extend_from_slice(value);
                    out.extend_from_slice(b"\r\n");
                    continue;
                }
                Some(false) => {}
            }
            match name.len() {
                13 if name.eq_ignore_ascii_case(b"authorization") => {
                    if own.authorization.is_some() {
                        return Ok(None);
                    }
                    own.authorization = Some(value);
                }
                15 if name.eq_ignore_ascii_case(b"delegation-call") => {
                    if own.call_in.is_some() || !head::is_call_id(value) {
                        return Ok(None);
                    }
                    own.call_in = value.try_into().ok();
                }
                11 if name.eq_ignore_ascii_case(b"traceparent") => {
                    if own.trace.is_some() {
                        return Ok(None);
                    }
                    own.trace = head::parent(value);
                    own.traceparent = Some(value);
                    if own.trace.is_none() {
                        return Ok(None);
                    }
                }
                10 if name.eq_ignore_ascii_case(b"tracestate") => return Ok(None),
                17 if name.eq_ignore_ascii_case(b"delegation-handle") => {
                    if own.handle.is_some() {
                        return Ok(None);
                    }
                    own.handle = Some(value);
                }
                _ => {}
            }
        }
        Ok(Some(own))
    }

    /// Give a request its ids: its own, and those of its trace, which continues the caller's.
    ///
    /// Where traces are exported, the engine in Python continues each, and decides if it is recorded.
    pub fn identify(&self, py: Python<'_>, call: &mut Call, own: &Own<'_>) -> PyResult<()> {
        call.request_id = random::hex(py)?;
        if let Some(next_trace) = &self.next_trace {
            let parent = own.traceparent.map(|parent| PyBytes::new(py, parent));
            let call_in = call.call_in.as_ref().map(|id| std::str::from_utf8(id)).transpose()?;
            let trace = next_trace.bind(py).call1((call_in, PyTuple::new(py, parent)?, ()))?;
            let (traceparent, trace_id, span_id, _): Trace<'_> = trace.extract()?;
            (call.trace_id, call.span_id) = (id(&trace_id)?, id(&span_id)?);
            call.flags = traceparent.bytes().last().map_or(0, |digit| digit & 3);
            call.traced = Some(span_id.unbind());
            return Ok(());
        }
        call.span_id = random::hex(py)?;
        match own.trace {
            Some((trace_id, flags)) => (call.trace_id, call.flags) = (trace_id, flags),
            None => call.trace_id = random::hex(py)?,
        }
        Ok(())
    }
}

/// The octets of an id of a known length.
pub fn id<const SIZE: usize>(text: &Bound<'_, PyAny>) -> PyResult<[u8; SIZE]> {
    let text = text.cast::<PyString>()?.to_str()?.as_bytes();
    text.try_into().map_err(|_| pyo3::exceptions::PyValueError::new_err("an id of another length"))
}
