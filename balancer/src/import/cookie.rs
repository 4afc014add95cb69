//! `cookie` of a backend.

use super::pair::{Pair, Side};
use super::sections::Directive;
use super::sheet::{Sheet, Verdict};
use super::trial::trial;
use super::values::{Bare, ours, seconds, time};

/// What the servers have to know of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Cookie {
    /// It is among the flags.
    pub(super) is_there: bool,
    /// Every server has to have an id: `rewrite` and `prefix`.
    pub(super) needs_ids: bool,
    /// Whoever has none gets one.
    pub(super) is_inserted: bool,
    /// Servers without an id get one made of their address.
    pub(super) is_dynamic: bool,
}

/// The flag while it grows: each option is tried before it is added.
struct Growing<'a> {
    line: &'a Directive,
    text: String,
}

impl Growing<'_> {
    fn add(&mut self, sheet: &mut Sheet, option: &str, theirs: &str, nearest: &str) -> bool {
        let longer = format!("{},{option}", self.text);
        let is_one = !option.contains(',') && !self.line.word(1).contains(',');
        let outcome = if is_one {
            trial(&[("--persist", &longer)]).map(drop)
        } else {
            Err("a comma ends an option here".into())
        };
        match outcome {
            Ok(()) => {
                self.text = longer;
                true
            }
            Err(why) => {
                sheet.left_part(self.line, theirs, why, nearest);
                false
            }
        }
    }
}

/// The flag's value, and what it means for the servers. The order among `--persist` is for the caller.
pub(super) fn read<'a>(
    pair: &Pair<'a>,
    sheet: &mut Sheet,
    is_http: bool,
) -> (Cookie, Option<(String, &'a Directive)>) {
    let key = pair.last(Side::Back, &["dynamic-cookie-key"]);
    let Some(line) = pair.on(Side::Back, &["cookie"]) else {
        if let Some(key) = key {
            sheet.moot(key, "there is no cookie");
        }
        return (Cookie::default(), None);
    };
    if !is_http {
        sheet.moot(line, "HAProxy ignores it too: mode tcp reads no cookies");
        return (Cookie::default(), None);
    }
    let first = format!("cookie={}", line.word(1));
    let words: Vec<&str> = line.after(2).iter().map(String::as_str).collect();
    let modes = ["insert", "rewrite", "prefix"];
    let mode = words.iter().copied().find(|word| modes.contains(word)).unwrap_or("passive");
    let mut growing = Growing { line, text: first };
    if !growing.add(sheet, mode, mode, "") {
        return (Cookie::default(), None);
    }
    let mut cookie = Cookie {
        is_there: true,
        needs_ids: matches!(mode, "rewrite" | "prefix"),
        is_inserted: mode == "insert",
        is_dynamic: false,
    };
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let is_inserted = mode == "insert";
        match word {
            "insert" | "rewrite" | "prefix" if word == mode => {}
            "nocache" | "postonly" | "httponly" | "secure" if !is_inserted => {
                moot_unless_inserted(sheet, line, word);
            }
            "domain" | "attr" if !is_inserted => {
                moot_unless_inserted(sheet, line, &format!("{word} {}", words.next().unwrap_or_default()));
            }
            "indirect" if mode == "passive" => sheet.left_part(
                line,
                word,
                "without insert it only takes a cookie off that the server sets once more",
                "insert,indirect",
            ),
            "indirect" | "nocache" | "postonly" | "preserve" | "httponly" | "secure" => {
                // `samesite=none` may need the `secure` that stands behind it, so this one comes first.
                if !growing.text.split(',').any(|known| known == word) {
                    growing.add(sheet, word, word, "");
                }
            }
            "domain" => {
                let domain = words.next().unwrap_or_default();
                let (is_second, part) = (growing.text.contains(",domain="), format!("domain {domain}"));
                if growing.add(sheet, &format!("domain={domain}"), &part, "") && is_second {
                    let why = "each domain has a Set-Cookie of its own; HAProxy writes all into one, of which browsers \
                               take the last";
                    sheet.part(Verdict::Differs, line, &part, why, "the last domain alone");
                }
            }
            "maxidle" | "maxlife" => age(sheet, &mut growing, word, words.next().unwrap_or_default()),
            "attr" => {
                let attribute = words.next().unwrap_or_default();
                if line.words.iter().any(|word| word == "secure")
                    && !growing.text.split(',').any(|known| known == "secure")
                {
                    growing.add(sheet, "secure", "secure", "");
                }
                let option = own_option(attribute);
                growing.add(sheet, &option, &format!("attr {attribute}"), "");
            }
            "dynamic" => match key.filter(|key| !key.is_no && !key.word(1).is_empty()) {
                Some(key) => {
                    let option = format!("dynamic-key={}", key.word(1));
                    cookie.is_dynamic = growing.add(sheet, &option, word, "dynamic-key=K, with another key");
                }
                None => sheet.left_part(
                    line,
                    word,
                    "without dynamic-cookie-key HAProxy makes no cookies either",
                    "dynamic-key=K",
                ),
            },
            _ => sheet.left_part(line, word, "no cookie here has such an option", ""),
        }
    }
    if let Some(key) = key.filter(|key| !key.is_no) {
        let why = if cookie.is_dynamic {
            "is in the flag for the cookie"
        } else {
            "the cookie is not dynamic here"
        };
        sheet.moot(key, why);
    }
    if mode == "prefix" {
        let why = "what stands before the ~ is taken off when it names a server; HAProxy takes off any, so behind one \
                   that is gone the application sees its own cookie there, and not here";
        sheet.part(Verdict::Differs, line, mode, why, "");
    }
    (cookie, Some((growing.text, line)))
}

/// HAProxy writes these on cookies that it inserts; here they would be added to the application's.
fn moot_unless_inserted(sheet: &mut Sheet, line: &Directive, part: &str) {
    sheet.part(Verdict::Moot, line, part, "has an effect with insert alone, in HAProxy as well", "");
}

fn age(sheet: &mut Sheet, growing: &mut Growing<'_>, word: &str, text: &str) {
    let theirs = format!("{word} {text}");
    match time(text, Bare::Seconds) {
        Ok(age) => {
            growing.add(sheet, &format!("{word}={}", ours(seconds(age))), &theirs, "");
        }
        Err(why) => sheet.left_part(growing.line, &theirs, why, format!("{word}=T")),
    }
}

/// Attributes that are options here, since HAProxy's configurations have no other way to say them.
fn own_option(attribute: &str) -> String {
    let (name, value) = attribute.split_once('=').unwrap_or((attribute, ""));
    let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
    match name.as_str() {
        "samesite" => format!("samesite={value}"),
        "max-age" if value.bytes().all(|byte| byte.is_ascii_digit()) => format!("max-age={value}s"),
        "path" | "domain" => format!("{name}={value}"),
        _ => format!("attr={attribute}"),
    }
}
