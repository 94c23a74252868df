//! The outbound side: the agent's call on the way to the next hop.

use crate::call::Call;
use crate::fields::{Own, id};
use crate::guarded::guarded;
use crate::head;
use crate::operation::{self, Read};
use crate::planned::PlannedCall;
use crate::prepared::Prepared;
use crate::random;
use crate::ready::Ready;
use crate::side::{MOST_RECORD, MOST_ROUTES, Side, Whole};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

const VARYING_BYTES: usize = 432; // at most, of a record beside its path
const OWN_PATHS: &[u8] = b"/.sidecar"; // of the sidecar itself: `target.OWN_PATHS`
const IN_HANDLES: [bool; 256] = {
    let (mut found, mut octet) = ([false; 256], 0u8);
    while octet < 128 {
        found[octet as usize] = octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_');
        octet += 1;
    }
    found
};

/// A call that may begin, the request that the agent serves if it counts calls, if that is a login, and what stood for
/// look-ups.
type Found<'py> = (Ready<'py>, Option<Bound<'py, PyAny>>, bool, Option<Bound<'py, PlannedCall>>);

/// A token service's client, the token that it keeps for a call, where the call goes, and what stood for their look-up.
type Token<'py> = (Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyAny>, Option<Bound<'py, PlannedCall>>);

/// One snapshot, and what follows from it. Begun again with each other snapshot.
struct World {
    snapshot: Py<PyAny>,
    policy: Py<PyAny>,
    number: i64,
    is_entry: bool, // a login token may be shown here
    depth: usize,   // segments of a path
    routes: Mutex<HashMap<Box<[u8]>, Arc<Route>>>,
}

struct Route {
    route: Py<PyAny>,
    stripped: usize, // octets of the path that the next hop does not get
    is_plain: bool,
    reads: bool, // the operation of each message
}

/// Begins warm calls of the agent. Called with a connection that waits for a request, and what has arrived there.
#[pyclass(frozen)]
pub struct OutboundGate {
    side: Arc<Side>,
    handles: Py<PyAny>,
    alive: Py<PyDict>,
    find: Py<PyAny>,
    login_holds: Py<PyAny>,
    judged: Py<PyAny>, // logins
    plans: Py<PyAny>,
    planned: Py<PyDict>,
    of_second: Py<PyDict>, // plans of logins
    counts: Py<PyDict>,
    look_up: Py<PyAny>,
    uncount: Py<PyAny>,
    prepare: Py<PyAny>,
    is_plain: Py<PyAny>,
    read: Py<PyAny>,
    world: Mutex<Option<Arc<World>>>,
}

#[pymethods]
impl OutboundGate {
    #[new]
    fn new(parts: &Bound<'_, PyAny>) -> PyResult<Self> {
        let get = |name: &str| parts.getattr(name).map(Bound::unbind);
        Ok(Self {
            side: Arc::new(Side::of(parts)?),
            handles: get("handles")?,
            alive: parts.getattr("alive")?.cast_into::<PyDict>()?.unbind(),
            find: get("find")?,
            login_holds: get("login_holds")?,
            judged: get("judged")?,
            plans: get("plans")?,
            counts: parts.getattr("counts")?.cast_into::<PyDict>()?.unbind(),
            planned: parts.getattr("planned")?.cast_into::<PyDict>()?.unbind(),
            of_second: parts.getattr("of_second")?.cast_into::<PyDict>()?.unbind(),
            look_up: get("look_up")?,
            uncount: get("uncount")?,
            prepare: get("prepare")?,
            is_plain: get("is_plain")?,
            read: get("read")?,
            world: Mutex::new(None),
        })
    }

    /// Begin the call that `data` is. False: it is not certain. None: the rest of its body is missing. In both nothing has
    /// changed.
    fn __call__(&self, connection: &Bound<'_, PyAny>, data: &Bound<'_, PyBytes>) -> PyResult<Option<bool>> {
        let py = connection.py();
        let mut looked = false;
        match self.side.certain(py, || self.ready(connection, data.as_bytes(), &mut looked))? {
            Some(Some((ready, budget, is_login, planned))) => guarded(|| {
                self.count(py, is_login, planned)?;
                if let Some(served) = budget {
                    served.call_method0(intern!(py, "count_call"))?;
                }
                ready.start(&self.side, connection, data)
            })
            .map(|()| Some(true)),
            other => {
                if looked {
                    self.uncount.bind(py).call0()?;
                }
                Ok(other.is_none().then_some(false))
            }
        }
    }
}

