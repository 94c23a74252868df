//! The batch of writes of one side's connections: `wire/scheduling.py` has its reasons, and the same in Python.

use pyo3::exceptions::PyException;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

const MOST_DEFERRED: usize = 16 * 1024; // bytes; a longer write is worth a system call of its own

type Write = (Py<PyAny>, Py<PyBytes>);

/// As `scheduling.WriteBatch`. `running_loop` is that of asyncio, `log` where a failed write is told.
#[pyclass(frozen)]
pub struct WriteBatch {
    most: usize,
    running_loop: Py<PyAny>,
    log: Py<PyAny>,
    waiting: Mutex<VecDeque<Write>>,
}

impl WriteBatch {
    fn waiting(&self) -> MutexGuard<'_, VecDeque<Write>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl WriteBatch {
    #[new]
    fn new(most: usize, running_loop: Py<PyAny>, log: Py<PyAny>) -> Self {
        Self { most, running_loop, log, waiting: Mutex::new(VecDeque::new()) }
    }

    /// Write at the end of this event-loop iteration at the latest.
    pub fn defer(slf: &Bound<'_, Self>, transport: Py<PyAny>, data: Py<PyBytes>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let size = data.as_bytes(py).len();
        let waiting = {
            let mut waiting = this.waiting();
            waiting.push_back((transport, data));
            waiting.len()
        };
        if waiting >= this.most || size > MOST_DEFERRED {
            return this.write_all(py);
        }
        if waiting == 1 {
            let running = this.running_loop.bind(py).call0()?;
            running.call_method1(intern!(py, "call_soon"), (slf.getattr(intern!(py, "write_all"))?,))?;
        }
        Ok(())
    }

    /// Write the whole batch. Data for a closed connection is dropped.
    ///
    /// A write may pause its connection, and the callback may end one and call this again: the inner call continues with
    /// the batch, so that nothing is left to write after that end.
    pub fn write_all(&self, py: Python<'_>) -> PyResult<()> {
        loop {
            let Some((transport, data)) = self.waiting().pop_front() else { return Ok(()) };
            let transport = transport.bind(py);
            if let Err(error) = write(transport, data) {
                if !error.is_instance_of::<PyException>(py) {
                    return Err(error);
                }
                let told = PyDict::new(py);
                told.set_item("exc_info", error.into_value(py))?;
                self.log.bind(py).call_method("error", ("a write failed",), Some(&told))?;
                transport.call_method0("abort")?;
            }
        }
    }
}

fn write(transport: &Bound<'_, PyAny>, data: Py<PyBytes>) -> PyResult<()> {
    let py = transport.py();
    if !transport.call_method0(intern!(py, "is_closing"))?.is_truthy()? {
        transport.call_method1(intern!(py, "write"), (data,))?;
    }
    Ok(())
}
