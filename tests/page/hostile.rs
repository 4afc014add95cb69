//! Text that would be markup, from clients, from flags, and from whatever answers in the place of the balancer.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::Value;

use super::explain::REFUSED;
use super::stage::{Stage, UNCHECKED, exchange};
use crate::browser::{Browser, PATIENCE};
use crate::story;

pub fn stories() -> [Trial; 3] {
    [
        story("what_clients_send_is_shown_as_text", clients),
        story("every_text_of_the_object_is_shown_as_text", every_text),
        story("the_policy_allows_the_page_itself_and_nothing_else", policy),
    ]
}

const HOSTILE: &str = "<img/src=x/onerror=document.title='owned'>";

/// Nothing was made of the text but text.
fn is_harmless(browser: &Browser) {
    assert_eq!(browser.ask("document.querySelectorAll('img, iframe, b[class], main script').length"), 0);
    assert!(!browser.ask("document.title").as_str().expect("a title").contains("owned"));
}

fn clients() {
    // An id may have all but a few characters, and stands in what would be written.
    let id = format!("id={}", HOSTILE.replace('\'', "`"));
    let odd = format!("odd._-=127.0.0.1:1,{id}");
    let stage = Stage::open(1, &[UNCHECKED, &["--persist", "cookie=SRV,insert", "--server", &odd]].concat());
    let browser = &stage.browser;
    stage.visit(
        "/",
        &format!("Cookie: SRV={HOSTILE}\r\nX-Forwarded-For: {HOSTILE}\r\nReferer: {HOSTILE}\r\n"),
    );
    stage.visit(&format!("/{HOSTILE}"), &format!("Cookie: {HOSTILE}={HOSTILE}\r\nUser-Agent: {HOSTILE}\r\n"));
    stage.visit("/", &format!("Cookie: SRV={}\r\n", &id[3..]));
    browser.until_text("#decisions tbody tr [data-col=persist]", "odd._-");
    for field in ["server-filter", "decision-filter", "explain-src", "explain-path"] {
        browser.fill(&format!("#{field}"), HOSTILE);
    }
    browser.click("#explain [type=submit]");
    browser.until_text("#explain-error", HOSTILE);
    is_harmless(browser);
    browser.fill("#explain-src", "192.0.2.7");
    browser.fill("#explain-path", "/");
    browser.fill("#explain-headers", &format!("Cookie: SRV={HOSTILE}"));
    stage.daemon.command("set server s1 maint");
    browser.click("#explain [type=submit]");
    browser.until_text("#explain-result .answer", "odd._-");
    is_harmless(browser);
    stage.was_quiet(&[REFUSED]);
}

/// The page is to trust nobody, so it is given an object that the balancer would not make.
fn every_text() {
    let stage =
        Stage::open(2, &[UNCHECKED, &["--persist", "cookie=SRV,insert", "--persist", "source"]].concat());
    stage.visit("/", "Cookie: SRV=s1\r\n");
    let liar = Liar::before(stage.admin());
    let browser = &stage.browser;
    browser.open(&format!("http://{}/status", liar.address));
    browser.until_text("#service", HOSTILE);
    for place in ["#version", "#warnings", "#servers", "#tables", "#decisions", "#listen"] {
        browser.until_text(place, HOSTILE);
    }
    browser.click("#decisions .more");
    browser.until_text("#decisions tr.detail", HOSTILE);
    browser.fill("#explain-src", "192.0.2.7");
    browser.click("#explain [type=submit]");
    browser.until_text("#explain-result", HOSTILE);
    stage.refreshes(2);
    is_harmless_but_for_its_title(browser);
    let complaints = browser.complaints();
    assert!(complaints.is_empty(), "{complaints:?}");
}

/// The name of the service is in it.
fn is_harmless_but_for_its_title(browser: &Browser) {
    assert_eq!(browser.ask("document.querySelectorAll('img, iframe, main script').length"), 0);
    assert_ne!(browser.ask("document.title"), "owned");
}