impl OutboundGate {
    /// Count look-ups that were not made, as the engine in Python counts them: plans of logins it does not.
    fn count(&self, py: Python<'_>, is_login: bool, planned: Option<Bound<'_, PlannedCall>>) -> PyResult<()> {
        if is_login || planned.is_some() {
            let of = if is_login { &self.judged } else { &self.plans };
            Side::count(of.bind(py), intern!(py, "hits"))?;
        }
        let Some(planned) = planned else { return Ok(()) };
        planned.get().count(py)?;
        let (counts, hit) = (self.counts.bind(py), intern!(py, "hit"));
        let before = counts.get_item(hit)?.map_or(Ok(0), |before| before.extract::<u64>())?;
        counts.set_item(hit, before + 1)
    }

    /// The call that may begin; Some(None): it may, when the rest of its body has come.
    fn ready<'py>(
        &self,
        connection: &Bound<'py, PyAny>,
        data: &'py [u8],
        looked: &mut bool,
    ) -> PyResult<Option<Option<Found<'py>>>> {
        let py = connection.py();
        let side = &*self.side;
        let found = side.whole(data, head::request_to_proxy(data, side.limits));
        let Some(Whole { head, path_end, lacks }) = found else { return Ok(None) };
        let (path, query) = data[head.target.clone()].split_at(path_end);
        if path.starts_with(OWN_PATHS) {
            return Ok(None);
        }
        let mut lines = Vec::with_capacity(data.len());
        let Some(own) = side.fields(py, data, &head, &side.passes, &mut lines)? else { return Ok(None) };
        if connection.getattr(intern!(py, "writing_paused"))?.is_truthy()? {
            return Ok(None);
        }

        let Some(world) = self.world(py)? else { return Ok(None) };
        let Some(shown) = shown(&own, world.is_entry) else { return Ok(None) };
        let method = std::str::from_utf8(&data[head.method.clone()])?;
        let route = self.route(py, &world, &data[head.host.clone()], path)?;
        if !route.is_plain {
            return Ok(None);
        }
        let started_at: f64 = connection.getattr(intern!(py, "moved_at"))?.extract()?;
        if !side.has_room(py, started_at)? {
            return Ok(None);
        }
        let Some(served) = self.alive.bind(py).get_item(shown)? else { return Ok(None) };
        let handles = self.handles.bind(py);
        // Not ``resolve``: it judges a request again after a change, and the engine in Python must be told the reason.
        let (judged, epoch) = (served.getattr(intern!(py, "epoch"))?, handles.getattr(intern!(py, "epoch"))?);
        if !judged.is(&epoch) && !judged.eq(epoch)? {
            return Ok(None);
        }
        let wall: f64 = side.wall.bind(py).call0()?.extract()?;
        let now = wall as i64;
        let delegation = served.getattr(intern!(py, "delegation"))?;
        // As ``Handles.is_over``, which is asked where more than the authority's end counts.
        let after_request = !served.getattr(intern!(py, "ended_at"))?.is_none();
        if wall >= delegation.getattr(intern!(py, "ends_at"))?.extract::<f64>()?
            || (after_request && handles.call_method1(intern!(py, "is_over"), (&served,))?.is_truthy()?)
        {
            return Ok(None);
        }
        let is_login = delegation.getattr(intern!(py, "entry"))?.is_truthy()?;
        if is_login && !self.login_holds.bind(py).call1((&delegation, &world.snapshot))?.is_truthy()? {
            return Ok(None);
        }
        let left = served.getattr(intern!(py, "calls_left"))?;
        if !left.is_none() && left.extract::<i64>()? <= 0 {
            return Ok(None);
        }
        let next_path = match path.get(route.stripped..) {
            Some(rest) if !rest.is_empty() => rest,
            _ => b"/",
        };
        let read = if route.reads {
            let next_path = std::str::from_utf8(next_path)?;
            let message = operation::message(py, data, &head, lacks)?;
            let found = self.read.bind(py).call1((message, &route.route, next_path))?;
            let Some(read) = Read::from(&found)? else { return Ok(None) };
            let Some(read) = read else { return Ok(Some(None)) };
            Some(read)
        } else {
            None
        };
        let of = read.as_ref().map_or(route.route.bind(py), |read| &read.of);
        let facts = served.getattr(intern!(py, "facts"))?;
        let plans = if is_login { &self.of_second } else { &self.planned };
        let mut found = None;
        if let Some(token) = again(py, plans.bind(py), &world, &delegation, of, now)?
            && let Some(prepared) = self.prepared(py, &token.1, &facts)?
            && now < prepared.get().ends
        {
            found = Some((token, prepared));
        }
        if found.is_none() {
            *looked = true;
            let token = self.look_up.bind(py).call1((&world.snapshot, &delegation, of, now))?;
            if token.is_none() {
                return Ok(None);
            }
            let (tokens, issued, origin) = token.extract()?;
            let Some(prepared) = self.prepared(py, &issued, &facts)? else { return Ok(None) };
            found = Some(((tokens, issued, origin, None), prepared));
        }
        let Some(((tokens, issued, origin, planned), prepared)) = found else { return Ok(None) };
        let ready = prepared.get();
        let op = read.as_ref().map_or(0, |read| read.asked.op.len());
        if ready.size() + path.len() + op + VARYING_BYTES > MOST_RECORD {
            return Ok(None);
        }
        let Some((pool, idle, upstream)) = side.free(py, &origin.getattr(intern!(py, "key"))?)? else {
            return Ok(None);
        };
        let still_good = origin.getattr(intern!(py, "still_good"))?;
        if !still_good.is_none() && !still_good.call1((upstream.getattr(intern!(py, "transport"))?,))?.is_truthy()? {
            return Ok(None);
        }
        if lacks {
            return Ok(Some(None));
        }

        let call_in = served.getattr(intern!(py, "call_in"))?;
        let given = PyTuple::new(py, [&issued, &served, &tokens])?.into_any().unbind();
        let mut call =
            Call::new(self.side.clone(), prepared.clone().unbind(), given, origin.clone().unbind(), wall, started_at);
        call.method = method.into();
        call.path = std::str::from_utf8(path)?.into();
        call.bytes_in = data.len();
        call.closes = head.fields.closes;
        call.call_in = if call_in.is_none() { None } else { Some(id(&call_in)?) };
        call.call_out = Some(random::hex(py)?);
        call.after_request = after_request;
        side.identify(py, &mut call, &own)?;

        let mut message = Vec::with_capacity(data.len() + ready.lines.len() + 256);
        message.extend_from_slice(method.as_bytes());
        message.push(b' ');
        let begin = message.len();
        message.extend_from_slice(next_path);
        message.extend_from_slice(query);
        call.target = Some(message[begin..].into());
        message.extend_from_slice(b" HTTP/1.1\r\n");
        message.extend_from_slice(&lines);
        message.extend_from_slice(b"host: ");
        message.extend_from_slice(origin.getattr(intern!(py, "authority"))?.cast::<PyBytes>()?.as_bytes());
        message.extend_from_slice(b"\r\n");
        message.extend_from_slice(&ready.lines);
        message.extend_from_slice(b"delegation-call: ");
        message.extend_from_slice(call.call_out.as_ref().map_or(&[], |call| &call[..]));
        call.end_of_message(&mut message, b"", &data[head.fields.end..]);
        call.asked = read.map(|read| read.asked);
        let budget = (!left.is_none()).then_some(served);
        Ok(Some(Some((Ready { call, pool, idle, upstream, message }, budget, is_login, planned))))
    }

    /// What follows from the snapshot in force; None if nothing is served now.
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
        let policy = snapshot.getattr("policy")?;
        let world = Arc::new(World {
            is_entry: !policy.getattr("entry")?.is_none(),
            number: policy.getattr("number")?.extract()?,
            depth: policy.getattr("outbound")?.getattr("depth")?.extract()?,
            policy: policy.unbind(),
            routes: Mutex::new(HashMap::new()),
            snapshot: snapshot.unbind(),
        });
        *self.world.lock().unwrap_or_else(PoisonError::into_inner) = Some(world.clone());
        Ok(Some(world))
    }

    /// The route of a call: the policy finds it, once for each host and, at our own, all paths that it does not tell apart.
    fn route(&self, py: Python<'_>, world: &World, host: &[u8], path: &[u8]) -> PyResult<Arc<Route>> {
        let mut key = Vec::with_capacity(host.len() + path.len());
        key.extend_from_slice(host);
        {
            let routes = world.routes.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(route) = routes.get(&key[..]) {
                return Ok(route.clone());
            }
            key.push(b' ');
            head::put_deciding(path, world.depth, &mut key);
            if let Some(route) = routes.get(&key[..]) {
                return Ok(route.clone());
            }
        }
        let (text, path) = (std::str::from_utf8(host)?, std::str::from_utf8(path)?);
        let found = self.find.bind(py).call1((&world.policy, text, path))?;
        let (route, stripped, by_path): (Bound<'_, PyAny>, usize, bool) = found.extract()?;
        if !by_path {
            key.truncate(host.len());
        }
        let is_plain = self.is_plain.bind(py).call1((&route,))?.extract()?;
        let reads = is_plain && route.getattr(intern!(py, "protocol"))?.ne("http")?;
        let route = Arc::new(Route { route: route.unbind(), stripped, is_plain, reads });
        let mut routes = world.routes.lock().unwrap_or_else(PoisonError::into_inner);
        if routes.len() >= MOST_ROUTES {
            routes.clear();
        }
        routes.insert(key.into(), route.clone());
        Ok(route)
    }

    /// What is kept beside an issued token for the calls of one request's token; None: the engine in Python serves them.
    fn prepared<'py>(
        &self,
        py: Python<'py>,
        issued: &Bound<'py, PyAny>,
        facts: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, Prepared>>> {
        let kept = issued.getattr(intern!(py, "warm"))?.cast_into::<PyList>()?;
        let workload = self.side.log.bind(py).getattr(intern!(py, "workload"))?;
        if kept.len() == 2 && kept.get_item(0)?.is(facts) {
            let one = kept.get_item(1)?;
            if one.is_none() {
                return Ok(None);
            }
            let prepared = one.cast_into::<Prepared>()?;
            if prepared.get().workload.is(&workload) {
                return Ok(Some(prepared));
            }
        }
        let made = self.prepare.bind(py).call1((issued, facts))?;
        kept.set_slice(0, kept.len(), PyList::new(py, [facts, &made])?.as_any())?;
        if made.is_none() { Ok(None) } else { Ok(Some(made.cast_into()?)) }
    }
}

