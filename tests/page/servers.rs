//! Servers: who is there, in what state, and how many sessions belong to each.

use libtest_mimic::Trial;

use super::stage::{CHECKED, Stage, UNCHECKED};
use crate::story;

pub fn stories() -> [Trial; 2] {
    [
        story("servers_are_shown_with_their_state_as_it_changes", states),
        story("sessions_that_are_stuck_to_a_server_are_counted", stuck),
    ]
}

/// The place of a figure of a server.
pub fn cell(server: &str, column: &str) -> String {
    format!("#servers tr[data-name={server:?}] td[data-col={column:?}]")
}

fn states() {
    let mut stage = Stage::open(3, CHECKED);
    let browser = &stage.browser;
    for origin in &stage.origins {
        assert_eq!(
            browser.text(&format!("{} > span", cell(&origin.name, "address"))),
            origin.address.to_string()
        );
        browser.until_text(&cell(&origin.name, "state"), "up");
    }
    stage.daemon.command("set server s1 drain");
    browser.until_text(&cell("s1", "state"), "drain");
    stage.daemon.command("set server s1 maint");
    browser.until_text(&cell("s1", "state"), "maint");
    stage.daemon.command("set server s1 ready");
    browser.until_text(&cell("s1", "state"), "up");
    stage.daemon.command("set server s1 weight 7");
    browser.until_text(&cell("s1", "weight"), "7");

    let killed = stage.origins.remove(1);
    drop(killed);
    let browser = &stage.browser;
    browser.until_text(&cell("s2", "state"), "down");
    browser.until("document.getElementById('summary').textContent.includes('down: s2')");
    for name in ["s1", "s3"] {
        assert!(browser.text(&cell(name, "state")).contains("up"), "{name}");
    }

    stage.daemon.command(&format!("add server odd.Name_-9={},weight=2", stage.origins[0].address));
    browser.until_text(&cell("odd.Name_-9", "weight"), "2");
    stage.daemon.command("set server odd.Name_-9 maint");
    stage.daemon.command("del server odd.Name_-9 --force");
    browser.until("!document.querySelector('[data-name^=odd]')");
    assert_eq!(browser.ask("document.querySelectorAll('#servers tbody tr').length"), 3);
    stage.was_quiet(&[]);
}

fn stuck() {
    let stage = Stage::open(2, &[UNCHECKED, &["--persist", "session=JS,size=1000"]].concat());
    // Five sessions, all of whom the servers have named, and who have come back.
    let mut on_first = 0;
    for number in 0..5 {
        let answer = stage.visit(&format!("/set-cookie?JS=session{number}"), "");
        on_first += usize::from(answer.contains("X-Server: s1\r\n"));
        stage.visit("/", &format!("Cookie: JS=session{number}\r\n"));
    }
    let browser = &stage.browser;
    for (name, count) in [("s1", on_first), ("s2", 5 - on_first)] {
        let cell = serde_json::json!(format!("{} > span", cell(name, "stuck")));
        browser.until(&format!("document.querySelector({cell}).textContent === '{count}'"));
    }
    assert_eq!(browser.text("#tables tr[data-name='session=JS'] [data-col=entries] > span"), "5");
    assert!(browser.text("#tables tr[data-name='session=JS'] [data-col=entries]").contains("of 1,000"));
    stage.was_quiet(&[]);
}
