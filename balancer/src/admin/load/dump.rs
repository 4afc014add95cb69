//! What tables look like that somebody brings along: text → entries (pure).
//!
//! Lines may be of three kinds, told apart by themselves: HAProxy's `0x…: key=K use=0 exp=MS server_id=N server_key=NAME`
//! under a header `# table: …`, which the admin socket here writes as well; `KEY SERVER [EXPIRES]`, with or without the
//! columns of `balancer show table`; or the whole is the JSON of `balancer show table --json`.

use serde::Deserialize;

use crate::admin::tables::load::{Outcome, Reason};
use crate::cli::parse_duration;
use crate::table::hash::unhex;

/// HAProxy keeps so many bytes of a string unless `len` says otherwise.
pub(super) const USUAL_LEN: usize = 31;

/// One entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    /// Its line, or its place in JSON.
    pub(super) number: u64,
    /// As clients send it.
    pub(super) key: Vec<u8>,
    /// By name.
    pub(super) server: String,
    /// What is left of its life, in milliseconds; `None`: the line does not say.
    pub(super) life: Option<u64>,
}

/// All that was read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Dump {
    /// In their order.
    pub(super) entries: Vec<Entry>,
    /// The other lines.
    pub(super) outcome: Outcome,
    /// The type of HAProxy's table, as its header says: `ip`, `string`.
    pub(super) kind: Option<String>,
    /// So many keys have just as many bytes as HAProxy keeps: perhaps there were more.
    pub(super) perhaps_cut: u64,
}

/// Reads what a table looks like. HAProxy keeps `len` bytes of a string.
pub(super) fn read(text: &[u8], len: usize) -> Dump {
    let start = text.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(text.len());
    if text.get(start) == Some(&b'[') {
        return json(text);
    }
    let mut reader = Reader { dump: Dump::default(), has_columns: false, len };
    for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
        let read = match std::str::from_utf8(line) {
            Ok(line) => reader.line(number, line.trim()),
            Err(_) => Err((Reason::NotUnderstood, shown(line))),
        };
        if let Err((reason, what)) = read {
            reader.dump.outcome.skip(reason, number, what);
        }
    }
    reader.dump
}

struct Reader {
    dump: Dump,
    /// Those of `balancer show table` stand above.
    has_columns: bool,
    len: usize,
}

impl Reader {
    fn line(&mut self, number: u64, line: &str) -> Result<(), (Reason, String)> {
        // What a client of the socket may have left of its prompt.
        let line = line.trim_start_matches("> ");
        if line.is_empty() {
            return Ok(());
        }
        if let Some(header) = line.strip_prefix('#') {
            let kind = header.split_once("type: ").and_then(|(_, rest)| rest.split(',').next());
            self.dump.kind = kind.map(ToOwned::to_owned).or(self.dump.kind.take());
            return Ok(());
        }
        let entry = match line.split_once(": key=") {
            Some((pointer, rest)) if pointer.starts_with("0x") => self.of_haproxy(number, pointer, rest)?,
            _ => match self.plain(number, line)? {
                Some(entry) => entry,
                None => return Ok(()),
            },
        };
        if entry.life == Some(0) {
            return Err((Reason::Expired, shown(&entry.key)));
        }
        self.dump.entries.push(entry);
        Ok(())
    }

    fn of_haproxy(&mut self, number: u64, pointer: &str, rest: &str) -> Result<Entry, (Reason, String)> {
        let (key, rest) = rest.split_once(" use=").ok_or((Reason::NotUnderstood, shown(rest.as_bytes())))?;
        let field = |name: &str| rest.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        if pointer.strip_prefix("0x") == Some(key) && key.len() == 32 {
            return Err((Reason::Hashed, key.to_owned()));
        }
        let kind = self.dump.kind.as_deref().unwrap_or_default();
        let bytes = match kind {
            "binary" => binary(key).ok_or_else(|| (Reason::NotUnderstood, shown(key.as_bytes())))?,
            _ => unescape(key),
        };
        let server = field("server_key").filter(|name| !matches!(*name, "" | "-"));
        let server = server.ok_or_else(|| (Reason::NoServer, shown(&bytes)))?.to_owned();
        let life = field("exp").and_then(|time| time.parse().ok());
        if matches!(kind, "string" | "binary") && bytes.len() == self.len {
            self.dump.perhaps_cut += 1;
        }
        Ok(Entry { number, key: bytes, server, life })
    }

    /// `None`: it is the header of the columns.
    fn plain(&mut self, number: u64, line: &str) -> Result<Option<Entry>, (Reason, String)> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let wrong = || (Reason::NotUnderstood, shown(line.as_bytes()));
        if words.starts_with(&["key", "server", "expires_in"]) {
            self.has_columns = true;
            return Ok(None);
        }
        let (key, server, life) = match *words {
            [key, server] => (key, server, None),
            [key, server, life] => (key, server, Some(milliseconds(life).ok_or_else(wrong)?)),
            [key, server, life, ..] if self.has_columns => {
                (key, server, Some(milliseconds(life).ok_or_else(wrong)?))
            }
            _ => return Err(wrong()),
        };
        own(number, key, server, life, self.has_columns).map(Some)
    }
}

