//! Lines of records, each linked to the line before it by its hash.

use crate::call::Call;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};
use sha2::{Digest, Sha256};

const NULL: &[u8] = b"null}";

/// Encode records as linked lines: (the lines, the hash of the last one in hex).
///
/// Records of this engine are written here, others by `encode`, which makes lines in which `prev` is null. `before` is
/// the hash of the line before the first, empty if there is none. If it raises, nothing has changed.
#[pyfunction]
pub fn link<'py>(
    py: Python<'py>,
    records: &Bound<'py, PyList>,
    encode: &Bound<'py, PyAny>,
    before: &[u8],
) -> PyResult<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)> {
    let mut out = Vec::with_capacity(records.len() * 1280);
    let mut hash = before.to_vec();
    let mut waiting = PyList::empty(py);
    for record in records.iter() {
        if let Ok(call) = record.cast::<Call>() {
            if !waiting.is_empty() {
                take(&encode.call1((&waiting,))?, &mut out, &mut hash)?;
                waiting = PyList::empty(py);
            }
            let begin = out.len();
            call.get().put_line(py, &hash, &mut out)?;
            hash = hex(&Sha256::digest(&out[begin..])).to_vec();
            out.push(b'\n');
        } else {
            debug_assert!(record.is_instance_of::<PyDict>());
            waiting.append(record)?;
        }
    }
    if !waiting.is_empty() {
        take(&encode.call1((&waiting,))?, &mut out, &mut hash)?;
    }
    Ok((PyBytes::new(py, &out), PyBytes::new(py, &hash)))
}

fn take(lines: &Bound<'_, PyAny>, out: &mut Vec<u8>, hash: &mut Vec<u8>) -> PyResult<()> {
    for line in lines.try_iter()? {
        let line = line?;
        let line = line.cast::<PyBytes>()?.as_bytes();
        let begin = out.len();
        match line.strip_suffix(NULL) {
            Some(start) if !hash.is_empty() => {
                out.extend_from_slice(start);
                out.push(b'"');
                out.extend_from_slice(hash);
                out.extend_from_slice(b"\"}");
            }
            _ => out.extend_from_slice(line),
        }
        *hash = hex(&Sha256::digest(&out[begin..])).to_vec();
        out.push(b'\n');
    }
    Ok(())
}

fn hex(digest: &[u8]) -> [u8; 64] {
    let mut text = [0; 64];
    for (at, octet) in digest.iter().enumerate().take(32) {
        text[2 * at] = b"0123456789abcdef"[usize::from(octet >> 4)];
        text[2 * at + 1] = b"0123456789abcdef"[usize::from(octet & 15)];
    }
    text
}
