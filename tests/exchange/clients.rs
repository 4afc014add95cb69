//! A few clients that nobody here has written.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;

use libtest_mimic::{Failed, Trial};
use xtask::privilege::find_program;

use super::subject::{Kind, Subject};
use super::wire;

/// Two requests on one connection, the second with chunks; prints statuses and contents.
const PYTHON: &str = "
import http.client, sys
c = http.client.HTTPConnection(sys.argv[1], timeout=10)
for body in ('hello', iter([b'in ', b'chunks'])):
    c.request('POST', '/python', body=body)
    r = c.getresponse()
    print(r.status, r.read().decode())
";

/// Ignored, visibly, where the client is not installed.
pub fn trials() -> Vec<Trial> {
    let curl = |url: &str| {
        let options = ["--silent", "--show-error", "--max-time", "10", "--http1.1"];
        let mut command = Command::new("curl");
        command.args(options).args(["--data", "hello", url]);
        command.args(["--next"]).args(options).args(["--get", url]);
        command.args(["--next"]).args(options).args(["--head", url]);
        command.args(["--next"]).args(options).args([
            "--header",
            "Expect: 100-continue",
            "--data",
            "again",
            url,
        ]);
        command
    };
    let python = |url: &str| {
        let mut command = Command::new("python3");
        let authority = url.trim_start_matches("http://").trim_end_matches('/');
        command.args(["-c", PYTHON, authority]);
        command
    };
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n";
    vec![
        trial("curl", curl, format!("POST hello\nGET \n{head}POST again\n")),
        trial("python3", python, "200 POST hello\n\n200 POST in chunks\n\n".into()),
    ]
}

fn trial(
    client: &'static str,
    command: impl Fn(&str) -> Command + Send + 'static,
    expected: String,
) -> Trial {
    let run = move || serve(&command, &expected);
    Trial::test(format!("clients::{client}"), run).with_ignored_flag(find_program(client).is_none())
}

fn serve(command: &impl Fn(&str) -> Command, expected: &str) -> Result<(), Failed> {
    let balancer = Subject::start(Kind::Balancer, origin());
    let output = command(&format!("http://{}/", balancer.listen())).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() && said == expected {
        return Ok(());
    }
    Err(format!("{}: {said:?} {}", output.status, String::from_utf8_lossy(&output.stderr)).into())
}

/// A server that says what it was asked; it lives as long as this program.
fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("address");
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || answer(stream));
        }
    });
    address
}

fn answer(mut stream: TcpStream) {
    let (mut held, mut bytes) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = stream.read(&mut bytes) {
        held.extend_from_slice(&bytes[..count]);
        while let Some(request) = wire::request(&held) {
            held.drain(..request.length);
            let method = request.word(0);
            let body = format!("{method} {}\n", String::from_utf8_lossy(&request.body));
            let length = body.len();
            let sent = if method == "HEAD" { "" } else { &body };
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{sent}");
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }
}
