//! Sizes and schemes: everything fits, can be read and can be hit with a thumb. Pictures are left for people to look at.

use std::path::{Path, PathBuf};

use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::servers::cell;
use super::stage::{CHECKED, Stage, UNCHECKED};
use crate::story;

pub fn stories() -> [Trial; 3] {
    [
        story("the_page_of_a_service_just_started_fits_and_can_be_read", just_started),
        story("the_page_of_a_service_in_trouble_fits_and_can_be_read", in_trouble),
        story("the_page_of_forty_servers_fits_and_can_be_read", forty),
    ]
}

const SIZES: &[(u32, u32)] = &[(1280, 800), (390, 844), (360, 640)];
const SCHEMES: &[&str] = &["light", "dark"];
/// Smaller ones are missed on a phone.
const THUMB: u32 = 40;
const PERSIST: &[&str] = &["--persist", "cookie=SRV,insert", "--persist", "source"];

fn just_started() {
    look(&Stage::open(3, &[CHECKED, PERSIST].concat()), "just-started");
}

fn in_trouble() {
    let mut stage = Stage::open(3, &[CHECKED, PERSIST, &["--balance", "first"]].concat());
    for _ in 0..20 {
        stage.visit("/", "");
        stage.visit("/", "Cookie: SRV=s2\r\n");
        stage.visit("/slow?ms=20", "Cookie: SRV=s1\r\n");
    }
    stage.visit("/status/503", "Cookie: SRV=s3\r\n");
    stage.browser.until("document.querySelectorAll('#decisions tbody tr').length > 60");
    stage.browser.until("/to [0-9.]+ ms/.test(document.querySelector('#figure-latency svg').ariaLabel)");
    look(&stage, "three-servers");

    stage.daemon.command("set server s2 drain");
    drop(stage.origins.pop());
    let browser = &stage.browser;
    browser.until_text(&cell("s3", "state"), "down");
    browser.until_text(&cell("s2", "state"), "drain");
    stage.visit("/", "Cookie: SRV=s3\r\n");
    browser.until_text("#decisions tbody tr [data-col=persist]", "down");
    browser.click("#decisions .more");
    browser.fill("#explain-src", "2001:db8::7");
    browser.fill("#explain-headers", "Cookie: SRV=s3");
    browser.click("#explain [type=submit]");
    browser.until_text("#explain-result", "s3, which is down");
    look(&stage, "one-down-one-draining-explained");

    kill(Pid::from_raw(stage.daemon.pid().cast_signed()), Signal::SIGSTOP).expect("it runs");
    browser.until("document.body.matches('.stale')");
    // What is old is grey on purpose; it has to fit all the same.
    for &size in SIZES {
        for scheme in SCHEMES {
            show(&stage, size, scheme);
            fits(&stage, size);
            browser.picture(&picture("stale", size, scheme));
        }
    }
    kill(Pid::from_raw(stage.daemon.pid().cast_signed()), Signal::SIGCONT).expect("it runs");
}

fn forty() {
    let servers: Vec<String> = (1..40).map(|number| format!("web-{number:02}=127.0.0.1:{number}")).collect();
    let long = "a-server.with-a-name-as-long-as-the-names-of-servers-may-be_123=[2001:db8:1234:5678:9abc:def0:1234:5678]:65535";
    let servers = servers.iter().map(String::as_str).chain([long]).flat_map(|server| ["--server", server]);
    let flags: Vec<&str> = UNCHECKED.iter().chain(PERSIST).copied().chain(servers).collect();
    let stage = Stage::open(0, &flags);
    look(&stage, "forty-servers");
    stage.browser.fill("#server-filter", "web-1");
    stage.browser.until("document.querySelectorAll('#servers tbody tr').length === 10");
    look(&stage, "forty-servers-filtered");
    stage.browser.fill("#server-filter", "nowhere");
    look(&stage, "forty-servers-none-found");
}

/// At every size, in every scheme.
fn look(stage: &Stage, name: &str) {
    for &size in SIZES {
        for scheme in SCHEMES {
            show(stage, size, scheme);
            let here = format!("{name}, {size:?}, {scheme}");
            stage.browser.picture(&picture(name, size, scheme));
            fits(stage, size);
            assert_eq!(stage.browser.run(FAINT), json!([]), "hard to read: {here}");
            if size.0 < 600 {
                let small = stage.browser.run(&SMALL.replace("THUMB", &THUMB.to_string()));
                assert_eq!(small, json!([]), "missed by a thumb: {here}");
            }
        }
    }
}

