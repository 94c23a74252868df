//! Heads of HTTP/1.1 messages, as far as they are certain. Pure: bytes in, places of values out.
//!
//! Every rule here is that of `wire/h1_head.py`, or narrower. `None` is "not certain": the engine in Python reads the
//! same bytes, and it alone refuses.

use std::ops::Range;

pub const MOST_FIELDS: usize = 64;

/// One field: the name as it was sent, and the value without white space around it.
pub struct Field {
    pub name: Range<usize>,
    pub value: Range<usize>,
}

/// Fields that decide where a message ends, or if another may follow, by their places.
#[derive(Default)]
pub struct Fields {
    pub all: Vec<Field>,
    pub length: Option<usize>,
    pub option: Option<Range<usize>>, // the one member of Connection
    pub closes: bool,                 // of a request: no other follows it
    pub end: usize,
}

impl Fields {
    /// Tell if a field has the name that Connection lists. It would end here (RFC 9110 section 7.6.1), and only the engine
    /// in Python drops it. `Keep-Alive` needs no look: no rule passes it (`message.NOT_PASSED`).
    fn lists_a_field(&self, data: &[u8]) -> bool {
        let Some(option) = self.option.clone().map(|at| &data[at]) else { return false };
        !option.eq_ignore_ascii_case(b"keep-alive")
            && self.all.iter().any(|field| data[field.name.clone()].eq_ignore_ascii_case(option))
    }
}

pub struct RequestHead {
    pub method: Range<usize>,
    pub target: Range<usize>,
    pub host: Range<usize>,
    pub fields: Fields,
}

pub struct AnswerHead {
    pub status: u16,
    pub fields: Fields,
}

impl AnswerHead {
    /// Tell if content like this may be a stream of events, which nobody may hold back: `message.is_event_stream`, or wider.
    pub fn is_event_stream(&self, data: &[u8]) -> bool {
        self.fields.all.iter().any(|field| {
            data[field.name.clone()].eq_ignore_ascii_case(b"content-type")
                && data[field.value.clone()].to_ascii_lowercase().starts_with(b"text/event-stream")
        })
    }
}

/// Limits of one kind of connection: bytes of a head, bytes of a target, number of fields.
#[derive(Clone, Copy)]
pub struct Limits {
    pub head: usize,
    pub target: usize,
    pub fields: usize,
}

const fn table(of: &[u8]) -> [bool; 256] {
    let mut found = [false; 256];
    let mut at = 0;
    while at < 26 {
        found[b'a' as usize + at] = true;
        found[b'A' as usize + at] = true;
        at += 1;
    }
    at = 0;
    while at < 10 {
        found[b'0' as usize + at] = true;
        at += 1;
    }
    at = 0;
    while at < of.len() {
        found[of[at] as usize] = true;
        at += 1;
    }
    found
}

static TOKEN: [bool; 256] = table(b"!#$%&'*+-.^_`|~");
static PATH: [bool; 256] = table(b"-._~!$&'()*+,=:@");

fn is_one_of(value: &[u8], names: &[&[u8]]) -> bool {
    names.iter().any(|name| value.eq_ignore_ascii_case(name))
}

/// Read a head that `data` begins with. The rest of `data` is not looked at.
pub fn request(data: &[u8], limits: Limits) -> Option<RequestHead> {
    let head = any_request(data, limits)?;
    (data[head.target.start] == b'/').then_some(head)
}

/// Read a head as a proxy gets it: perhaps with `http://` and the Host before the path.
pub fn request_to_proxy(data: &[u8], limits: Limits) -> Option<RequestHead> {
    let mut head = any_request(data, limits)?;
    let target = &data[head.target.clone()];
    if target[0] != b'/' {
        let path = target.strip_prefix(b"http://")?.strip_prefix(&data[head.host.clone()])?;
        if path.first() != Some(&b'/') {
            return None;
        }
        head.target.start = head.target.end - path.len();
    }
    Some(head)
}

