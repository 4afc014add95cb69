//! The page is brought up to date under somebody who reads it, and says when it is not.

use std::io::{Read, Write};
use std::net::TcpListener;

use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::stage::{Stage, UNCHECKED, start};
use crate::story;

pub fn stories() -> [Trial; 2] {
    [
        story("what_is_read_marked_opened_or_typed_survives_refreshes", keeps),
        story("a_daemon_that_does_not_answer_is_told_and_forgotten_when_it_does", outage),
    ]
}

fn keeps() {
    let many: Vec<String> = (10..60).map(|number| format!("m{number}=127.0.0.1:{number}")).collect();
    let many = many.iter().flat_map(|server| ["--server", server]);
    let flags: Vec<&str> =
        [UNCHECKED, &["--persist", "cookie=SRV,insert"]].concat().into_iter().chain(many).collect();
    let stage = Stage::open(1, &flags);
    let browser = &stage.browser;
    let visit = || drop(stage.visit("/", "Cookie: SRV=s1\r\n"));
    visit();
    browser.until_text("#decisions tbody [data-col=server]", "s1");
    browser.fill("#explain-headers", "Cookie: half of it");
    browser.run(
        "for (const element of document.querySelectorAll('main *')) element.marked = true;
         document.querySelector('#decisions .more').focus();
         window.scrollTo(0, 40);
         document.querySelector('#servers').parentElement.scrollTop = 333;
         getSelection().selectAllChildren(document.querySelector('[data-name=m40] [data-col=address]'));",
    );
    let state = || {
        browser.ask(
            "JSON.stringify([scrollY, document.querySelector('#servers').parentElement.scrollTop, getSelection().toString(),
             document.activeElement.className, document.activeElement.marked,
             document.getElementById('explain-headers').value])",
        )
    };
    let before = state();
    assert!(before.as_str().is_some_and(|text| text.contains("127.0.0.1:40")), "{before}");
    visit();
    browser.until("document.querySelectorAll('#decisions tbody tr').length === 2");
    stage.refreshes(2);
    assert_eq!(state(), before);
    // Nothing was made anew but the second decision, and what the first figures needed.
    let new = browser.ask(
        "[...document.querySelectorAll('main *')].filter((element) => !element.marked
         && !element.closest('#decisions tbody tr:first-child, #figures')).map((element) => element.outerHTML).join()",
    );
    assert_eq!(new, "");

    browser.click("#decisions tbody tr:last-child .more");
    assert!(browser.holds("document.querySelector('#decisions tbody tr:last-child').matches('.detail')"));
    browser.run("document.querySelector('#decisions tr.detail').marked = true;");
    visit();
    stage.refreshes(2);
    assert!(browser.holds("document.querySelector('#decisions tbody tr:last-child.detail').marked"));
    // It goes on when asked to, with the detail where it was.
    browser.click("#pause");
    browser.until("document.querySelectorAll('#decisions tbody tr:not(.detail)').length === 3");
    assert!(browser.holds("document.querySelector('#decisions tbody tr:last-child.detail').marked"));
    stage.was_quiet(&[]);
}

fn outage() {
    let mut stage = Stage::open(1, UNCHECKED);
    let signal = |stage: &Stage, signal| {
        kill(Pid::from_raw(stage.daemon.pid().cast_signed()), signal).expect("it runs");
    };
    let is_told = |stage: &Stage, part: &str| {
        stage.browser.until_text("#notice", "no answer since");
        stage.browser.until_text("#notice", part);
        assert!(stage.browser.shows("#notice") && stage.browser.holds("document.body.matches('.stale')"));
    };
    let is_over = |stage: &Stage| {
        stage.browser.until("document.getElementById('notice').hidden && !document.body.matches('.stale')");
    };
    assert!(!stage.browser.shows("#notice"));
    signal(&stage, Signal::SIGSTOP);
    is_told(&stage, "it says nothing");
    stage.browser.until("/updated .* ago/.test(document.getElementById('age').textContent)");
    stage.browser.until("!document.getElementById('age').textContent.includes('moment')");
    signal(&stage, Signal::SIGCONT);
    is_over(&stage);

    let admin = stage.admin().to_string();
    signal(&stage, Signal::SIGKILL);
    is_told(&stage, "it cannot be reached");
    {
        let impostor = TcpListener::bind(&admin).expect("the port is free");
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 13\r\nConnection: close\r\n\r\n<html></html>";
        let (mut stream, _) = impostor.accept().expect("the page asks");
        // The one byte that there has to be.
        let _ = stream.read(&mut [0; 4096]);
        stream.write_all(answer.as_bytes()).expect("sent");
        is_told(&stage, "its answer is not understood");
    }
    stage.daemon = start(&stage.origins, &[UNCHECKED, &["--http-admin", &admin]].concat());
    is_over(&stage);
    assert_eq!(stage.browser.text("#ready"), "ready");
    stage.was_quiet(&["net::ERR_"]);
}
