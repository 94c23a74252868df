//! The pure readers by themselves, for the tests that compare both engines.

use crate::guarded::guarded;
use crate::head::{self, Fields, Limits};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

pub type Read<'py> = (Py<PyTuple>, Py<PyTuple>, Option<usize>, usize);

/// The names in lower case and the values of fields, the length that they state, and the size of the head.
pub fn of<'py>(py: Python<'py>, data: &[u8], fields: &Fields) -> PyResult<Read<'py>> {
    let names = fields.all.iter().map(|one| PyBytes::new(py, &data[one.name.clone()].to_ascii_lowercase()));
    let values = fields.all.iter().map(|one| PyBytes::new(py, &data[one.value.clone()]));
    let (names, values) = (names.collect::<Vec<_>>(), values.collect::<Vec<_>>());
    Ok((PyTuple::new(py, names)?.unbind(), PyTuple::new(py, values)?.unbind(), fields.length, fields.end))
}

/// Read a request head: (method, target, authority, names, values, content length, size); None if it is not certain.
#[pyfunction]
#[allow(clippy::type_complexity)]
pub fn read_request<'py>(
    py: Python<'py>,
    data: &[u8],
    max_head: usize,
    max_target: usize,
    max_fields: usize,
) -> PyResult<Option<(String, Bound<'py, PyBytes>, String, Py<PyTuple>, Py<PyTuple>, Option<usize>, usize)>> {
    guarded(|| {
        let limits = Limits { head: max_head, target: max_target, fields: max_fields };
        let Some(head) = head::request(data, limits) else { return Ok(None) };
        let (names, values, length, size) = of(py, data, &head.fields)?;
        let method = String::from_utf8(data[head.method].to_vec())?;
        let host = String::from_utf8(data[head.host].to_vec())?;
        Ok(Some((method, PyBytes::new(py, &data[head.target]), host, names, values, length, size)))
    })
}

/// Read the head of a final answer: (status, names, values, content length, size); None if it is not certain.
#[pyfunction]
#[allow(clippy::type_complexity)]
pub fn read_answer<'py>(
    py: Python<'py>,
    data: &[u8],
    max_head: usize,
    max_fields: usize,
) -> PyResult<Option<(u16, Py<PyTuple>, Py<PyTuple>, Option<usize>, usize)>> {
    guarded(|| {
        let Some(head) = head::answer(data, Limits { head: max_head, target: 0, fields: max_fields }) else {
            return Ok(None);
        };
        let (names, values, length, size) = of(py, data, &head.fields)?;
        Ok(Some((head.status, names, values, length, size)))
    })
}

/// The path of a target that is canonical as it was sent; None if it is not certain.
#[pyfunction]
pub fn canonical_path(target: &[u8]) -> PyResult<Option<String>> {
    guarded(|| Ok(head::canonical(target).map(|end| String::from_utf8_lossy(&target[..end]).into_owned())))
}
