//! Without a mouse.

use libtest_mimic::Trial;

use super::stage::{Stage, UNCHECKED};
use crate::browser::{Browser, ENTER, ESCAPE, TAB};
use crate::story;

pub fn stories() -> [Trial; 2] {
    [
        story("everything_is_reached_with_the_tab_key_and_seen_to_be", tab),
        story("keys_lead_to_what_is_needed_and_not_while_typing", keys),
    ]
}

/// More than there are places to stop at.
const MOST_STOPS: usize = 60;

impl Browser {
    fn has_focus(&self, selector: &str) -> bool {
        self.holds(&format!("document.activeElement.matches({selector:?})"))
    }

    /// Goes there with the tab key. Where it stops on the way, that is seen.
    fn tab_to(&self, selector: &str) {
        for _ in 0..MOST_STOPS {
            self.press(TAB.to_string());
            let shown = self.run(
                "const element = document.activeElement, {outlineStyle, outlineWidth} = getComputedStyle(element);
                 const isSeen = outlineStyle !== 'none' && parseFloat(outlineWidth) >= 1 && element.checkVisibility();
                 return isSeen || element === document.body ? '' : element.outerHTML.slice(0, 200);",
            );
            assert_eq!(shown, "", "the focus cannot be seen there");
            if self.has_focus(selector) {
                return;
            }
        }
        panic!("{selector} is not reached");
    }
}

fn tab() {
    let stage = Stage::open(3, &[UNCHECKED, &["--persist", "cookie=SRV,insert"]].concat());
    let browser = &stage.browser;
    stage.visit("/", "Cookie: SRV=s3\r\n");
    browser.until_text("#decisions tbody [data-col=server]", "s3");
    let names = || {
        browser
            .ask("[...document.querySelectorAll('#servers tbody tr')].map((row) => row.dataset.name).join()")
    };
    browser.tab_to(".skip");
    browser.tab_to("#figure-requests svg");
    browser.tab_to("#server-filter");
    browser.tab_to("th[data-col=name] button");
    for (sorted, expected) in [("ascending", "s1,s2,s3"), ("descending", "s3,s2,s1")] {
        browser.press(ENTER.to_string());
        assert!(
            browser.holds(&format!("document.querySelector('th[data-col=name]').ariaSort === '{sorted}'"))
        );
        assert_eq!(names(), expected);
    }
    stage.refreshes(2);
    assert_eq!(names(), "s3,s2,s1", "the order stays");
    for column in ["state", "address", "weight", "stuck", "now", "rate", "time", "failures", "queue"] {
        browser.tab_to(&format!("th[data-col={column}] button"));
        browser.press(" ");
        assert_eq!(browser.ask("document.querySelectorAll('[aria-sort]').length"), 1);
        assert!(browser.holds(&format!("document.querySelector('th[data-col={column}]').ariaSort")));
    }
    browser.tab_to("#decision-filter");
    browser.tab_to("#pause");
    browser.press(ENTER.to_string());
    assert!(browser.holds("document.getElementById('pause').ariaPressed === 'true'"));
    browser.press(" ");
    assert!(browser.holds("document.getElementById('pause').ariaPressed === 'false'"));
    browser.tab_to("#decisions .more");
    browser.press(ENTER.to_string());
    browser.until_text("#decisions tr.detail", "cookie names s3");
    assert!(browser.has_focus("#decisions .more[aria-expanded=true]"));
    browser.press(ENTER.to_string());
    assert!(browser.holds("!document.querySelector('#decisions tr.detail')"));
    browser.tab_to("#explain-src");
    browser.press("192.0.2.7");
    browser.tab_to("#explain-headers");
    browser.press("Cookie: SRV=s3");
    browser.tab_to("#explain [type=submit]");
    browser.press(ENTER.to_string());
    browser.until_text("#explain-result .answer", "s3");
    stage.was_quiet(&[]);
}

fn keys() {
    let stage = Stage::open(3, UNCHECKED);
    let browser = &stage.browser;
    let is_paused = || browser.holds("document.getElementById('pause').ariaPressed === 'true'");
    browser.press("?");
    assert!(browser.holds("document.getElementById('keys').open"));
    browser.press("p");
    assert!(!is_paused(), "the help is before everything else");
    browser.press(ESCAPE.to_string());
    assert!(browser.holds("!document.getElementById('keys').open"));
    browser.press("/");
    assert!(browser.has_focus("#server-filter"));
    browser.press("s2pe?/");
    assert_eq!(browser.ask("document.getElementById('server-filter').value"), "s2pe?/");
    assert!(!is_paused() && browser.holds("!document.getElementById('keys').open"));
    assert!(browser.shows("#no-server"));
    browser.fill("#server-filter", "s2");
    assert_eq!(browser.ask("document.querySelectorAll('#servers tbody tr').length"), 1);
    assert_eq!(browser.text("#servers tbody td[data-col=name]"), "s2");
    browser.press(ESCAPE.to_string());
    assert!(!browser.has_focus("#server-filter"));
    browser.press("p");
    assert!(is_paused());
    browser.press("p");
    assert!(!is_paused());
    browser.press("e");
    assert!(browser.has_focus("#explain-src"));
    browser.press(format!("::1{ENTER}"));
    browser.until_text("#explain-result .answer", "s");
    stage.was_quiet(&[]);
}
