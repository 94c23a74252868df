//! The inbound side: a peer's request on the way to the agent.

use crate::call::{Call, Opened};
use crate::guarded::guarded;
use crate::head;
use crate::operation::{self, Read};
use crate::peer::Peer;
use crate::prepared::Prepared;
use crate::random;
use crate::ready::Ready;
use crate::side::{MOST_RECORD, MOST_ROUTES, Side, Whole};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

const VARYING_BYTES: usize = 400; // at most, of a record beside its path
const PLACES: usize = 256; // of keys of permits; a power of two
const MOST_KEPT: usize = 2048; // octets of an Authorization whose key is kept: half a MiB in all places

/// One snapshot, and what follows from it. Begun again with each other snapshot.
struct World {
    snapshot: Py<PyAny>,
    policy: i64,
    keys: Vec<Py<PyAny>>, // whose generations add up
    find: Py<PyAny>,
    depth: usize, // segments of a path
    agent: Py<PyAny>,
    agent_key: Py<PyAny>,
    host_line: Vec<u8>,
    routes: Mutex<HashMap<Box<[u8]>, Arc<Route>>>,
}

struct Route {
    route: Py<PyAny>,
    key: Py<PyAny>,
    is_plain: bool,
    reads: bool, // the operation of each message
}

/// Begins warm requests of peers. Called with a connection that waits for a request, and what has arrived there.
#[pyclass(frozen)]
pub struct InboundGate {
    side: Arc<Side>,
    permits: Py<PyAny>,
    given: Py<PyDict>,
    handles: Py<PyAny>,
    alive: Py<PyDict>,
    new_served: Py<PyAny>,
    mark: String,
    guard_of: Py<PyAny>,
    prepare: Py<PyAny>,
    keys_of: Py<PyAny>,
    is_plain: Py<PyAny>,
    read: Py<PyAny>,
    keys: Mutex<Box<[Option<Py<PyTuple>>]>>, // of permits that were found, by the last octets of their tokens
    world: Mutex<Option<Arc<World>>>,
}

#[pymethods]
impl InboundGate {
    #[new]
    fn new(parts: &Bound<'_, PyAny>) -> PyResult<Self> {
        let get = |name: &str| parts.getattr(name).map(Bound::unbind);
        Ok(Self {
            side: Arc::new(Side::of(parts)?),
            permits: get("permits")?,
            given: parts.getattr("given")?.cast_into::<PyDict>()?.unbind(),
            handles: get("handles")?,
            alive: parts.getattr("alive")?.cast_into::<PyDict>()?.unbind(),
            new_served: get("new_served")?,
            mark: parts.getattr("mark")?.extract()?,
            guard_of: get("guard_of")?,
            prepare: get("prepare")?,
            keys_of: get("keys_of")?,
            is_plain: get("is_plain")?,
            read: get("read")?,
            keys: Mutex::new((0..PLACES).map(|_| None).collect()),
            world: Mutex::new(None),
        })
    }

    /// Begin the request that `data` is. False: it is not certain. None: the rest of its body is missing. In both nothing
    /// has changed.
    fn __call__(&self, connection: &Bound<'_, PyAny>, data: &Bound<'_, PyBytes>) -> PyResult<Option<bool>> {
        let py = connection.py();
        match self.side.certain(py, || self.ready(connection, data.as_bytes()))? {
            None => Ok(Some(false)),
            Some(None) => Ok(None),
            Some(Some(ready)) => guarded(|| self.begin(py, connection, data, ready)).map(|()| Some(true)),
        }
    }
}

