//! Names of fields that pass. The rule is the core's: it is asked once for each name.

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

const MOST_NAMES: usize = 1024;
const LONGEST: usize = 64;
const PLACES: usize = 128; // of names as they were sent last; a power of two

pub struct Names {
    passes: Py<PyAny>,
    known: Mutex<Known>,
}

/// Answers by the name in lower case; and some of them by the name as it was sent, which takes no hash to find.
struct Known {
    answers: HashMap<Box<[u8]>, bool>,
    sent: Box<[Option<Sent>; PLACES]>,
}

struct Sent {
    name: Box<[u8]>,
    lower: Box<[u8]>,
    passes: bool,
}

fn place_of(name: &[u8]) -> usize {
    let end = |octet: Option<&u8>| usize::from(octet.copied().unwrap_or_default());
    (name.len() * 31 + end(name.first()) * 7 + end(name.last())) % PLACES
}

impl Names {
    pub fn new(passes: Py<PyAny>) -> Self {
        let known = Known { answers: HashMap::new(), sent: Box::new([const { None }; PLACES]) };
        Self { passes, known: Mutex::new(known) }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Append the name in lower case to `out` if fields of this name pass. `None`: the name is too long to be kept.
    pub fn pass(&self, py: Python<'_>, name: &[u8], out: &mut Vec<u8>) -> PyResult<Option<bool>> {
        if name.len() > LONGEST {
            return Ok(None);
        }
        let place = place_of(name);
        if let Some(sent) = &self.known().sent[place]
            && *sent.name == *name
        {
            if sent.passes {
                out.extend_from_slice(&sent.lower);
            }
            return Ok(Some(sent.passes));
        }
        let lower = name.to_ascii_lowercase();
        let known = self.known().answers.get(&*lower).copied();
        let passes = match known {
            Some(passes) => passes,
            None => self.ask(py, &lower)?,
        };
        if passes {
            out.extend_from_slice(&lower);
        }
        self.known().sent[place] = Some(Sent { name: name.into(), lower: lower.into(), passes });
        Ok(Some(passes))
    }

    fn ask(&self, py: Python<'_>, name: &[u8]) -> PyResult<bool> {
        let passes = self.passes.bind(py).call1((PyBytes::new(py, name),))?.extract::<bool>()?;
        let mut known = self.known();
        if known.answers.len() >= MOST_NAMES {
            known.answers.clear();
        }
        known.answers.insert(name.into(), passes);
        Ok(passes)
    }
}
