//! What stands in rows for what nobody knows beforehand.
//!
//! | in a row | in a message |
//! |---|---|
//! | `{now}`, `{-10m}`, `{+25h}` | a date of a cookie, with the bar before it |
//! | `{bar}` | a bar, which joins lines in rows |
//! | `{id1}`, `{id2}` | the id of a server that is made of its address |
//! | `<s1{now}>` | the value with its code |
//! | `{keys}` | the file with the keys of such codes |

use std::net::SocketAddr;
use std::path::PathBuf;

use balancer::clock;
use balancer::persist::sign::Signer;
use balancer::persist::{dates, dynamic};

/// How far apart two moments of one row may be, in seconds.
const MOMENT: i64 = 60;

/// What the words of one row mean.
pub(super) struct Words {
    now: u64,
    ids: [String; 2],
    keys: PathBuf,
    signer: Signer,
    _folder: tempfile::TempDir,
}

impl Words {
    pub(super) fn new(addresses: &[SocketAddr; 2]) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let keys = folder.path().join("keys");
        std::fs::write(&keys, "secret\n").expect("written");
        let signer = Signer::read(keys.to_str().expect("UTF-8"), "balancer", "SRV").expect("keys");
        let ids = addresses.map(|address| dynamic::id("K", address));
        Self { now: clock::unix_seconds(), ids, keys, signer, _folder: folder }
    }

    /// What is sent for the words of a row.
    pub(super) fn fill(&self, text: &str) -> String {
        let (mut filled, mut rest) = (String::new(), text);
        while let Some((before, (word, after))) =
            rest.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?)))
        {
            filled.push_str(before);
            match word {
                "bar" => filled.push('|'),
                "id1" => filled.push_str(&self.ids[0]),
                "id2" => filled.push_str(&self.ids[1]),
                "keys" => filled.push_str(&self.keys.display().to_string()),
                date => filled.push_str(&date_of(self.now.saturating_add_signed(offset(date)))),
            }
            rest = after;
        }
        filled.push_str(rest);
        match filled.split_once('<').and_then(|(before, rest)| Some((before, rest.split_once('>')?))) {
            Some((before, (value, after))) => {
                let mut signed = value.as_bytes().to_vec();
                self.signer.sign(&mut signed, 0);
                format!("{before}{}{after}", String::from_utf8_lossy(&signed))
            }
            None => filled,
        }
    }

    /// The words for what has come.
    pub(super) fn read(&self, text: &str) -> String {
        let mut text = text.replace(&self.ids[0], "{id1}").replace(&self.ids[1], "{id2}");
        if let Some((name, rest)) = text.split_once('=') {
            let (value, attributes) = rest.split_at(rest.find(';').unwrap_or(rest.len()));
            if let Some(value) = self.signer.verify(value.as_bytes()) {
                text = format!("{name}=<{}>{attributes}", String::from_utf8_lossy(value));
            }
        }
        let mut parts = text.split('|');
        let mut read = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let date = part.get(..5).and_then(|date| dates::split(format!("x|{date}").as_bytes())?.1.last);
            match date {
                Some(date) => {
                    read.push_str(&self.word(date));
                    read.push_str(&part[5..]);
                }
                None => read.push_str(&format!("|{part}")),
            }
        }
        read
    }

    fn word(&self, date: u64) -> String {
        let offset = date as i64 - self.now as i64;
        let minutes = (offset + offset.signum() * 30) / 60;
        if offset.abs() <= MOMENT / 2 {
            "{now}".to_owned()
        } else if minutes % 60 == 0 {
            format!("{{{:+}h}}", minutes / 60)
        } else {
            format!("{{{minutes:+}m}}")
        }
    }
}

fn date_of(unix: u64) -> String {
    let mut date = Vec::new();
    dates::write(&mut date, unix);
    String::from_utf8(date).expect("ASCII")
}

/// Seconds.
fn offset(word: &str) -> i64 {
    let number = |text: &str| text.parse::<i64>().expect("a number");
    match (word, word.strip_suffix('h'), word.strip_suffix('m')) {
        ("now", ..) => 0,
        (_, Some(hours), _) => number(hours) * 3600,
        (_, _, Some(minutes)) => number(minutes) * 60,
        _ => panic!("{word:?} is no word"),
    }
}