/// A row of `balancer show table`, where a server that is gone has `#` and a number for a name.
fn own(
    number: u64,
    key: &str,
    server: &str,
    life: Option<u64>,
    is_shown: bool,
) -> Result<Entry, (Reason, String)> {
    if is_shown && unhex(key.as_bytes()).is_some() {
        return Err((Reason::Hashed, key.to_owned()));
    }
    Ok(Entry { number, key: key.as_bytes().to_vec(), server: server.to_owned(), life })
}

/// As `expires_in`, in seconds, or with a unit.
fn milliseconds(text: &str) -> Option<u64> {
    let seconds = text.parse::<u64>().ok().map(|seconds| seconds.saturating_mul(1000));
    seconds.or_else(|| u64::try_from(parse_duration(text).ok()?.as_millis()).ok())
}

fn json(text: &[u8]) -> Dump {
    #[derive(Deserialize)]
    struct Row {
        key: String,
        server: String,
        expires_in: Option<u64>,
    }
    let mut dump = Dump::default();
    let rows: Vec<Row> = match serde_json::from_slice(text) {
        Ok(rows) => rows,
        Err(error) => {
            dump.outcome.skip(Reason::NotUnderstood, error.line() as u64, error.to_string());
            return dump;
        }
    };
    for (number, Row { key, server, expires_in }) in (1..).zip(rows) {
        let life = expires_in.map(|seconds| seconds.saturating_mul(1000));
        match own(number, &key, &server, life, true) {
            Ok(entry) if entry.life == Some(0) => dump.outcome.skip(Reason::Expired, number, key),
            Ok(entry) => dump.entries.push(entry),
            Err((reason, what)) => dump.outcome.skip(reason, number, what),
        }
    }
    dump
}

/// What HAProxy's `dump_text` has escaped: what is no printable ASCII, spaces, `=` and backslashes.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let (byte, after) = match (byte, after) {
            (b'\\', [b'x', high, low, after @ ..]) => match byte_of(*high, *low) {
                Some(byte) => (byte, after),
                None => (b'x', &rest[2..]),
            },
            (b'\\', [b't', after @ ..]) => (b'\t', after),
            (b'\\', [b'n', after @ ..]) => (b'\n', after),
            (b'\\', [b'r', after @ ..]) => (b'\r', after),
            (b'\\', [b'e', after @ ..]) => (0x1b, after),
            (b'\\', [other, after @ ..]) => (*other, after),
            (byte, after) => (byte, after),
        };
        bytes.push(byte);
        rest = after;
    }
    bytes
}

/// A key of `type binary`, which is filled with zeros up to its length.
fn binary(text: &str) -> Option<Vec<u8>> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    let mut bytes = pairs.iter().map(|[high, low]| byte_of(*high, *low)).collect::<Option<Vec<u8>>>()?;
    let filled = bytes.iter().rev().take_while(|byte| **byte == 0).count();
    bytes.truncate(bytes.len() - filled);
    Some(bytes)
}

/// Two hex digits, of either case.
fn byte_of(high: u8, low: u8) -> Option<u8> {
    let digit = |digit: u8| char::from(digit).to_digit(16);
    u8::try_from(digit(high)? << 4 | digit(low)?).ok()
}

