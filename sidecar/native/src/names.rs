//! Names of fields that pass. The rule is the core's: it is asked once for each name.

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

const MOST_NAMES: usize = 1024;
const LONGEST: usize = 64;

pub struct Names {
    passes: Py<PyAny>,
    known: Mutex<HashMap<Box<[u8]>, bool>>,
}

impl Names {
    pub fn new(passes: Py<PyAny>) -> Self {
        Self { passes, known: Mutex::new(HashMap::new()) }
    }

    /// Append the name in lower case to `out` if fields of this name pass. `None`: the name is too long to be kept.
    pub fn pass(&self, py: Python<'_>, name: &[u8], out: &mut Vec<u8>) -> PyResult<Option<bool>> {
        if name.len() > LONGEST {
            return Ok(None);
        }
        let begin = out.len();
        out.extend(name.iter().map(u8::to_ascii_lowercase));
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&out[begin..]).copied();
        let passes = match known {
            Some(passes) => passes,
            None => self.ask(py, &out[begin..])?,
        };
        if !passes {
            out.truncate(begin);
        }
        Ok(Some(passes))
    }

    fn ask(&self, py: Python<'_>, name: &[u8]) -> PyResult<bool> {
        let passes = self.passes.bind(py).call1((PyBytes::new(py, name),))?.extract::<bool>()?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_NAMES {
            known.clear();
        }
        known.insert(name.into(), passes);
        Ok(passes)
    }
}
