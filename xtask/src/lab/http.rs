//! A small HTTP client that says exactly what goes over the wire: one connection, raw bytes out, one answer
//! in.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use socket2::{Domain, Socket, Type};

use super::Namespace;

/// For connecting, and for each read and write.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// More than any answer of ours; a bound on what a broken peer can make a test hold.
const LARGEST_HEAD: usize = 64 << 10;
const LARGEST_BODY: usize = 1 << 30;

/// One connection, opened inside a namespace.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    /// Received and not yet consumed.
    pending: Vec<u8>,
}

/// One answer.
#[derive(Debug, Clone, Default)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The header fields in their order.
    pub headers: Vec<(String, String)>,
    /// The body, decoded.
    pub body: Vec<u8>,
}

/// Makes one GET on a connection of its own, which the server is asked to close.
///
/// # Errors
/// When the connection fails, or the answer is not one.
pub fn get(
    ns: &Namespace,
    source: Option<Ipv4Addr>,
    to: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<Response> {
    let headers = [headers, &[("Connection", "close")]].concat();
    Connection::open(ns, source, to)?.get(path, &headers)
}

impl Connection {
    /// Connects from inside `ns`, from `source` where one is given.
    ///
    /// # Errors
    /// When the connection is refused or not made within [`PATIENCE`].
    pub fn open(ns: &Namespace, source: Option<Ipv4Addr>, to: SocketAddr) -> Result<Self> {
        let from = source.map(IpAddr::from);
        let stream = ns.run(|| connect(from, to))?.with_context(|| {
            format!("cannot connect from {} to {to}", from.map_or("anywhere".into(), |ip| ip.to_string()))
        })?;
        Ok(Self { stream, pending: Vec::new() })
    }

    /// The address the client uses.
    ///
    /// # Errors
    /// When the socket is no longer connected.
    pub fn local_addr(&self) -> Result<SocketAddr> {
        Ok(self.stream.local_addr()?)
    }

    /// The socket, for what is not HTTP.
    #[must_use]
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).context("cannot send")
    }

    /// GETs `path` and returns the answer; the connection stays open unless the server closes it.
    ///
    /// # Errors
    /// When the connection is gone, or the answer is not one.
    pub fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> Result<Response> {
        self.request("GET", path, headers, b"")
    }

    /// Sends a request, with a Content-Length when there is a body, and returns the answer.
    ///
    /// # Errors
    /// When the connection is gone, or the answer is not one.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: lab\r\n");
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        self.send(&[head.as_bytes(), b"\r\n", body].concat())?;
        self.receive_for(method)
    }

    /// Reads one answer, by its Content-Length, chunked, or until the server closes.
    ///
    /// # Errors
    /// When the server closes too early, is silent for [`PATIENCE`], or what it says is not HTTP.
    pub fn receive(&mut self) -> Result<Response> {
        self.receive_for("GET")
    }

    /// True when the server has closed or reset the connection, having said nothing more. Waits up to
    /// [`PATIENCE`] for it.
    #[must_use]
    pub fn is_closed_by_peer(&mut self) -> bool {
        if !self.pending.is_empty() {
            return false;
        }
        match self.fill() {
            Ok(read) => read == 0,
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }

    /// The same for the answer to a request of that method: one to HEAD has no body.
    ///
    /// # Errors
    /// As [`Connection::receive`].
    pub fn receive_for(&mut self, method: &str) -> Result<Response> {
        let mut response = self.read_head()?;
        let coding = response.header("Transfer-Encoding").map(str::to_ascii_lowercase);
        let length = response.header("Content-Length").map(str::parse::<usize>).transpose();
        response.body = if method == "HEAD" || matches!(response.status, 100..=199 | 204 | 304) {
            Vec::new()
        } else if coding.as_deref() == Some("chunked") {
            self.read_chunks()?
        } else if let Some(length) = length.context("bad Content-Length")? {
            self.take(length)?
        } else {
            self.read_to_end()?
        };
        Ok(response)
    }

    fn read_head(&mut self) -> Result<Response> {
        let status_line = self.line()?;
        let mut words = status_line.split(' ');
        if !words.next().is_some_and(|version| version.starts_with("HTTP/1.")) {
            bail!("not an HTTP answer: {status_line:?}");
        }
        let status = words.next().and_then(|code| code.parse().ok());
        let status = status.with_context(|| format!("no status in {status_line:?}"))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(Response { status, headers, body: Vec::new() });
            }
            let (name, value) = line.split_once(':').with_context(|| format!("not a header: {line:?}"))?;
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    fn read_chunks(&mut self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size =
                usize::from_str_radix(size, 16).with_context(|| format!("not a chunk size: {line:?}"))?;
            if size == 0 {
                while !self.line()?.is_empty() {} // trailers
                return Ok(body);
            }
            body.extend(self.take(size)?);
            if body.len() > LARGEST_BODY || !self.line()?.is_empty() {
                bail!("a chunk does not end where it says");
            }
        }
    }

    fn read_to_end(&mut self) -> Result<Vec<u8>> {
        while self.fill().context("reading until the server closes")? > 0 {
            if self.pending.len() > LARGEST_BODY {
                bail!("a body without end");
            }
        }
        Ok(std::mem::take(&mut self.pending))
    }

    fn line(&mut self) -> Result<String> {
        let mut seen = 0;
        loop {
            if let Some(end) = self.pending[seen..].windows(2).position(|two| two == b"\r\n") {
                let line = self.pending.drain(..seen + end + 2).take(seen + end).collect();
                return String::from_utf8(line).context("a header that is not text");
            }
            seen = self.pending.len().saturating_sub(1);
            if self.pending.len() > LARGEST_HEAD {
                bail!("a head without end");
            }
            self.fill_or_fail()?;
        }
    }

    fn take(&mut self, length: usize) -> Result<Vec<u8>> {
        if length > LARGEST_BODY {
            bail!("a body of {length} bytes");
        }
        while self.pending.len() < length {
            self.fill_or_fail()?;
        }
        Ok(self.pending.drain(..length).collect())
    }

    fn fill_or_fail(&mut self) -> Result<()> {
        match self.fill().context("waiting for the answer")? {
            0 => bail!(
                "the server closed in the middle of an answer, after {} bytes of it",
                self.pending.len()
            ),
            _ => Ok(()),
        }
    }

    fn fill(&mut self) -> std::io::Result<usize> {
        let mut buffer = [0; 16 << 10];
        let read = self.stream.read(&mut buffer)?;
        self.pending.extend_from_slice(&buffer[..read]);
        Ok(read)
    }
}

impl Response {
    /// The first header field of that name, in any case.
    #[must_use]
    pub fn header<'a>(&'a self, name: &str) -> Option<&'a str> {
        self.all(name).next()
    }

    /// Every header field of that name, in any case.
    pub fn all<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = &'a str> + use<'a, 'n> {
        self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A `name=value` word of the body, as our origins write them.
    #[must_use]
    pub fn word(&self, name: &str) -> Option<String> {
        let prefix = format!("{name}=");
        self.text().split_whitespace().find_map(|word| word.strip_prefix(&prefix).map(str::to_owned))
    }

    /// The address that the origin saw as its client.
    #[must_use]
    pub fn peer(&self) -> Option<SocketAddr> {
        self.word("peer")?.parse().ok()
    }
}

fn connect(from: Option<IpAddr>, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    if let Some(from) = from {
        socket.bind(&SocketAddr::new(from, 0).into())?;
    }
    socket.connect_timeout(&to.into(), PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket.into())
}
