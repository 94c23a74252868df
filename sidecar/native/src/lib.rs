//! The warm request of the sidecar: an optional second engine beside the one in Python.
//!
//! It decides nothing. A permit comes from the core, and what ends it is asked of the core's own objects at each
//! request. Whatever is not certain is left to the engine in Python before a byte has left: the functions here return
//! `None` or `False`, and have changed nothing. State stays in Python: connections, pool, handles, records in flight.

mod call;
mod chain;
mod fields;
mod finished;
mod ghosts;
mod guarded;
mod head;
mod inbound;
mod names;
mod operation;
mod outbound;
mod peer;
mod planned;
mod prepared;
mod random;
mod readers;
mod ready;
mod side;
mod text;
mod writes;

use pyo3::prelude::*;

#[pymodule]
mod delegation_sidecar_native {
    #[pymodule_export]
    use super::call::Call;
    #[pymodule_export]
    use super::chain::link;
    #[pymodule_export]
    use super::finished::Finished;
    #[pymodule_export]
    use super::guarded::panic_on_purpose;
    #[pymodule_export]
    use super::inbound::InboundGate;
    #[pymodule_export]
    use super::operation::Kind;
    #[pymodule_export]
    use super::outbound::OutboundGate;
    #[pymodule_export]
    use super::planned::PlannedCall;
    #[pymodule_export]
    use super::prepared::Prepared;
    #[pymodule_export]
    use super::random::{forget_random, random_handle};
    #[pymodule_export]
    use super::readers::{canonical_path, read_answer, read_request};
    #[pymodule_export]
    use super::writes::WriteBatch;

    use pyo3::prelude::*;
    use pyo3::types::PyDict;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        super::guarded::keep_places_of_panics();
        let after_fork = PyDict::new(module.py());
        after_fork.set_item("after_in_child", module.getattr("forget_random")?)?;
        module.py().import("os")?.call_method("register_at_fork", (), Some(&after_fork))?;
        module.add("INTERFACE", 3)?; // as `engine.py` has it
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
