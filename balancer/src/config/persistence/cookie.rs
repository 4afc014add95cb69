//! `--persist cookie=NAME[,OPTION…]`.

use super::{cookie_name, seconds};
use crate::cli::Stop;
use crate::config::options::Value;
use crate::persist::dates::LONGEST_LIFE;
use crate::persist::method::{CookieAttributes, CookieMethod, CookieMode};
use crate::persist::sign::Signer;

pub(super) const FORM: &str = "cookie=NAME[,insert|rewrite|prefix|passive][,indirect][,nocache][,postonly][,preserve]\
    [,httponly][,secure][,samesite=strict|lax|none][,domain=D][,path=P][,max-age=T][,maxidle=T][,maxlife=T]\
    [,dynamic-key=K][,sign-key=FILE][,attr=TEXT]";

const MODES: [(&str, CookieMode); 4] = [
    ("insert", CookieMode::Insert),
    ("rewrite", CookieMode::Rewrite),
    ("prefix", CookieMode::Prefix),
    ("passive", CookieMode::Passive),
];

const SAME_SITE: [(&str, &str); 3] = [("strict", "Strict"), ("lax", "Lax"), ("none", "None")];

/// Each of them is a cookie of its own in every answer that sets one.
const MOST_DOMAINS: usize = 8;

/// What has been read so far.
#[derive(Default)]
struct Options {
    mode: Option<&'static str>,
    indirect: Option<()>,
    nocache: Option<()>,
    postonly: Option<()>,
    preserve: Option<()>,
    http_only: Option<()>,
    secure: Option<()>,
    same_site: Option<&'static str>,
    path: Option<String>,
    max_age: Option<u32>,
    max_idle: Option<u32>,
    max_life: Option<u32>,
    dynamic_key: Option<String>,
    signer: Option<Signer>,
    domains: Vec<String>,
    others: Vec<String>,
}

pub(super) fn cookie<'a>(
    value: Value<'a>,
    name: &str,
    options: impl Iterator<Item = &'a str> + Clone,
    service: &str,
) -> Result<CookieMethod, Stop> {
    let name = cookie_name(value, name)?;
    let mut read = Options::default();
    for option in options {
        match option.split_once('=') {
            Some((key, text)) => read.valued(value, key, text, (service, &name))?,
            None => read.bare(value, option)?,
        }
    }
    read.check(value, &name)?;
    let mode =
        MODES.iter().find(|(word, _)| Some(*word) == read.mode).map_or(CookieMode::Insert, |mode| mode.1);
    Ok(CookieMethod {
        name,
        mode,
        indirect: read.indirect.is_some(),
        nocache: read.nocache.is_some(),
        postonly: read.postonly.is_some(),
        preserve: read.preserve.is_some(),
        attributes: CookieAttributes {
            path: read.path,
            domains: read.domains,
            max_age: read.max_age,
            http_only: read.http_only.is_some(),
            secure: read.secure.is_some(),
            same_site: read.same_site,
            others: read.others,
        },
        max_idle: read.max_idle,
        max_life: read.max_life,
        signer: read.signer,
        dynamic_key: read.dynamic_key,
    })
}

impl Options {
    fn bare(&mut self, value: Value<'_>, option: &str) -> Result<(), Stop> {
        if let Some((word, _)) = MODES.iter().find(|(word, _)| *word == option) {
            if let Some(first) = self.mode.replace(word) {
                return Err(value.wrong(format_args!("has two modes, {first} and {word}; give one of them")));
            }
            return Ok(());
        }
        let slot = match option {
            "indirect" => &mut self.indirect,
            "nocache" => &mut self.nocache,
            "postonly" => &mut self.postonly,
            "preserve" => &mut self.preserve,
            "httponly" => &mut self.http_only,
            "secure" => &mut self.secure,
            "samesite" | "domain" | "path" | "max-age" | "maxidle" | "maxlife" | "dynamic-key"
            | "sign-key" | "attr" => {
                return Err(value.wrong(format_args!("has {option} without a value; write {FORM}")));
            }
            _ => return Err(value.unsupported(option, FORM, &[])),
        };
        value.set_once(slot, option, ())
    }

