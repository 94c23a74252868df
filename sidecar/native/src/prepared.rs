//! What is the same for every request of one permit: its fields for the agent, and the rest of its record.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// The keys of a record that differ by request, in their order. The pieces of a record lie around them.
pub const VARYING: usize = 19;

/// Made by the engine in Python from a permit. `pieces`: the text of its record around the values that differ by
/// request, kept as one text. `lines`: fields of ours. `begins` and `ends`: the seconds within which the token is valid.
/// `PREPARED_BYTES` in `engine.py` is its account.
#[pyclass(frozen)]
pub struct Prepared {
    text: Box<[u8]>,
    text_ends: [u16; VARYING + 1],
    pub lines: Box<[u8]>,
    pub begins: i64,
    pub ends: i64,
    pub route_name: Py<PyAny>,
    pub depth: Py<PyAny>,
    pub workload: Py<PyAny>,
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
        if pieces.len() != VARYING + 1 {
            return Err(PyValueError::new_err("a record has another number of varying keys"));
        }
        let mut text = Vec::new();
        let mut text_ends = [0; VARYING + 1];
        for (piece, end) in pieces.iter().zip(&mut text_ends) {
            text.extend_from_slice(piece.as_bytes(py));
            *end = u16::try_from(text.len()).map_err(|_| PyValueError::new_err("a record is too long"))?;
        }
        let (text, lines) = (text.into_boxed_slice(), lines.into());
        Ok(Self { text, text_ends, lines, begins, ends, route_name, depth, workload })
    }

    /// The bytes of this object and of its texts, for `sys.getsizeof`.
    fn __sizeof__(&self) -> usize {
        size_of::<pyo3::ffi::PyObject>() + size_of::<Self>() + self.text.len() + self.lines.len()
    }
}

impl Prepared {
    /// The bytes of all pieces.
    pub fn size(&self) -> usize {
        self.text.len()
    }

    /// The pieces in their order.
    pub fn pieces(&self) -> Pieces<'_> {
        Pieces { text: &self.text, ends: self.text_ends.iter(), at: 0 }
    }
}

pub struct Pieces<'a> {
    text: &'a [u8],
    ends: std::slice::Iter<'a, u16>,
    at: usize,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let end = usize::from(*self.ends.next()?);
        let piece = self.text.get(self.at..end);
        self.at = end;
        piece
    }
}
