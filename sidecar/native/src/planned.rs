//! What is kept beside a plan for the next call by it: where its issued token lies, and all that it holds by.

use crate::side::Side;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

/// An object, an attribute of it, and its value.
type Fact = (Py<PyAny>, Py<PyString>, Py<PyAny>);

/// Made by the engine in Python when it has looked up a call. It holds for the policy of that number, in the seconds from
/// `begins` until before `ends`, while each fact has the same value. `key` is that of the issued token in its cache, which
/// is of `tokens`. `PLANNED_BYTES` in `engine.py` is its account.
#[pyclass(frozen)]
pub struct PlannedCall {
    delegation: Py<PyAny>,
    route: Py<PyAny>,
    policy: i64,
    begins: i64,
    ends: i64,
    facts: Box<[Fact]>,
    pub tokens: Py<PyAny>,
    kept: Py<PyAny>,
    entries: Py<PyDict>,
    move_to_end: Py<PyAny>, // of the entries
    key: Py<PyAny>,
    bound_to: Py<PyAny>,
    pub origin: Py<PyAny>,
}

#[pymethods]
impl PlannedCall {
    #[new]
    #[allow(clippy::too_many_arguments)]
    fn new(
        plan: &Bound<'_, PyAny>,
        policy: i64,
        begins: i64,
        ends: i64,
        facts: Vec<Fact>,
        tokens: Bound<'_, PyAny>,
        key: Py<PyAny>,
        bound_to: Py<PyAny>,
        origin: Py<PyAny>,
    ) -> PyResult<Self> {
        let kept = tokens.getattr("tokens")?.getattr("kept")?;
        let entries = kept.getattr("entries")?.cast_into::<PyDict>()?;
        Ok(Self {
            delegation: plan.getattr("delegation")?.unbind(),
            route: plan.getattr("route")?.unbind(),
            policy,
            begins,
            ends,
            facts: facts.into(),
            tokens: tokens.unbind(),
            move_to_end: entries.getattr("move_to_end")?.unbind(),
            entries: entries.unbind(),
            kept: kept.unbind(),
            key,
            bound_to,
            origin,
        })
    }

    /// The bytes of this object and of its facts, for `sys.getsizeof`.
    fn __sizeof__(&self) -> usize {
        size_of::<pyo3::ffi::PyObject>() + size_of::<Self>() + size_of_val(&*self.facts)
    }

    /// Show the objects that lead back here: a token service holds its tokens, they their plans, and those this one.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.entries)?;
        for one in [&self.delegation, &self.route, &self.tokens, &self.kept, &self.move_to_end, &self.key, &self.origin]
        {
            visit.call(one)?;
        }
        self.facts.iter().try_for_each(|(of, _, value)| visit.call(of).and_then(|()| visit.call(value)))
    }
}

impl PlannedCall {
    /// Tell if it was made for just this delegation and route.
    pub fn is_of(&self, delegation: &Bound<'_, PyAny>, route: &Bound<'_, PyAny>) -> bool {
        delegation.is(&self.delegation) && route.is(&self.route)
    }

    /// The token that a look-up would find now; None: something may have changed, and has to be looked up.
    pub fn issued<'py>(&self, py: Python<'py>, policy: i64, now: i64) -> PyResult<Option<Bound<'py, PyAny>>> {
        if policy != self.policy || !(self.begins..self.ends).contains(&now) {
            return Ok(None);
        }
        for (of, name, value) in &self.facts {
            if !of.bind(py).getattr(name)?.is(value) {
                return Ok(None);
            }
        }
        let Some(entry) = self.entries.bind(py).get_item(&self.key)? else { return Ok(None) };
        let issued = entry.cast::<PyTuple>()?.get_item(0)?;
        let bound_to = issued.getattr(intern!(py, "bound_to"))?;
        let same = bound_to.is(&self.bound_to) || bound_to.eq(&self.bound_to)?;
        Ok(same.then_some(issued))
    }

    /// Count the look-up of the issued token that was not made, and mark the token as used, as ``IssuedTokens.find``.
    pub fn count(&self, py: Python<'_>) -> PyResult<()> {
        Side::count(self.kept.bind(py), intern!(py, "hits"))?;
        self.move_to_end.bind(py).call1((&self.key,)).map(|_| ())
    }
}
