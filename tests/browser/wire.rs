//! WebDriver on the wire: JSON over HTTP/1.1, a connection for every command. Client crates for it bring a hundred others
//! along, most of them for TLS, HTTP/2 and names of hosts.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// For a command, the start of a browser among them.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the driver answers to a command.
pub fn post(driver: SocketAddr, path: &str, parameters: &Value) -> Result<Value> {
    let mut stream = TcpStream::connect_timeout(&driver, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let body = parameters.to_string();
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: {driver}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    )?;
    let mut answer: Value = serde_json::from_slice(&body_of(stream)?)?;
    let value = answer["value"].take();
    // Errors are told in the body as well as by the status.
    match value.get("error").and_then(Value::as_str) {
        Some(error) => bail!("{error}: {}", value["message"].as_str().unwrap_or_default()),
        None => Ok(value),
    }
}

fn body_of(stream: TcpStream) -> Result<Vec<u8>> {
    let mut reader = BufReader::new(stream);
    let mut length = None;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            if line.trim_end().is_empty() {
                break;
            }
            continue;
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = Some(value.trim().parse::<usize>()?);
        }
    }
    let mut body = vec![0; length.context("an answer without a length")?];
    reader.read_exact(&mut body)?;
    Ok(body)
}
