//! Where a message ends, read off the wire without any of the balancer's own code: strict enough for what a proxy
//! should send, and never wrong about it in the balancer's favour.

/// A message as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The first line.
    pub start: String,
    /// Header lines in order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The content, without chunks.
    pub body: Vec<u8>,
    /// How many bytes it took.
    pub length: usize,
}

/// What an answer is an answer to, which decides whether it has a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerTo {
    Head,
    Other,
}

impl Message {
    /// The first field of that name, which is given in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub fn status(&self) -> u16 {
        self.word(1).parse().unwrap_or(0)
    }

    /// A word of the first line.
    pub fn word(&self, index: usize) -> &str {
        self.start.split(' ').nth(index).unwrap_or("")
    }
}

/// The request that `bytes` start with, when all of it is there.
pub fn request(bytes: &[u8]) -> Option<Message> {
    let (message, rest) = head(bytes)?;
    with_body(message, rest)
}

/// The response that `bytes` start with, when all of it is there. `ended`: no more bytes will come.
pub fn response(bytes: &[u8], answer_to: AnswerTo, ended: bool) -> Option<Message> {
    let (mut message, rest) = head(bytes)?;
    let has_length = message.header("content-length").or(message.header("transfer-encoding")).is_some();
    if answer_to == AnswerTo::Head || matches!(message.status(), 100..=199 | 204 | 304) {
        Some(message)
    } else if has_length {
        with_body(message, rest)
    } else {
        message.length += rest.len();
        message.body = rest.to_vec();
        ended.then_some(message)
    }
}

/// All whole responses in `bytes`; `first` is what the first final one answers, the others answer anything but HEAD.
pub fn responses(mut bytes: &[u8], first: AnswerTo, ended: bool) -> Vec<Message> {
    let (mut found, mut answer_to) = (Vec::new(), first);
    while let Some(message) = response(bytes, answer_to, ended) {
        bytes = &bytes[message.length..];
        if message.status() >= 200 {
            answer_to = AnswerTo::Other;
        }
        found.push(message);
    }
    found
}

fn head(bytes: &[u8]) -> Option<(Message, &[u8])> {
    let end = find(bytes, b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = text.trim_end_matches("\r\n").split("\r\n");
    let start = lines.next().unwrap_or("").to_owned();
    let headers = lines.filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned())).collect();
    Some((Message { start, headers, body: Vec::new(), length: end }, &bytes[end..]))
}

fn with_body(mut message: Message, rest: &[u8]) -> Option<Message> {
    if message.header("transfer-encoding").is_some() {
        let used = chunks(rest, &mut message.body)?;
        message.length += used;
    } else if let Some(length) = message.header("content-length") {
        let length = length.parse().ok()?;
        message.body = rest.get(..length)?.to_vec();
        message.length += length;
    }
    Some(message)
}

/// Bytes of a whole chunked body, trailers included.
fn chunks(bytes: &[u8], content: &mut Vec<u8>) -> Option<usize> {
    let mut at = 0;
    loop {
        let end = at + find(&bytes[at..], b"\r\n")?;
        let line = String::from_utf8_lossy(&bytes[at..end]).into_owned();
        let size = usize::from_str_radix(line.split([';', ' ']).next()?, 16).ok()?;
        at = end + 2;
        if size == 0 {
            break;
        }
        content.extend_from_slice(bytes.get(at..at + size)?);
        at += size + 2;
        bytes.get(..at)?;
    }
    loop {
        let line = find(&bytes[at..], b"\r\n")?;
        at += line + 2;
        if line == 0 {
            return Some(at);
        }
    }
}

fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes.windows(pattern.len()).position(|window| window == pattern)
}
