//! What people see of the fast path: the page in a real browser and `balancer top` on a real terminal, in front of a service
//! with real XDP on real veth pairs.
#![allow(unreachable_pub, missing_docs, reason = "a test is nobody's library")]

#[allow(dead_code, reason = "shared with the tests of the page")]
mod browser;
#[allow(dead_code, reason = "shared with the tests of `balancer top`")]
mod pty;
#[allow(dead_code, reason = "shared with the tests of the fast path")]
mod site;
mod window;

use anyhow::{Result, ensure};
use browser::Browser;
use libtest_mimic::{Arguments, Failed, Trial};
use pty::Terminal;
use site::{BALANCER, SOURCE_FIRST, Site, Visit, trial};
use window::Window;
use xtask::lab::http::Connection;

fn main() {
    let trials = vec![
        trial("a_terminal_shows_fast_connections_while_they_are_there", terminal),
        with_browser("the_page_shows_the_share_of_the_fast_path", page),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// A test that needs a browser besides.
fn with_browser(name: &str, story: fn() -> Result<()>) -> Trial {
    match browser::missing() {
        None => trial(name, story),
        Some(reason) => Trial::test(name, || Err(Failed::from(reason)))
            .with_ignored_flag(std::env::var_os("CI").is_none()),
    }
}

/// Connections of a client whose server is known, all of them fast; the first client's, who may be new.
fn fast_connections(site: &Site, count: usize) -> Result<(String, Vec<Connection>)> {
    let home = site.introduce(0)?;
    let open = |_| -> Result<Connection> {
        let mut connection = site.connect(0)?;
        ensure!(Visit::of(&connection.get("/", &[])?)?.fast, "it came through the proxy");
        Ok(connection)
    };
    Ok((home, (0..count).map(open).collect::<Result<_>>()?))
}

fn terminal() -> Result<()> {
    let site = Site::open(SOURCE_FIRST)?;
    let admin = site.daemon.admin().display().to_string();
    let mut terminal =
        Terminal::start(&[BALANCER, "top", "--interval", "100ms", "--admin", &admin], &[], (120, 40));
    terminal.press("4");
    terminal.wait_for(&["0 fast connections"]);
    let (home, connections) = fast_connections(&site, 3)?;
    let port = connections[0].local_addr()?.port();
    let client = format!("{}:{port}", site.address(0));
    terminal.wait_for(&["3 fast connections", &client, &home, "established"]);
    terminal.press("1");
    // The proxy has seen the first visit alone.
    terminal.wait_for(&["fast", "3, 75% of new"]);
    drop(connections);
    terminal.press("4");
    terminal.wait_until("end of all connections", |screen| {
        let text = screen.contents();
        !text.contains("established") && text.contains("fast connections")
    });
    terminal.press("q");
    ensure!(terminal.wait_until_ended() == 0);
    Ok(())
}

fn page() -> Result<()> {
    let site = Site::open(&[SOURCE_FIRST, &["--http-admin", "127.0.0.1:7070"]].concat())?;
    let window = Window::into(&site.lab.balancer, "127.0.0.1:7070".parse()?)?;
    let browser = Browser::start();
    browser.open(&format!("http://{}/status", window.address));
    browser.until("document.getElementById('ready').textContent === 'ready'");
    // Nothing was opened yet.
    browser.until_text("#figure-fast .value", "–");
    let (home, connections) = fast_connections(&site, 3)?;
    browser.until_text("#figure-fast .note", "3 connections in the kernel now");
    browser.until_text("#figure-fast .note", "nat, XDP on ");
    // The proxy has seen the first visit alone.
    browser.until_text("#figure-fast .value", "75 %");
    browser.until("/[LM]/.test(document.querySelector('#figure-fast path:not(.area)').getAttribute('d'))");
    let row = format!("#servers tr[data-name={home:?}]");
    browser.until_text(&format!("{row} td[data-col=now]"), "3 of them fast");
    browser.until_text(&format!("{row} td[data-col=stuck] > span"), "1");

    browser.fill("#explain-src", &site.address(0).to_string());
    browser.click("#explain [type=submit]");
    browser.until_text("#explain-result .answer", &home);
    browser.until_text("#explain-result", "fast");
    drop(connections);
    browser.until_text("#figure-fast .note", "0 connections in the kernel now");
    let complaints = browser.complaints();
    ensure!(complaints.is_empty(), "{complaints:?}");
    Ok(())
}
