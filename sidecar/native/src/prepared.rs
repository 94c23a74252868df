//! What is the same for every request of one permit: its fields for the agent, and the rest of its record.

use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// The keys of a record that differ by request, in their order. `pieces` of a record lie around them.
pub const VARYING: usize = 18;

/// Made by the engine in Python from a permit. `pieces`: the text of its record around the values that differ by
/// request. `lines`: fields of ours. `begins` and `ends`: the seconds within which the token is valid.
#[pyclass(frozen)]
pub struct Prepared {
    pub pieces: Vec<Vec<u8>>,
    pub lines: Vec<u8>,
    pub begins: i64,
    pub ends: i64,
    pub route_name: Py<PyAny>,
    pub depth: Py<PyAny>,
    pub workload: Py<PyAny>,
    pub size: usize,
}

#[pymethods]
impl Prepared {
    #[new]
    #[pyo3(signature = (*, pieces, lines, begins, ends, route_name, depth, workload))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        pieces: Vec<Py<PyBytes>>,
        lines: &[u8],
        begins: i64,
        ends: i64,
        route_name: Py<PyAny>,
        depth: Py<PyAny>,
        workload: Py<PyAny>,
    ) -> PyResult<Self> {
        let pieces: Vec<Vec<u8>> = pieces.iter().map(|one| one.as_bytes(py).to_vec()).collect();
        if pieces.len() != VARYING + 1 {
            return Err(pyo3::exceptions::PyValueError::new_err("a record has another number of varying keys"));
        }
        let size = pieces.iter().map(Vec::len).sum();
        Ok(Self { pieces, lines: lines.to_vec(), begins, ends, route_name, depth, workload, size })
    }
}