fn any_request(data: &[u8], limits: Limits) -> Option<RequestHead> {
    let method_end = data.iter().take(33).position(|&octet| octet == b' ')?;
    let method = 0..method_end;
    if method_end == 0 || !data[..method_end].iter().all(u8::is_ascii_uppercase) {
        return None;
    }
    if is_one_of(&data[..method_end], &[b"CONNECT", b"TRACE", b"TRACK"]) {
        return None;
    }
    let start = method_end + 1;
    let most = data.len().min(start + limits.target + 1);
    let size = data.get(start..most)?.iter().position(|octet| !(0x21..=0x7e).contains(octet))?;
    let target = start..start + size;
    if size == 0 || size > limits.target {
        return None;
    }
    let rest = data.get(target.end..)?.strip_prefix(b" HTTP/1.1\r\n")?;
    let fields = fields(data, data.len() - rest.len(), limits, true)?;
    let mut hosts = fields.all.iter().filter(|field| data[field.name.clone()].eq_ignore_ascii_case(b"host"));
    let host = hosts.next()?.value.clone();
    if hosts.next().is_some() || !is_plain_authority(&data[host.clone()]) {
        return None;
    }
    Some(RequestHead { method, target, host, fields })
}

/// Read the head of a final answer that `data` begins with.
pub fn answer(data: &[u8], limits: Limits) -> Option<AnswerHead> {
    let rest = data.strip_prefix(b"HTTP/1.1 ")?;
    let digits = rest.get(..3)?;
    if !digits.iter().all(u8::is_ascii_digit) || !(b'2'..=b'5').contains(&digits[0]) {
        return None;
    }
    let status = digits.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    let mut at = 12;
    if data.get(at) == Some(&b' ') {
        at += data[at..].iter().take(256).position(|octet| !(0x20..=0x7e).contains(octet))?;
    }
    data.get(at..)?.strip_prefix(b"\r\n")?;
    Some(AnswerHead { status, fields: fields(data, at + 2, limits, false)? })
}

fn fields(data: &[u8], mut at: usize, limits: Limits, is_request: bool) -> Option<Fields> {
    let mut found = Fields { all: Vec::with_capacity(12), ..Fields::default() };
    let most = data.len().min(limits.head);
    loop {
        let line = data.get(at..most)?;
        if line.starts_with(b"\r\n") {
            found.end = at + 2;
            return (!found.lists_a_field(data)).then_some(found);
        }
        if found.all.len() == limits.fields.min(MOST_FIELDS) {
            return None;
        }
        let colon = line.iter().position(|&octet| !TOKEN[octet as usize])?;
        if colon == 0 || line[colon] != b':' {
            return None;
        }
        let end = colon + end_of_text(&line[colon..])?;
        if line.get(end..end + 2)? != b"\r\n" {
            return None;
        }
        let raw = &line[colon + 1..end];
        let value = raw.trim_ascii();
        let begin = at + colon + 1 + (value.as_ptr() as usize - raw.as_ptr() as usize);
        let (name, value) = (at..at + colon, begin..begin + value.len());
        match colon {
            14 if data[name.clone()].eq_ignore_ascii_case(b"content-length") => {
                if found.length.is_some() {
                    return None;
                }
                found.length = Some(plain_number(&data[value.clone()])?);
            }
            10 if data[name.clone()].eq_ignore_ascii_case(b"connection") => {
                let option = &data[value.clone()];
                found.closes = is_request && option == b"close";
                let known = found.closes || option == b"keep-alive" || option == b"Keep-Alive";
                if found.option.is_some() || !known {
                    return None;
                }
                found.option = Some(value.clone());
            }
            17 if data[name.clone()].eq_ignore_ascii_case(b"transfer-encoding") => return None,
            6 | 7 if is_request && is_one_of(&data[name.clone()], &[b"expect", b"upgrade"]) => return None,
            _ => {}
        }
        found.all.push(Field { name, value });
        at += end + 2;
    }
}