fn policy() {
    let stage = Stage::open(1, UNCHECKED);
    let answer = exchange(stage.admin(), &format!("GET /status HTTP/1.1\r\nHost: {}\r\n\r\n", stage.admin()));
    let header = |name: &str| {
        let lines = answer.lines().take_while(|line| !line.is_empty());
        let mut values = lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        values.next().unwrap_or_else(|| panic!("no {name}: {answer}")).to_owned()
    };
    let policy = header("Content-Security-Policy");
    for part in [
        "default-src 'none'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.split("; ").any(|found| found == part), "{part}: {policy}");
    }
    assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
    assert_eq!(header("Referrer-Policy"), "no-referrer");
    assert_eq!(header("X-Content-Type-Options"), "nosniff");
    // And it holds: what somebody managed to put into the page would not run, be shown or be fetched.
    let elsewhere = TcpListener::bind("127.0.0.1:0").expect("bound");
    elsewhere.set_nonblocking(true).expect("set");
    let browser = &stage.browser;
    let injected = "const add = (tag, properties) =>
             document.body.append(Object.assign(document.createElement(tag), properties));
         add('script', {textContent: 'document.title = `owned`'});
         add('div', {innerHTML: '<img src=x onerror=\"document.title = `owned`\">'});
         add('img', {src: 'http://ELSEWHERE/x.png'});
         add('iframe', {src: 'http://ELSEWHERE/'});
         fetch('http://ELSEWHERE/').catch(() => 0);";
    browser.run(&injected.replace("ELSEWHERE", &elsewhere.local_addr().expect("address").to_string()));
    stage.refreshes(2);
    assert_ne!(browser.ask("document.title"), "owned");
    let refused = browser.complaints();
    assert!(
        refused.iter().filter(|text| text.contains("Content Security Policy")).count() >= 5,
        "{refused:#?}"
    );
    // Chromium may connect before it looks at the policy; then it says nothing.
    while let Ok((mut stream, _)) = elsewhere.accept() {
        stream.set_read_timeout(Some(Duration::from_millis(100))).expect("set");
        assert!(!matches!(stream.read(&mut [0; 1]), Ok(1)), "somebody was asked");
    }
}

/// Stands before the balancer, and puts markup into every text of its objects. Gone on drop.
struct Liar {
    address: SocketAddr,
    is_gone: Arc<AtomicBool>,
}

impl Liar {
    fn before(admin: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("address");
        let is_gone = Arc::new(AtomicBool::new(false));
        let has_gone = Arc::clone(&is_gone);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if has_gone.load(Ordering::SeqCst) {
                    return;
                }
                thread::spawn(move || lie(&stream, admin));
            }
        });
        Self { address, is_gone }
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.is_gone.store(true, Ordering::SeqCst);
        // Wakes the thread, which then closes the listener.
        let _ = TcpStream::connect(self.address);
    }
}

fn lie(mut stream: &TcpStream, admin: SocketAddr) {
    let _ = stream.set_read_timeout(Some(PATIENCE));
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
    // A browser may connect in advance and say nothing.
    let Some(first) = lines.next() else { return };
    lines.for_each(drop);
    let answer = exchange(admin, &format!("{first}\r\nHost: {admin}\r\n\r\n"));
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    let Ok(mut object) = serde_json::from_str::<Value>(body) else {
        let _ = stream.write_all(answer.as_bytes());
        return;
    };
    if object["info"]["warnings"].is_array() {
        object["info"]["warnings"] = serde_json::json!(["mind the gap"]);
    }
    spoil(&mut object);
    let status = head.lines().next().unwrap_or_default();
    let _ = write!(stream, "{status}\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n{object}");
}

fn spoil(value: &mut Value) {
    match value {
        Value::String(text) => text.push_str(HOSTILE),
        Value::Array(values) => values.iter_mut().for_each(spoil),
        Value::Object(members) => members.values_mut().for_each(spoil),
        _ => {}
    }
}
