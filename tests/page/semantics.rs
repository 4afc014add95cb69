//! What somebody hears who does not see the page.

use libtest_mimic::Trial;

use super::stage::{Stage, UNCHECKED};
use crate::story;

pub fn stories() -> [Trial; 1] {
    [story("the_page_makes_sense_to_a_screen_reader", semantics)]
}

/// Each finds what is wrong: a list of elements, which is to be empty.
const RULES: &[(&str, &str)] = &[
    ("landmarks", "['header', 'main'].filter((name) => document.querySelectorAll(`body > ${name}`).length !== 1)"),
    ("one heading of the first level", "[...document.querySelectorAll('h1')].slice(1)"),
    ("a language", "document.documentElement.lang ? [] : [document.documentElement]"),
    (
        "levels of headings are not left out",
        "[...document.querySelectorAll('h1, h2, h3')].filter((heading, index, all) =>
             heading.tagName[1] > (all[index - 1]?.tagName[1] ?? 0) - -1)",
    ),
    (
        "fields have labels",
        "[...document.querySelectorAll('input, textarea, select')].filter((field) => !field.labels.length
             || ![...field.labels].every((label) => label.textContent.trim()))",
    ),
    (
        "buttons have names",
        "[...document.querySelectorAll('button, a')].filter((button) => !(button.ariaLabel ?? button.textContent).trim())",
    ),
    (
        "tables have captions",
        "[...document.querySelectorAll('table')].filter((table) => !table.caption?.textContent.trim())",
    ),
    (
        "headers of tables have names and a scope",
        "[...document.querySelectorAll('thead :is(th, td)')].filter((cell) => cell.tagName !== 'TH'
             || cell.scope !== 'col' || !cell.textContent.trim())",
    ),
    (
        "rows have a cell for each header",
        "[...document.querySelectorAll('tbody tr')].filter((row) =>
             [...row.cells].reduce((sum, cell) => sum + cell.colSpan, 0) !== row.closest('table').tHead.rows[0].cells.length)",
    ),
    ("pictures have a text", "[...document.querySelectorAll('svg')].filter((svg) => svg.role !== 'img' || !svg.ariaLabel)"),
    (
        "sections have a name",
        "[...document.querySelectorAll('section, [role=region], dialog')].filter((section) =>
             !document.getElementById(section.getAttribute('aria-labelledby'))?.textContent.trim())",
    ),
    (
        "only results and notices speak up",
        "[...document.querySelectorAll('[aria-live], [role=status], [role=alert], [role=log], [role=timer], output')]
             .filter((element) => !['notice', 'explain-result', 'explain-error'].includes(element.id))",
    ),
    (
        "what is referred to is there",
        "[...document.querySelectorAll('[aria-labelledby], [aria-describedby], label[for], a[href^=\"#\"]')].filter((element) =>
             ['aria-labelledby', 'aria-describedby', 'for', 'href'].some((name) => element.hasAttribute(name)
                 && !document.getElementById(element.getAttribute(name).replace('#', ''))))",
    ),
    (
        "numbers are unique",
        "[...document.querySelectorAll('[id]')].filter((element, index, all) =>
             all.findIndex((other) => other.id === element.id) !== index)",
    ),
    (
        "states are words as well as signs",
        "[...document.querySelectorAll('#servers td[data-col=state]')].filter((cell) =>
             ![...cell.querySelectorAll('span:not([aria-hidden])')].some((span) => /^(up|down|drain|maint)$/.test(span.textContent)))",
    ),
];

fn semantics() {
    let flags = ["--persist", "cookie=SRV,insert", "--persist", "source"];
    let stage = Stage::open(3, &[UNCHECKED, &flags].concat());
    stage.visit("/", "");
    let browser = &stage.browser;
    browser.until_text("#decisions tbody [data-col=server]", "s");
    browser.click("#decisions .more");
    // The first sample comes after a few seconds.
    browser
        .until("document.querySelector('#figure-requests svg').ariaLabel.includes(', the last 2 minutes')");
    for (rule, wrong) in RULES {
        let wrong = browser.ask(&format!("{wrong}.map((element) => element.outerHTML ?? element)"));
        assert_eq!(wrong, serde_json::json!([]), "{rule}");
    }
    // The tree that is read aloud has them by their names.
    let tree = browser.command("Accessibility.getFullAXTree", &serde_json::json!({}));
    let nodes = tree["nodes"].as_array().expect("nodes");
    let is_there = |role: &str, name: &str| {
        nodes.iter().any(|node| {
            node["role"]["value"] == role
                && node["name"]["value"].as_str().is_some_and(|text| text.contains(name))
        })
    };
    for (role, name) in [
        ("main", ""),
        ("banner", ""),
        ("table", "Servers"),
        ("table", "last requests"),
        ("searchbox", "Filter"),
        ("textbox", "Address of the client"),
        ("button", "Explain"),
        ("button", "Pause"),
        ("columnheader", "State"),
        ("region", "Servers"),
        ("image", "Requests, the last 2 minutes"),
    ] {
        assert!(is_there(role, name), "{role} {name:?}");
    }
    stage.was_quiet(&[]);
}
