//! Traffic: figures, charts, and why each request went where it went.

use libtest_mimic::Trial;

use super::stage::{Stage, UNCHECKED};
use crate::story;

pub fn stories() -> [Trial; 2] {
    [
        story("requests_move_figures_charts_and_decisions", traffic),
        story("decisions_are_filtered_and_stand_still_when_paused", pause),
    ]
}

const COOKIES: &[&str] = &["--persist", "cookie=SRV,insert"];
const ROWS: &str = "#decisions tbody tr:not(.detail)";

fn traffic() {
    let stage = Stage::open(2, &[UNCHECKED, COOKIES].concat());
    let browser = &stage.browser;
    assert!(browser.shows("#no-decision"));
    for (headers, times) in [("", 5), ("Cookie: SRV=s2\r\n", 1)] {
        (0..times).for_each(|_| drop(stage.visit("/", headers)));
    }
    // Of two in one millisecond, by two workers, nobody knows which was the last.
    browser.until(&format!("document.querySelectorAll('{ROWS}').length === 6"));
    stage.visit("/status/503", "Cookie: SRV=s1\r\n");
    let first = |column: &str| format!("{ROWS}:first-child [data-col={column}]");
    browser.until_text(&first("status"), "503");
    assert_eq!(browser.ask(&format!("document.querySelectorAll('{ROWS}').length")), 7);
    for (column, text) in [("client", "127.0.0.1"), ("server", "s1"), ("persist", "cookie:hit>s1")] {
        assert_eq!(browser.text(&first(column)), text, "{column}");
    }
    assert!(browser.text(&first("letters")).starts_with('V'));

    // The newest first.
    let times =
        format!("[...document.querySelectorAll('{ROWS} [data-col=time]')].map((cell) => cell.textContent)");
    assert!(browser.holds(&format!("{times}.every((time, index, all) => !index || time <= all[index - 1])")));
    assert!(browser.holds(&format!("{times}[0].match(/^[0-9:.]+$/)")));
    browser.click(&format!("{ROWS}:first-child .more"));
    let words = browser.text("#decisions tr.detail");
    for part in ["cookie names s1, which can be used", "The answer was 503", "the cookie that came is valid"]
    {
        assert!(words.contains(part), "{part}: {words}");
    }

    // A sample is taken every five seconds; then the charts have points and the figures values.
    for (figure, value) in [("requests", "/s"), ("connections", "/s"), ("latency", "ms"), ("failures", "/s")]
    {
        browser.until(&format!(
            "/[0-9]/.test(document.querySelector('#figure-{figure} .value').textContent)
             && /[LM]/.test(document.querySelector('#figure-{figure} path:not(.area)').getAttribute('d'))
             && /[0-9]/.test(document.querySelector('#figure-{figure} svg').ariaLabel)"
        ));
        assert!(browser.text(&format!("#figure-{figure} .value")).ends_with(value) || figure == "latency");
    }
    browser.until("/to [1-9]|to 0\\.[1-9]/.test(document.querySelector('#figure-requests svg').ariaLabel)");
    browser.until("/to [1-9]|to 0\\.[1-9]/.test(document.querySelector('#figure-failures svg').ariaLabel)");
    assert_eq!(browser.text("#figure-fast .value"), "off");
    stage.was_quiet(&[]);
}

fn pause() {
    let stage = Stage::open(2, &[UNCHECKED, COOKIES].concat());
    let browser = &stage.browser;
    let rows = format!("document.querySelectorAll('{ROWS}').length");
    stage.visit("/", "Cookie: SRV=s1\r\n");
    stage.visit("/", "Cookie: SRV=s2\r\n");
    browser.until(&format!("{rows} === 2"));
    browser.fill("#decision-filter", ">s2");
    browser.until(&format!("{rows} === 1"));
    browser.fill("#decision-filter", "nowhere");
    browser.until(&format!("{rows} === 0"));
    assert!(browser.text("#no-decision").contains("has that in it"));
    browser.fill("#decision-filter", "s");
    browser.until(&format!("{rows} === 2"));
    browser.click("#pause");
    assert!(browser.holds("document.getElementById('pause').ariaPressed === 'true'"));
    stage.visit("/", "");
    stage.refreshes(2);
    assert_eq!(browser.ask(&rows), 2);
    browser.click("#pause");
    browser.until(&format!("{rows} === 3"));
    stage.was_quiet(&[]);
}