/// What an earlier call by the same plan has found, if it would be found now.
fn again<'py>(
    py: Python<'py>,
    plans: &Bound<'py, PyDict>,
    world: &World,
    delegation: &Bound<'py, PyAny>,
    of: &Bound<'py, PyAny>,
    now: i64,
) -> PyResult<Option<Token<'py>>> {
    let raw = delegation.getattr(intern!(py, "token"))?.getattr(intern!(py, "raw"))?;
    let key = PyTuple::new(py, [raw, of.getattr(intern!(py, "key"))?])?;
    let Some(entry) = plans.get_item(key)? else { return Ok(None) };
    let plan = match entry.cast::<PyTuple>() {
        Ok(entry) => entry.get_item(0)?,
        Err(_) => entry, // of a login
    };
    let warm = plan.getattr(intern!(py, "warm"))?.cast_into::<PyList>()?;
    if warm.is_empty() {
        return Ok(None);
    }
    let planned = warm.get_item(0)?.cast_into::<PlannedCall>()?;
    let it = planned.get();
    if !it.is_of(delegation, of) {
        return Ok(None);
    }
    let Some(issued) = it.issued(py, world.number, now)? else { return Ok(None) };
    Ok(Some((it.tokens.bind(py).clone(), issued, it.origin.bind(py).clone(), Some(planned))))
}

/// The handle of a call, if `credentials.credential_of` reads this one and `CallAuthority.of_call` refuses nothing beside.
fn shown<'a>(own: &Own<'a>, is_entry: bool) -> Option<&'a str> {
    let handle = match (own.handle, own.authorization) {
        (None, shown) => shown?.strip_prefix(b"Bearer ")?,
        (Some(handle), None) => handle,
        (Some(handle), Some(beside)) => {
            // No scheme reads more than the last word as a handle. At an entry another word may be a login token.
            let last = beside.rsplit(|&octet| octet == b' ').next()?;
            if last != handle && (is_entry || is_handle(last)) {
                return None;
            }
            handle
        }
    };
    if is_handle(handle) { std::str::from_utf8(handle).ok() } else { None }
}

/// Tell if a value has the form of a handle, as `credentials._HANDLE` has it.
fn is_handle(value: &[u8]) -> bool {
    (43..=44).contains(&value.len()) && value.iter().all(|&octet| IN_HANDLES[usize::from(octet)])
}