/// The place of the first octet that is neither visible ASCII, a space nor a tab: eight are looked at together, since
/// most of a head is one long token.
fn end_of_text(text: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let mut at = 0;
    while let Some(eight) = text.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let eight = u64::from_le_bytes(*eight);
        // A high bit for each octet below 0x20, and for each above 0x7e. Carries reach only octets behind such a one.
        let others = (eight.wrapping_sub(ONES * 0x20) & !eight | eight | eight.wrapping_add(ONES)) & (ONES * 0x80);
        if others == 0 {
            at += 8;
            continue;
        }
        at += others.trailing_zeros() as usize / 8;
        if text[at] != b'\t' {
            return Some(at);
        }
        at += 1;
    }
    let rest = text.get(at..)?;
    rest.iter().position(|&octet| !(0x20..=0x7e).contains(&octet) && octet != b'\t').map(|place| at + place)
}

fn plain_number(text: &[u8]) -> Option<usize> {
    if text.is_empty() || text.len() > 15 || (text[0] == b'0' && text.len() > 1) {
        return None;
    }
    text.iter().try_fold(0usize, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + usize::from(digit - b'0')))
}

/// A host in lower case, perhaps with a port, in the usual spelling.
fn is_plain_authority(text: &[u8]) -> bool {
    let (host, port) = match text.iter().position(|&octet| octet == b':') {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let plain = |octet: &u8| octet.is_ascii_lowercase() || octet.is_ascii_digit() || *octet == b'_';
    let host_is = !host.is_empty()
        && host.len() <= 255
        && plain(&host[0])
        && host.iter().all(|octet| plain(octet) || *octet == b'.' || *octet == b'-');
    let port_is = port.is_none_or(|port| {
        port.len() <= 5
            && !port.starts_with(b"0")
            && plain_number(port).is_some_and(|number| 0 < number && number < 60000)
    });
    host_is && port_is
}

/// The end of the path of a target that is canonical as it was sent, and of the query behind it. `None`: not certain.
///
/// The target to forward is as it was sent, unless it ends in a question mark.
pub fn canonical(target: &[u8]) -> Option<usize> {
    let end = target.iter().position(|&octet| octet == b'?').unwrap_or(target.len());
    let (path, query) = (&target[..end], &target[end..]);
    if query.len() == 1 || query.contains(&b'#') || path.first() != Some(&b'/') {
        return None;
    }
    let mut segments = path[1..].split(|&octet| octet == b'/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        if (segment.is_empty() && !last) || segment == b"." || segment == b".." {
            return None;
        }
        if !segment.iter().all(|&octet| PATH[octet as usize]) {
            return None;
        }
    }
    Some(end)
}

/// Write what decides on the route of a canonical path, if routes tell only `depth` segments apart: of a longer path
/// those segments and a space, which no path holds.
pub fn put_deciding(path: &[u8], depth: usize, out: &mut Vec<u8>) {
    let mut slashes = path.iter().enumerate().filter(|&(_, &octet)| octet == b'/');
    match slashes.nth(depth) {
        Some((at, _)) if at + 1 < path.len() => {
            out.extend_from_slice(&path[..at]);
            out.push(b' ');
        }
        _ => out.extend_from_slice(path),
    }
}

/// Tell if a text may hold a token, as `record_text` suspects it.
pub fn may_hold_token(text: &[u8]) -> bool {
    text.windows(3).any(|part| matches!(part, b"eyA" | b"eyJ" | b"ew0" | b"ewk" | b"ewo"))
}

/// The trace that a `traceparent` of version 00 names: its id, and the flags that go on.
pub fn parent(value: &[u8]) -> Option<([u8; 32], u8)> {
    let hex = |text: &[u8]| text.iter().all(|octet| octet.is_ascii_digit() || (b'a'..=b'f').contains(octet));
    if value.len() != 55 || !value.starts_with(b"00-") || value[35] != b'-' || value[52] != b'-' {
        return None;
    }
    let (trace, span, flags) = (&value[3..35], &value[36..52], &value[53..55]);
    if !(hex(trace) && hex(span) && hex(flags)) {
        return None;
    }
    if trace.iter().all(|&octet| octet == b'0') || span.iter().all(|&octet| octet == b'0') {
        return None;
    }
    let low = (flags[1] as char).to_digit(16)? as u8;
    Some((trace.try_into().ok()?, low & 3))
}

pub fn is_call_id(value: &[u8]) -> bool {
    value.len() == 32 && value.iter().all(|octet| octet.is_ascii_digit() || (b'a'..=b'f').contains(octet))
}
