//! One list of requests by both paths: status, end-to-end headers and bodies are the same.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use xtask::lab::Lab;
use xtask::lab::http::{Connection, Response};

use crate::site::{SOURCE_FIRST, Site, start, start_servers, trial};

pub fn trials() -> Vec<Trial> {
    vec![trial("both_paths_say_the_same", both)]
}

/// What goes over one connection: the methods of the requests that `bytes` are, in their order.
struct Talk {
    name: &'static str,
    methods: &'static [&'static str],
    bytes: Vec<u8>,
}

/// Each path uploads files of its own.
fn talks(path: &str) -> Vec<Talk> {
    let talk = |name, methods, text: &str| Talk { name, methods, bytes: text.replace('\n', "\r\n").into() };
    let body = "b".repeat(100_000);
    vec![
        talk("a small file", &["GET"], "GET /1k HTTP/1.1\nHost: lab\n\n"),
        talk("a large file", &["GET"], "GET /1m HTTP/1.1\nHost: lab\n\n"),
        talk("a head", &["HEAD"], "HEAD /100k HTTP/1.1\nHost: lab\n\n"),
        talk("a range", &["GET"], "GET /100k HTTP/1.1\nHost: lab\nRange: bytes=10-19\n\n"),
        talk(
            "nothing new",
            &["GET"],
            "GET /1k HTTP/1.1\nHost: lab\nIf-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT\n\n",
        ),
        talk("nothing there", &["GET"], "GET /upload/nothing HTTP/1.1\nHost: lab\n\n"),
        talk("a method that is not allowed", &["DELETE"], "DELETE /1k HTTP/1.1\nHost: lab\n\n"),
        talk("HTTP/1.0", &["GET"], "GET /1k HTTP/1.0\nHost: lab\n\n"),
        talk("a query", &["GET"], "GET /1k?a=b&c=%20 HTTP/1.1\nHost: lab\nCookie: a=b; c=d\n\n"),
        talk("a chunked answer", &["GET"], "GET /echo HTTP/1.1\nHost: lab\n\n"),
        talk(
            "an upload",
            &["PUT"],
            &format!("PUT /upload/{path}a HTTP/1.1\nHost: lab\nContent-Length: 100000\n\n{body}"),
        ),
        talk(
            "the same again",
            &["PUT"],
            &format!("PUT /upload/{path}a HTTP/1.1\nHost: lab\nContent-Length: 100000\n\n{body}"),
        ),
        talk(
            "a chunked upload",
            &["PUT"],
            &format!(
                "PUT /upload/{path}b HTTP/1.1\nHost: lab\nTransfer-Encoding: chunked\n\n186a0\n{body}\n0\n\n"
            ),
        ),
        talk("what was uploaded", &["GET"], &format!("GET /upload/{path}b HTTP/1.1\nHost: lab\n\n")),
        talk("a form", &["POST"], "POST /upload HTTP/1.1\nHost: lab\nContent-Length: 3\n\na=b"),
        talk(
            "several in a row",
            &["GET", "HEAD", "GET"],
            "GET /13 HTTP/1.1\nHost: lab\n\nHEAD /1k HTTP/1.1\nHost: lab\n\nGET /100k HTTP/1.1\nHost: lab\n\n",
        ),
    ]
}

fn both() -> Result<()> {
    let lab = Lab::star().servers(1).client_addresses(3).build()?;
    let servers = start_servers(&lab)?;
    let daemon = start(&lab, "web", 80, SOURCE_FIRST)?;
    let off = ["--persist", "source", "--persist", "cookie=SRV,insert,indirect", "--fast-path", "off"];
    let slow = start(&lab, "slow", 81, &off)?;
    let site = Site { daemon, servers, lab };
    site.wait_until_checked(&site.daemon)?;
    site.wait_until_checked(&slow)?;
    answer_in_chunks(UnixListener::bind(site.servers[0].echo_socket())?);
    site.introduce(0)?;
    // The stack remembers the port of the first connection: from here on every one is fast.
    let front = |port| site.lab.client().gateway_at(port);
    let mut opened = 0;
    for (talk, same) in talks("fast").iter().zip(talks("slow")) {
        let answers = |talk: &Talk, to| play(&site, to, talk).with_context(|| format!("{}, {to}", talk.name));
        let (fast, proxied) = (answers(talk, front(80))?, answers(&same, front(81))?);
        opened += 1;
        ensure!(fast.len() == proxied.len(), "{}", talk.name);
        for (fast, proxied) in fast.iter().zip(&proxied) {
            ensure!(fast.status == proxied.status, "{}: {} {}", talk.name, fast.status, proxied.status);
            ensure!(fast.body == proxied.body, "{}: the bodies differ", talk.name);
            let (ours, theirs) = (end_to_end(fast), end_to_end(proxied));
            ensure!(ours == theirs, "{}: {ours:?}, by the proxy {theirs:?}", talk.name);
        }
    }
    ensure!(websocket(&site, front(80))? == websocket(&site, front(81))?, "a WebSocket");
    let (forwarded, excused) =
        (site.daemon.counter("syn_forwarded")?, site.daemon.counter("pass_socket_exists")?);
    ensure!(forwarded + excused == opened + 1, "{forwarded} of {opened} were fast");
    ensure!(forwarded > opened / 2);
    Ok(())
}

fn play(site: &Site, to: SocketAddr, talk: &Talk) -> Result<Vec<Response>> {
    let mut connection = Connection::open(&site.lab.client().ns, Some(site.address(0)), to)?;
    connection.send(&talk.bytes)?;
    talk.methods.iter().map(|method| connection.receive_for(method)).collect()
}

/// Without what is of one connection (RFC 9110 §7.6.1), what may differ from one second to the next, and our own cookie,
/// which the README names.
fn end_to_end(response: &Response) -> Vec<(String, String)> {
    let hop_by_hop = ["connection", "keep-alive", "transfer-encoding", "date", "set-cookie"];
    let headers = response.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone()));
    let headers = headers.filter(|(name, _)| !hop_by_hop.contains(&name.as_str()));
    // What was uploaded twice was not uploaded in the same second, nor to the same file.
    let of_a_file = ["etag", "last-modified", "location"];
    let value = |name: &str, value| if of_a_file.contains(&name) { String::new() } else { value };
    let mut headers: Vec<_> = headers.map(|(name, was)| (name.clone(), value(&name, was))).collect();
    headers.sort();
    headers
}

/// Says hello and hears it again.
fn websocket(site: &Site, to: SocketAddr) -> Result<(u16, Vec<u8>)> {
    let mut connection = Connection::open(&site.lab.client().ns, Some(site.address(0)), to)?;
    let headers = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let status = connection.get("/echo", &headers)?.status;
    connection.send(b"hello")?;
    let mut heard = vec![0; 5];
    connection.stream().read_exact(&mut heard)?;
    Ok((status, heard))
}

/// Answers a request in two chunks, and an upgrade with everything that it hears.
fn answer_in_chunks(listener: UnixListener) {
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || -> std::io::Result<()> {
                let mut head = [0; 4096];
                let length = stream.read(&mut head)?;
                if !String::from_utf8_lossy(&head[..length]).to_ascii_lowercase().contains("websocket") {
                    let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3\r\nyou\r\n0\r\n\r\n";
                    return stream.write_all(answer);
                }
                let yes =
                    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
                stream.write_all(yes)?;
                loop {
                    let length = stream.read(&mut head)?;
                    if length == 0 {
                        return Ok(());
                    }
                    stream.write_all(&head[..length])?;
                }
            });
        }
    });
}