impl InboundGate {
    /// The request that may begin; Some(None): it may, when the rest of its body has come.
    fn ready<'py>(&self, connection: &Bound<'py, PyAny>, data: &'py [u8]) -> PyResult<Option<Option<Ready<'py>>>> {
        let py = connection.py();
        let side = &*self.side;
        let Some(whole) = side.whole(data, head::request(data, side.limits)) else { return Ok(None) };
        let Whole { head, path_end, lacks } = whole;
        let path = &data[head.target.clone()][..path_end];
        let mut message = Vec::with_capacity(data.len() + 512);
        message.extend_from_slice(&data[head.method.start..head.target.end]);
        message.extend_from_slice(b" HTTP/1.1\r\n");
        let first_line = message.len();
        let Some(own) = side.fields(py, data, &head, &side.passes, &mut message)? else { return Ok(None) };
        let Some(authorization) = own.authorization else { return Ok(None) };

        let Some(world) = self.world(py)? else { return Ok(None) };
        if connection.getattr(intern!(py, "writing_paused"))?.is_truthy()? {
            return Ok(None);
        }
        let wall: f64 = side.wall.bind(py).call0()?.extract()?;
        let now = wall as i64;
        let peer = self.peer(connection)?;
        let fingerprint = peer.get().fingerprint(py, now)?;
        let method = std::str::from_utf8(&data[head.method.clone()])?;
        let path = std::str::from_utf8(path)?;
        let route = self.route(py, &world, method, path)?;
        if !route.is_plain {
            return Ok(None);
        }

        let permits = self.permits.bind(py);
        let epoch = permits.getattr(intern!(py, "epoch"))?;
        let Ok(epoch) = epoch.cast::<PyTuple>() else { return Ok(None) };
        let mut generation = 0i64;
        for keys in &world.keys {
            generation += keys.bind(py).getattr(intern!(py, "generation"))?.extract::<i64>()?;
        }
        if epoch.get_item(0)?.extract::<i64>()? != generation || epoch.get_item(1)?.extract::<i64>()? != world.policy {
            return Ok(None);
        }
        let (given, read) = if route.reads {
            if side.free(py, world.agent_key.bind(py))?.is_none() {
                return Ok(None);
            }
            let message = operation::message(py, data, &head, lacks)?;
            let asked = (connection, message, &route.route, path, &fingerprint, now);
            let Some(read) = Read::from(&self.read.bind(py).call1(asked)?)? else { return Ok(None) };
            let Some(read) = read else { return Ok(Some(None)) };
            (read.of.clone(), Some(read))
        } else {
            let Some(found) = self.given(py, authorization, &fingerprint, &route.key)? else { return Ok(None) };
            (found.cast::<PyTuple>()?.get_item(0)?, None)
        };
        let Some(prepared) = self.prepared(py, &given)? else { return Ok(None) };
        let ready = prepared.get();
        let op = read.as_ref().map_or(0, |read| read.asked.op.len());
        if now >= ready.ends || now < ready.begins || ready.size() + path.len() + op + VARYING_BYTES > MOST_RECORD {
            return Ok(None);
        }
        let started_at: f64 = connection.getattr(intern!(py, "moved_at"))?.extract()?;
        if !side.has_room(py, started_at)? {
            return Ok(None);
        }
        let Some((pool, idle, upstream)) = side.free(py, world.agent_key.bind(py))? else { return Ok(None) };
        if lacks {
            return Ok(Some(None));
        }
        if let Some(passes) = read.as_ref().and_then(|read| read.asked.kind.get().passes.as_ref()) {
            message.truncate(first_line);
            side.fields(py, data, &head, passes, &mut message)?;
        }

        let mut shown = self.mark.clone().into_bytes();
        shown.extend_from_slice(&random::base64url::<{ random::HANDLE }>(py)?);
        let handle = PyString::from_bytes(py, &shown)?;
        let mut call = Call::new(
            self.side.clone(),
            prepared.clone().unbind(),
            given.unbind(),
            world.agent.clone_ref(py),
            wall,
            started_at,
        );
        call.method = method.into();
        call.path = path.into();
        call.call_in = own.call_in;
        call.bytes_in = data.len();
        call.closes = head.fields.closes;
        side.identify(py, &mut call, &own)?;
        message.extend_from_slice(&world.host_line);
        message.extend_from_slice(&ready.lines);
        for part in [
            b"authorization: Bearer ".as_slice(),
            &shown,
            b"\r\ndelegation-handle: ",
            &shown,
            b"\r\ndelegation-request-id: ",
            &call.request_id,
        ] {
            message.extend_from_slice(part);
        }
        let lines = read.as_ref().map_or(&[][..], |read| read.lines.as_bytes());
        call.end_of_message(&mut message, lines, &data[head.fields.end..]);
        call.asked = read.map(|read| read.asked);
        let epoch = self.handles.bind(py).getattr(intern!(py, "epoch"))?.unbind();
        call.opened = Some(Opened {
            alive: self.alive.clone_ref(py),
            handle: handle.unbind(),
            epoch,
            new_served: self.new_served.clone_ref(py),
        });
        call.peer = Some(peer.unbind());
        Ok(Some(Some(Ready { call, pool, idle, upstream, message })))
    }

    /// What follows from the snapshot in force; None if nothing is served now, or not by this engine.
    fn world(&self, py: Python<'_>) -> PyResult<Option<Arc<World>>> {
        let snapshots = self.side.snapshots.bind(py);
        let snapshot = snapshots.getattr(intern!(py, "current"))?;
        if snapshot.is_none() || !snapshots.getattr(intern!(py, "closed"))?.is_none() {
            return Ok(None);
        }
        if let Some(world) = self.world.lock().unwrap_or_else(PoisonError::into_inner).as_ref()
            && world.snapshot.is(&snapshot)
        {
            return Ok(Some(world.clone()));
        }
        let agent = snapshot.getattr("agent")?;
        if agent.is_none() || !agent.getattr("still_good")?.is_none() || agent.getattr("http2")?.is_truthy()? {
            return Ok(None);
        }
        let policy = snapshot.getattr("policy")?;
        let routes = policy.getattr("inbound")?;
        let mut host_line = b"host: ".to_vec();
        host_line.extend_from_slice(agent.getattr("authority")?.cast::<PyBytes>()?.as_bytes());
        host_line.extend_from_slice(b"\r\n");
        let world = Arc::new(World {
            policy: policy.getattr("number")?.extract()?,
            keys: self.keys_of.bind(py).call1((snapshot.getattr("keys")?,))?.extract()?,
            find: routes.getattr("find")?.unbind(),
            depth: routes.getattr("depth")?.extract()?,
            agent: agent.clone().unbind(),
            agent_key: agent.getattr("key")?.unbind(),
            host_line,
            routes: Mutex::new(HashMap::new()),
            snapshot: snapshot.unbind(),
        });
        *self.world.lock().unwrap_or_else(PoisonError::into_inner) = Some(world.clone());
        Ok(Some(world))
    }

