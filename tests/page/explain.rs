//! The form that asks where a request would go.

use libtest_mimic::Trial;

use super::stage::{Stage, UNCHECKED};
use crate::story;

pub fn stories() -> [Trial; 3] {
    [
        story("explain_names_the_server_of_a_cookie", cookie),
        story("a_wrong_question_is_told_beside_its_field", wrong),
        story("who_is_elsewhere_is_told_why_there_is_no_form", elsewhere),
    ]
}

const COOKIES: &[&str] = &["--persist", "cookie=SRV,insert", "--persist", "source"];
/// A refusal is an answer; Chromium writes it to the console all the same.
pub const REFUSED: &str = "/explain.json";

fn cookie() {
    let stage = Stage::open(3, &[UNCHECKED, COOKIES].concat());
    let browser = &stage.browser;
    browser.fill("#explain-src", "192.0.2.7");
    browser.fill("#explain-path", "/cart?a=1&b=%20+;%23");
    browser.fill("#explain-headers", "Cookie: SRV=s2\n\nX-Other: a+b & c");
    browser.click("#explain [type=submit]");
    browser.until_text("#explain-result .answer", "s2");
    let words = browser.text("#explain-result");
    for part in ["Decided by cookie", "cookie names s2", "source", "slow"] {
        assert!(words.contains(part), "{part}: {words}");
    }
    // Nothing of it is in the page's address, where others would see it.
    assert_eq!(browser.ask("location.href"), stage.url());
    assert_eq!(
        browser.ask("localStorage.length + sessionStorage.length + history.length"),
        browser.ask("history.length")
    );
    browser.fill("#explain-headers", "Cookie: SRV=nobody");
    browser.click("#explain [type=submit]");
    browser.until(
        "document.querySelectorAll('#explain-result ol li')[0].textContent.includes('names no server')",
    );
    assert!(browser.text("#explain-result").contains("These are the candidates"));
    stage.was_quiet(&[]);
}

fn wrong() {
    let stage = Stage::open(1, &[UNCHECKED, COOKIES].concat());
    let browser = &stage.browser;
    let ask = |address: &str, headers: &str| {
        browser.fill("#explain-src", address);
        browser.fill("#explain-headers", headers);
        browser.click("#explain [type=submit]");
    };
    let is_marked = || browser.holds("document.getElementById('explain-src').ariaInvalid === 'true'");
    browser.click("#explain [type=submit]");
    assert!(browser.text("#explain-error").contains("address of the client") && is_marked());
    ask("300.1.1.1", "");
    browser.until_text("#explain-error", "\"300.1.1.1\" is not an address");
    assert!(is_marked());
    assert!(browser.holds("document.activeElement.id === 'explain-src'"));
    ask("::1", "no header");
    browser.until_text("#explain-error", "refused");
    assert!(!is_marked(), "the address was right");
    // As pasted: so many keys would take a minute.
    browser.run("document.getElementById('explain-headers').value = `Cookie: a=${'b'.repeat(20000)}`;");
    browser.click("#explain [type=submit]");
    browser.until_text("#explain-error", "too long");
    ask("::1", "");
    browser.until_text("#explain-result .answer", "s1");
    assert!(browser.text("#explain-error").is_empty() && !is_marked());
    stage.was_quiet(&[REFUSED]);
}

fn elsewhere() {
    let stage = Stage::open(1, &[UNCHECKED, COOKIES, &["--http-admin", "0.0.0.0:0"]].concat());
    let browser = &stage.browser;
    stage.visit("/", "");
    browser.until_text("#decisions tbody [data-col=server]", "s1");
    assert!(!browser.shows("#decisions tbody [data-col=client]"), "clients are not told");
    browser.fill("#explain-src", "192.0.2.7");
    browser.click("#explain [type=submit]");
    browser.until("document.getElementById('explain').hidden");
    assert!(browser.shows("#explain-refused"));
    assert!(browser.text("#explain-refused").contains("only who is on this host may ask"));
    assert!(browser.text("#explain-refused").contains("balancer explain"));
    stage.was_quiet(&[REFUSED]);
}