fn show(stage: &Stage, (width, height): (u32, u32), scheme: &str) {
    stage.browser.resize(width, height);
    stage.browser.prefer(scheme);
    stage
        .browser
        .until(&format!("innerWidth >= {width} && matchMedia('(prefers-color-scheme: {scheme})').matches"));
}

/// A phone's window grows with what does not fit; what it was given does not.
fn fits(stage: &Stage, (width, height): (u32, u32)) {
    let is = stage.browser.ask("document.scrollingElement.scrollWidth").as_u64().expect("a number");
    let wide = stage.browser.run(&WIDE.replace("WIDTH", &width.to_string()));
    assert!(is <= u64::from(width), "{is} pixels wide on {width}×{height}: {wide}");
}

fn picture(name: &str, (width, height): (u32, u32), scheme: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("status_page");
    std::fs::create_dir_all(&folder).expect("a folder");
    folder.join(format!("{name}-{width}x{height}-{scheme}.png"))
}

/// Elements that reach over the right edge.
const WIDE: &str = "
    return [...document.querySelectorAll('body *')].filter((element) => element.getBoundingClientRect().right > WIDTH)
        .map((element) => element.outerHTML.slice(0, 90)).slice(0, 5);";

/// What is to be hit, and would be missed.
const SMALL: &str = "
    return [...document.querySelectorAll('button, input, textarea, select, summary')]
        .filter((element) => element.checkVisibility() && element.getBoundingClientRect().height < THUMB)
        .map((element) => `${Math.round(element.getBoundingClientRect().height)} px: ${element.outerHTML.slice(0, 120)}`);";

/// Texts whose contrast with what is behind them is less than 4.5 to 1 (WCAG 2, level AA), those of `::before` and of
/// placeholders among them.
const FAINT: &str = r#"
    const parse = (text) => {
        const [red, green, blue, alpha = 1] = (/^rgba?\((.*)\)$/.exec(text) ?? [, ''])[1].split(/[\s,\/]+/).map(Number);
        if (Number.isNaN(red + green + blue)) throw new Error(`a colour of an unknown kind: ${text}`);
        return [red, green, blue, alpha];
    };
    const over = ([r, g, b, a], [R, G, B]) => [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a)];
    const luminance = (colour) => {
        const [red, green, blue] = colour.map((part) => part / 255)
            .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
    };
    const contrast = (one, other) => {
        const [light, dark] = [luminance(one), luminance(other)].sort((a, b) => b - a);
        return (light + 0.05) / (dark + 0.05);
    };
    const dark = matchMedia('(prefers-color-scheme: dark)').matches;
    const ancestors = (element) => element ? [...ancestors(element.parentElement), element] : [];
    const behind = (element) => ancestors(element).reduce((below, each) =>
        over(parse(getComputedStyle(each).backgroundColor), below), dark ? [18, 18, 18] : [255, 255, 255]);
    const opacity = (element) => ancestors(element).reduce((product, each) => product * getComputedStyle(each).opacity, 1);
    const isShown = (element) => element.checkVisibility() && !ancestors(element).some((each) =>
        getComputedStyle(each).clipPath !== 'none') && element.getClientRects().length;
    const faint = [];
    const check = (element, pseudo, text) => {
        const style = getComputedStyle(element, pseudo), [red, green, blue, alpha] = parse(style.color);
        const own = pseudo && pseudo !== '::placeholder' ? style.opacity : 1;
        const back = behind(element), front = over([red, green, blue, alpha * opacity(element) * own], back);
        const found = contrast(front, back);
        if (found < 4.5) faint.push(`${found.toFixed(2)}: ${element.tagName}.${element.className} ${pseudo ?? ''} ${text}`);
    };
    for (const element of document.querySelectorAll('body, body *')) {
        if (!isShown(element) || element.matches('script, style')) continue;
        const own = [...element.childNodes].filter((node) => node.nodeType === 3).map((node) => node.data.trim()).join('');
        if (own || element.value) check(element, null, own || element.value);
        if (element.placeholder && !element.value) check(element, '::placeholder', element.placeholder);
        for (const pseudo of ['::before', '::after']) {
            const {content} = getComputedStyle(element, pseudo);
            // Words and signs that say something; arrows beside a header are there for those who see them.
            if (/[\p{L}\p{N}]/u.test(content) && content !== 'none' && content !== 'normal') check(element, pseudo, content);
        }
    }
    return [...new Set(faint)];"#;
