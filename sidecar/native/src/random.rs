//! Unguessable text, as `proxy/journeys/random_text.py` makes it: of the system's random octets, each used once.

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::array::from_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};

pub const HANDLE: usize = 43; // characters of a handle beside its mark: `random_text.random_258`
const BLOCK: usize = 4096; // octets of one system call
const BASE64URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static UNUSED: Mutex<Vec<u8>> = Mutex::new(Vec::new());

fn unused() -> MutexGuard<'static, Vec<u8>> {
    UNUSED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Drop the octets at hand: a forked process must not use those of its parent.
#[pyfunction]
pub fn forget_random() {
    unused().clear();
}

/// A handle without its mark, for the test of what follows a fork.
#[pyfunction]
pub fn random_handle(py: Python<'_>) -> PyResult<String> {
    base64url::<HANDLE>(py).map(|text| text.map(char::from).iter().collect())
}

/// Text of hex digits, of 4 random bits each.
pub fn hex<const SIZE: usize>(py: Python<'_>) -> PyResult<[u8; SIZE]> {
    spelled(py, |octet| b"0123456789abcdef"[usize::from(octet & 15)])
}

/// Text in the alphabet of RFC 4648 section 5, of 6 random bits a character.
pub fn base64url<const SIZE: usize>(py: Python<'_>) -> PyResult<[u8; SIZE]> {
    spelled(py, |octet| BASE64URL[usize::from(octet & 63)])
}

fn spelled<const SIZE: usize>(py: Python<'_>, spell: impl Fn(u8) -> u8) -> PyResult<[u8; SIZE]> {
    loop {
        {
            let mut unused = unused();
            if let Some(left) = unused.len().checked_sub(SIZE) {
                let text = from_fn(|at| spell(unused[left + at]));
                unused.truncate(left);
                return Ok(text);
            }
        }
        let fresh = py.import("os")?.call_method1("urandom", (BLOCK,))?.cast_into::<PyBytes>()?; // without the lock
        unused().splice(.., fresh.as_bytes().iter().copied());
    }
}
