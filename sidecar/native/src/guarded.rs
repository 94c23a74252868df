//! Panics stop here: a bug in this crate is an error in Python, never an unwinding through the interpreter.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static PANICKED_AT: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keep the place of each panic, and print nothing: its message may quote what a request holds.
pub fn keep_places_of_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(|at| format!("{}:{}", at.file(), at.line())).unwrap_or_default();
        PANICKED_AT.with_borrow_mut(|kept| *kept = place);
    }));
}

/// Run a step. A panic becomes an error that names its place.
pub fn guarded<T>(step: impl FnOnce() -> PyResult<T>) -> PyResult<T> {
    catch_unwind(AssertUnwindSafe(step)).unwrap_or_else(|_| {
        let place = PANICKED_AT.with_borrow(Clone::clone);
        Err(PyRuntimeError::new_err(format!("a bug in the native engine, at {place}")))
    })
}

/// Panic inside a step, for the test that none crosses.
#[pyfunction]
#[allow(clippy::panic)]
pub fn panic_on_purpose(message: &str) -> PyResult<()> {
    guarded(|| panic!("{message}"))
}
