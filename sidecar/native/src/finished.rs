//! Requests that have ended and are not counted yet, for `observe/tally.py`.

use crate::prepared::Prepared;
use pyo3::prelude::*;
use std::sync::{Mutex, PoisonError};

/// A route, a depth of chains, an operation, and how many requests were of all three.
type Kind = (Py<PyAny>, Py<PyAny>, Option<String>, u64);

#[derive(Default)]
struct Uncounted {
    kinds: Vec<Kind>,
    total_ms: Vec<f64>,
    decide_ms: Vec<f64>,
}

/// The requests of one direction: all were allowed.
#[pyclass(frozen)]
#[derive(Default)]
pub struct Finished {
    uncounted: Mutex<Uncounted>,
}

#[pymethods]
impl Finished {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// Take what is uncounted: ([(route, depth, operation, times)], [total_ms], [decide_ms]). A kind may be there twice.
    fn take(&self) -> (Vec<Kind>, Vec<f64>, Vec<f64>) {
        let taken = std::mem::take(&mut *self.uncounted.lock().unwrap_or_else(PoisonError::into_inner));
        (taken.kinds, taken.total_ms, taken.decide_ms)
    }
}

impl Finished {
    /// Add a request, and return how many are uncounted now.
    pub fn add(&self, py: Python<'_>, prepared: &Prepared, op: Option<&str>, total_ms: f64, decide_ms: f64) -> usize {
        let mut uncounted = self.uncounted.lock().unwrap_or_else(PoisonError::into_inner);
        let (route, depth) = (&prepared.route_name, &prepared.depth);
        match uncounted.kinds.iter_mut().find(|kind| kind.0.is(route) && kind.1.is(depth) && kind.2.as_deref() == op) {
            Some(kind) => kind.3 += 1,
            None => uncounted.kinds.push((route.clone_ref(py), depth.clone_ref(py), op.map(Into::into), 1)),
        }
        uncounted.total_ms.push(total_ms);
        uncounted.decide_ms.push(decide_ms);
        uncounted.total_ms.len()
    }
}