/// The beginning of it, for people.
fn shown(bytes: &[u8]) -> String {
    const MOST: usize = 64;
    String::from_utf8_lossy(&bytes[..bytes.len().min(MOST)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u64, key: &[u8], server: &str, life: Option<u64>) -> Entry {
        Entry { number, key: key.to_vec(), server: server.into(), life }
    }

    fn reasons(dump: &Dump) -> Vec<(Reason, Vec<u64>)> {
        let skipped = dump.outcome.skipped.iter();
        skipped.map(|(reason, tally)| (*reason, tally.examples.iter().map(|(at, _)| *at).collect())).collect()
    }

    #[test]
    fn what_haproxy_shows_is_read_back() {
        let text = b"> # table: web, type: string, size:1048576, used:6\n\
            0x7f94a8042a00: key=\"sp\\ ace\" use=0 exp=1799963 server_id=1 server_key=w1\n\
            0x55d8f76cc800: key=UTF\\xFC\\t use=0 exp=1799966 shard=0 server_id=2 server_key=w-2.x\r\n\
            0x55d8f76cc801: key=a\\=\\\\b use=1 exp=5 server_id=2 gpc0=3 server_key=w-2.x\n\
            0x55d8f76ccc50: key=xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx use=0 exp=1 server_id=1 server_key=w1\n\
            0x55d8f76ccd68: key=ab use=0 exp=1799994 server_id=7 gpc0=0\n\
            0x55d8f76ccd68: key=ab use=0 exp=1799994 server_id=0 server_key=-\n\
            0x55d8f76ccd69: key=ac use=0 exp=0 server_id=1 server_key=w1\n\n> what\n";
        let dump = read(text, USUAL_LEN);
        assert_eq!(
            dump.entries,
            [
                entry(2, b"\"sp ace\"", "w1", Some(1_799_963)),
                entry(3, b"UTF\xfc\t", "w-2.x", Some(1_799_966)),
                entry(4, b"a=\\b", "w-2.x", Some(5)),
                entry(5, &[b'x'; 31], "w1", Some(1)),
            ]
        );
        assert_eq!((dump.kind.as_deref(), dump.perhaps_cut), (Some("string"), 1));
        let skipped =
            [(Reason::NotUnderstood, vec![10]), (Reason::NoServer, vec![6, 7]), (Reason::Expired, vec![8])];
        assert_eq!(reasons(&dump), skipped);
        assert_eq!(read(text, 5).perhaps_cut, 1, "UTF, one byte and a tab");
    }

    #[test]
    fn keys_are_what_the_type_of_the_table_makes_them() {
        for (kind, key, expected) in [
            ("binary", "61620A0000", &b"ab\n"[..]),
            ("integer", "42", b"42"),
            ("ipv6", "2001:db8::1", b"2001:db8::1"),
            ("string", "61620A0000", b"61620A0000"),
        ] {
            let text = format!("# table: t, type: {kind}, size:9\n0x1: key={key} use=0 exp=9 server_key=a\n");
            assert_eq!(
                read(text.as_bytes(), USUAL_LEN).entries,
                [entry(2, expected, "a", Some(9))],
                "{kind}"
            );
        }
        let odd = read(b"# table: t, type: binary,\n0x1: key=616 use=0 exp=9 server_key=a\n", USUAL_LEN);
        assert_eq!(reasons(&odd), [(Reason::NotUnderstood, vec![2])]);
    }

    #[test]
    fn what_is_shown_here_and_what_is_written_by_hand_is_read_too() {
        let hash = "0f".repeat(16);
        let table = [
            ("10.0.0.1 s1\n::1 s2 30m\n\n10.0.0.2 s1 7\n".to_owned(), vec![1, 2, 4], vec![]),
            (
                "key  server  expires_in  ambiguous  tentative  probation\n10.0.0.1  s1  7  no  no  no\n"
                    .to_owned(),
                vec![2],
                vec![],
            ),
            (format!("key server expires_in\n{hash} s1 7\n"), vec![], vec![(Reason::Hashed, vec![2])]),
            (format!("{hash} s1 7\n"), vec![1], vec![]),
            (
                format!("0x{hash}: key={hash} use=0 exp=7 server_key=s1\n"),
                vec![],
                vec![(Reason::Hashed, vec![1])],
            ),
            (
                format!("0x{hash}: key=10.0.0.1 use=0 exp=7 shard=0 server_id=1 server_key=s1\n"),
                vec![1],
                vec![],
            ),
            (
                format!(
                    r#"[{{"key":"::1","server":"s1","expires_in":5,"ambiguous":false}},{{"key":"{hash}","server":"s1","expires_in":5}}]"#
                ),
                vec![1],
                vec![(Reason::Hashed, vec![2])],
            ),
            ("[{\"key\":1}]".to_owned(), vec![], vec![(Reason::NotUnderstood, vec![1])]),
            (
                "10.0.0.1\na b c d\na b soon\nx y 0\n".to_owned(),
                vec![],
                vec![(Reason::NotUnderstood, vec![1, 2, 3]), (Reason::Expired, vec![4])],
            ),
        ];
        for (text, numbers, skipped) in table {
            let dump = read(text.as_bytes(), USUAL_LEN);
            assert_eq!(dump.entries.iter().map(|entry| entry.number).collect::<Vec<_>>(), numbers, "{text}");
            assert_eq!(reasons(&dump), skipped, "{text}");
        }
        assert_eq!(
            read(b"a s1 30m\nb s1 7\n", 31).entries.iter().filter_map(|entry| entry.life).sum::<u64>(),
            1_807_000
        );
    }

    #[test]
    fn no_input_is_too_much() {
        for text in [&b"\xff\xfe\0"[..], b"[", b"0x", b"0x: key=", b"0x1: key=\\ use=", b"#", b"> ", b"\\"] {
            assert!(read(text, 0).entries.is_empty(), "{text:?}");
        }
        assert_eq!(unescape("\\"), b"\\");
        assert_eq!(unescape("\\xZZ\\q"), b"xZZq");
    }
}