    fn valued(&mut self, value: Value<'_>, key: &str, text: &str, of: (&str, &str)) -> Result<(), Stop> {
        match key {
            "samesite" => {
                let word = SAME_SITE.iter().find(|(word, _)| word.eq_ignore_ascii_case(text));
                let word = word
                    .ok_or_else(|| value.wrong("has a samesite that is none; write strict, lax or none"))?;
                value.set_once(&mut self.same_site, key, word.1)
            }
            "domain" => {
                let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
                if text.is_empty() || text.len() > 253 || !text.chars().all(fits) {
                    return Err(
                        value.wrong("has a domain that is none; write for example domain=.example.org")
                    );
                }
                if self.domains.iter().any(|known| known == text) || self.domains.len() == MOST_DOMAINS {
                    return Err(value.wrong(format_args!(
                        "has a domain too many; give each once, {MOST_DOMAINS} at most"
                    )));
                }
                self.domains.push(text.to_owned());
                Ok(())
            }
            "path" if text.starts_with('/') && is_attribute(text) => {
                value.set_once(&mut self.path, key, text.to_owned())
            }
            "path" => Err(value.wrong("has a path that is none; write for example path=/app")),
            "max-age" => value.set_once(&mut self.max_age, key, seconds(value, key, text)?),
            "maxidle" => value.set_once(&mut self.max_idle, key, age(value, key, text)?),
            "maxlife" => value.set_once(&mut self.max_life, key, age(value, key, text)?),
            "dynamic-key" if text.is_empty() => {
                Err(value.wrong("has an empty dynamic-key; write dynamic-key=K"))
            }
            "dynamic-key" => value.set_once(&mut self.dynamic_key, key, text.to_owned()),
            "sign-key" => {
                let signer = Signer::read(text, of.0, of.1).map_err(|why| {
                    value.wrong(format_args!("has a sign-key that {why}; name a file with one key a line"))
                })?;
                value.set_once(&mut self.signer, key, signer)
            }
            "attr" if is_attribute(text) && !text.is_empty() => self.other(value, text),
            "attr" => Err(value.wrong(
                "has an attr that a cookie cannot carry; write visible ASCII without semicolon and comma",
            )),
            _ => Err(value.unsupported(key, FORM, &[])),
        }
    }

    /// `attr=`: an attribute that has no option of its own, or one of those that HAProxy's configurations write like that.
    fn other(&mut self, value: Value<'_>, text: &str) -> Result<(), Stop> {
        let name_of = |text: &str| text.split('=').next().unwrap_or_default().trim().to_ascii_lowercase();
        let name = name_of(text);
        if let Some(option) = ["path", "domain", "max-age"].into_iter().find(|option| *option == name) {
            return Err(value.wrong(format_args!("has attr={text}; write {option}=VALUE instead")));
        }
        if self.others.iter().any(|known| name_of(known) == name) {
            return Err(value.wrong(format_args!("has the attribute {name} twice; give it once")));
        }
        self.others.push(text.to_owned());
        Ok(())
    }

    fn has_attribute(&self, wanted: &str) -> bool {
        let is_it = |other: &String| {
            other.split('=').next().is_some_and(|name| name.trim().eq_ignore_ascii_case(wanted))
        };
        self.others.iter().any(is_it)
    }

    /// What makes no sense together.
    fn check(&self, value: Value<'_>, name: &str) -> Result<(), Stop> {
        let mode = self.mode.unwrap_or("insert");
        let own = [
            ("httponly", self.http_only.is_some()),
            ("secure", self.secure.is_some()),
            ("samesite", self.same_site.is_some()),
        ];
        if let Some((twice, _)) =
            own.into_iter().find(|(name, is_given)| *is_given && self.has_attribute(name))
        {
            return Err(value.wrong(format_args!("has {twice} as an option and as attr=; give it once")));
        }
        if mode == "insert" {
            let is_secure = self.secure.is_some() || self.has_attribute("secure");
            // Browsers refuse such cookies, so nobody would be kept anywhere (RFC 6265bis §5.7).
            if self.same_site == Some("None") && !is_secure {
                return Err(
                    value.wrong("has samesite=none without secure, which browsers refuse; add secure")
                );
            }
            let is_host = name.starts_with("__Host-");
            if (is_host || name.starts_with("__Secure-")) && !is_secure {
                return Err(value.wrong("has a name that browsers accept with secure only; add secure"));
            }
            if is_host && (!self.domains.is_empty() || self.path.as_deref().is_some_and(|path| path != "/")) {
                return Err(value.wrong(
                    "has a name that browsers refuse with a domain and with any path but /; leave them out",
                ));
            }
            return Ok(());
        }
        let only_inserted = [
            ("indirect", self.indirect.is_some()),
            ("preserve", self.preserve.is_some()),
            ("maxidle", self.max_idle.is_some()),
            ("maxlife", self.max_life.is_some()),
            ("sign-key", self.signer.is_some()),
        ];
        match only_inserted.iter().find(|(_, is_given)| *is_given) {
            Some((option, _)) => Err(value.wrong(format_args!(
                "has {option} with {mode}, which does not go together; {option} needs insert"
            ))),
            None => Ok(()),
        }
    }
}

/// `maxidle=` and `maxlife=`: dates in cookies have a range.
fn age(value: Value<'_>, what: &str, text: &str) -> Result<u32, Stop> {
    let seconds = seconds(value, what, text)?;
    if !(4..=LONGEST_LIFE).contains(&seconds) {
        return Err(value.wrong(format_args!("has a {what} that is out of range; write 4s to 365d")));
    }
    Ok(seconds)
}

/// RFC 6265 §4.1.1, `av-octet`; a comma would end the option.
fn is_attribute(text: &str) -> bool {
    text.bytes().all(|byte| (byte.is_ascii_graphic() || byte == b' ') && byte != b';')
}