    /// The route of a request: the policy finds it, once for all paths that it does not tell apart.
    fn route(&self, py: Python<'_>, world: &World, method: &str, path: &str) -> PyResult<Arc<Route>> {
        let mut key = Vec::with_capacity(method.len() + path.len() + 1);
        key.extend_from_slice(method.as_bytes());
        key.push(b' ');
        head::put_deciding(path.as_bytes(), world.depth, &mut key);
        if let Some(route) = world.routes.lock().unwrap_or_else(PoisonError::into_inner).get(&key[..]) {
            return Ok(route.clone());
        }
        let found = world.find.bind(py).call1((method, path))?;
        let is_plain = self.is_plain.bind(py).call1((&found,))?.extract()?;
        let reads = is_plain && found.getattr(intern!(py, "protocol"))?.ne("http")?;
        let route_key = found.getattr(intern!(py, "key"))?.unbind();
        let route = Arc::new(Route { route: found.unbind(), key: route_key, is_plain, reads });
        let mut routes = world.routes.lock().unwrap_or_else(PoisonError::into_inner);
        if routes.len() >= MOST_ROUTES {
            routes.clear();
        }
        routes.insert(key.into(), route.clone());
        Ok(route)
    }

    /// What is remembered for a call. Its key is kept too: a new one takes a copy of the token, and a hash of all its octets.
    fn given<'py>(
        &self,
        py: Python<'py>,
        authorization: &[u8],
        fingerprint: &Bound<'py, PyAny>,
        route: &Py<PyAny>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let given = self.given.bind(py);
        let place = authorization.iter().rev().take(4).fold(0, |sum, octet| sum * 31 + usize::from(*octet)) % PLACES;
        let kept =
            self.keys.lock().unwrap_or_else(PoisonError::into_inner)[place].as_ref().map(|key| key.clone_ref(py));
        if let Some(key) = kept {
            let key = key.bind(py);
            if key.get_item(0)?.cast::<PyBytes>()?.as_bytes() == authorization
                && key.get_item(1)?.is(fingerprint)
                && key.get_item(2)?.is(route)
            {
                return given.get_item(key);
            }
        }
        let key = PyTuple::new(py, [PyBytes::new(py, authorization).as_any(), fingerprint, route.bind(py)])?;
        let found = given.get_item(&key)?;
        if found.is_some() && authorization.len() <= MOST_KEPT {
            self.keys.lock().unwrap_or_else(PoisonError::into_inner)[place] = Some(key.unbind());
        }
        Ok(found)
    }

    fn peer<'py>(&self, connection: &Bound<'py, PyAny>) -> PyResult<Bound<'py, Peer>> {
        let py = connection.py();
        let kept = connection.getattr(intern!(py, "warm_peer"))?;
        if !kept.is_none() {
            return Ok(kept.cast_into()?);
        }
        let guard = self.guard_of.bind(py).call1((connection.getattr(intern!(py, "transport"))?,))?;
        let peer = Bound::new(py, Peer::of(guard)?)?;
        connection.setattr(intern!(py, "warm_peer"), &peer)?;
        Ok(peer)
    }

    /// What is kept beside a permit for its requests; None: they are the engine in Python's.
    fn prepared<'py>(&self, py: Python<'py>, given: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, Prepared>>> {
        let kept = given.cast::<PyTuple>()?.get_item(5)?.cast_into::<PyList>()?;
        let workload = self.side.log.bind(py).getattr(intern!(py, "workload"))?;
        if !kept.is_empty() {
            let one = kept.get_item(0)?;
            if one.is_none() {
                return Ok(None);
            }
            let prepared = one.cast_into::<Prepared>()?;
            if prepared.get().workload.is(&workload) {
                return Ok(Some(prepared));
            }
        }
        let made = self.prepare.bind(py).call1((given,))?;
        kept.set_slice(0, kept.len(), PyList::new(py, [&made])?.as_any())?;
        if made.is_none() { Ok(None) } else { Ok(Some(made.cast_into()?)) }
    }

    fn begin(
        &self,
        py: Python<'_>,
        connection: &Bound<'_, PyAny>,
        data: &Bound<'_, PyBytes>,
        ready: Ready<'_>,
    ) -> PyResult<()> {
        ready.start(&self.side, connection, data)?;
        Side::count(self.permits.bind(py), intern!(py, "hits"))?;
        Ok(())
    }
}
