//! Messages of MCP and A2A: the engine in Python reads each before anything is sent, and some of their answers.

use crate::head::{AnswerHead, RequestHead, may_hold_token};
use crate::names::Names;
use crate::readers;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyTuple};
use std::ops::Range;

/// What differs from other requests, for all messages of one kind. Made by the engine in Python.
#[pyclass(frozen)]
pub struct Kind {
    pub passes: Option<Names>, // None: as for other requests
    pub answer_passes: Option<Names>,
    pub new_forwarding: Py<PyAny>,
    told: Box<[u8]>, // the name of a field with which an answer is given to the engine in Python
    reads_answers: bool,
}

#[pymethods]
impl Kind {
    #[new]
    #[pyo3(signature = (*, passes, answer_passes, new_forwarding, told, reads_answers))]
    fn new(
        passes: Option<Py<PyAny>>,
        answer_passes: Option<Py<PyAny>>,
        new_forwarding: Py<PyAny>,
        told: &[u8],
        reads_answers: bool,
    ) -> Self {
        let (passes, answer_passes) = (passes.map(Names::new), answer_passes.map(Names::new));
        Self { passes, answer_passes, new_forwarding, told: told.into(), reads_answers }
    }
}

/// The operation of a message, as records name it. `state` is of the engine in Python, and reads the answer.
pub struct Asked {
    pub op: Box<str>,
    pub kind: Py<Kind>,
    pub state: Py<PyAny>,
}

/// A message that was read. `of`: the route of its operation, or what was given for it. `lines`: fields to add.
pub struct Read<'py> {
    pub of: Bound<'py, PyAny>,
    pub asked: Asked,
    pub lines: Bound<'py, PyBytes>,
}

/// A message as a reader gets it: (names, values, method, target, host, length, body). The body is None if it `lacks` some.
type Message<'py> =
    (Py<PyTuple>, Py<PyTuple>, &'py str, Bound<'py, PyBytes>, &'py str, Option<usize>, Option<Bound<'py, PyBytes>>);

pub fn message<'py>(py: Python<'py>, data: &'py [u8], head: &RequestHead, lacks: bool) -> PyResult<Message<'py>> {
    let (names, values, length, size) = readers::of(py, data, &head.fields)?;
    let text = |range: &Range<usize>| std::str::from_utf8(&data[range.clone()]);
    let target = PyBytes::new(py, &data[head.target.clone()]);
    let body = (!lacks).then(|| PyBytes::new(py, &data[size..]));
    Ok((names, values, text(&head.method)?, target, text(&head.host)?, length, body))
}

impl<'py> Read<'py> {
    /// What a reader has returned. None: the message is the engine in Python's. Some(None): its rest is missing.
    pub fn from(read: &Bound<'py, PyAny>) -> PyResult<Option<Option<Self>>> {
        if let Ok(waits) = read.cast::<PyBool>() {
            return Ok(waits.is_true().then_some(None));
        }
        let (of, op, lines, kind, state) = read.cast::<PyTuple>()?.extract::<(_, String, _, Bound<'py, Kind>, _)>()?;
        let plain = op.bytes().all(|octet| matches!(octet, 0x20..=0x7e) && octet != b'"' && octet != b'\\');
        if !plain || may_hold_token(op.as_bytes()) {
            return Ok(None);
        }
        Ok(Some(Some(Self { of, asked: Asked { op: op.into(), kind: kind.unbind(), state }, lines })))
    }
}

impl Asked {
    /// The fields that an answer gets beside its own; None: the engine in Python passes it on.
    pub fn answered(&self, py: Python<'_>, head: &AnswerHead, data: &[u8]) -> PyResult<Option<Vec<u8>>> {
        let kind = self.kind.get();
        let is_told = |name: &[u8]| name.eq_ignore_ascii_case(&kind.told);
        let mut told = head.fields.all.iter().filter(|field| is_told(&data[field.name.clone()]));
        let (first, second) = (told.next(), told.next());
        if second.is_some() || head.is_event_stream(data) {
            return Ok(None);
        }
        if first.is_none() && !kind.reads_answers {
            return Ok(Some(Vec::new()));
        }
        let value = first.map(|field| PyBytes::new(py, &data[field.value.clone()]));
        let body = PyBytes::new(py, &data[head.fields.end..]);
        self.state.bind(py).call_method1(intern!(py, "answered"), (head.status, value, body))?.extract()
    }
}
