//! Panics stop here: a bug in this crate is "not certain", never an unwinding through the interpreter.

use pyo3::prelude::*;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Run a step that has changed nothing yet. An error or a panic means that the engine in Python takes over.
pub fn certain<T>(step: impl FnOnce() -> PyResult<Option<T>>) -> Option<T> {
    catch_unwind(AssertUnwindSafe(step)).ok()?.ok()?
}

/// Run a step that has begun to change things. A panic becomes an error, which ends the connection it is in.
pub fn begun<T>(step: impl FnOnce() -> PyResult<T>) -> PyResult<T> {
    catch_unwind(AssertUnwindSafe(step))
        .unwrap_or_else(|_| Err(pyo3::exceptions::PyRuntimeError::new_err("a bug in the native engine")))
}

/// Panic inside a step, for the test that none crosses.
#[pyfunction]
#[allow(clippy::panic)]
pub fn panic_on_purpose(has_begun: bool) -> PyResult<bool> {
    std::panic::set_hook(Box::new(|_| {}));
    let result = if has_begun {
        begun(|| panic!("on purpose"))
    } else {
        Ok(certain(|| -> PyResult<Option<bool>> { panic!("on purpose") }).unwrap_or(false))
    };
    let _ = std::panic::take_hook();
    result
}
