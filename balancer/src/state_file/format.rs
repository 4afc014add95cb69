//! The state file: lines of text, the last of which has a checksum of all others.
//!
//! ```text
//! balancer-state 1
//! service web
//! saved 1767225600                       unix seconds
//! hash-key 000102030405060708090a0b0c0d0e0f
//! intent …                               what the operator wants, any number of such lines
//! server s1                              entries name servers by their places in this list, from 0
//! table session=JSESSIONID               what follows are its entries
//! 0102…1f20 0 10800 -                    key, server, seconds left, marks
//! 0102…1f21 1 10800 p 0                  … and the server that the key was moved away from
//! end 2 0123456789abcdef                 number of entries, XXH64 of everything before this line
//! ```
//!
//! Marks: `p` on probation, `a` ambiguous, `-` none.

use std::io::{self, BufRead, Write};

use xxhash_rust::xxh64::Xxh64;

use crate::table::hash::{hex, push_hex, unhex};
use crate::table::{HashKey, Key};

const MAGIC: &str = "balancer-state ";
const VERSION: &str = "1";

/// Room for the longest name and for what an intent says.
const LONGEST_LINE: usize = 4096;
/// More than there are ids for.
const MOST_SERVERS: usize = u16::MAX as usize;
/// One for each server, and some.
const MOST_INTENTS: usize = u16::MAX as usize;
/// More entries than the largest tables of the longest list hold.
const MOST_BYTES: u64 = 16 << 30;

/// What stands before the entries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// `--name`.
    pub service: String,
    /// When it was saved, unix seconds.
    pub saved: u64,
    /// What ids are hashed with.
    pub key: HashKey,
    /// What the operator wants; lines that mean nothing here.
    pub intent: Vec<String>,
    /// Names of servers.
    pub servers: Vec<String>,
}

/// An entry of a table. Servers are places in [`Header::servers`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its key.
    pub key: Key,
    /// The server that it names.
    pub server: u16,
    /// Seconds left when it was saved.
    pub life: u32,
    /// It was used once so far.
    pub probation: bool,
    /// Several users are behind the key.
    pub ambiguous: bool,
    /// The server that the key was moved away from.
    pub left: Option<u16>,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// It begins with something else.
    #[error("it is no state file of balancer")]
    Unknown,
    /// Of a later build, or of one long ago.
    #[error("it is of version {0:?}, this build reads {VERSION}")]
    Version(String),
    /// Of a service with another name.
    #[error("it is the one of the service {0:?}")]
    Foreign(String),
    /// The last line is missing.
    #[error("it is cut short after {0} lines")]
    Short(u64),
    /// A line cannot be right.
    #[error("its line {0} cannot be understood")]
    Line(u64),
    /// The sum is not that of the lines.
    #[error("it is damaged: its checksum is wrong")]
    Sum,
    /// The disk.
    #[error("it cannot be read: {}", crate::log::reason(.0))]
    Unreadable(io::Error),
}

/// Writes a file from its beginning to its end.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    sum: Sum,
    entries: u64,
    line: String,
}

impl<W: Write> Writer<W> {
    /// Begins with the header.
    ///
    /// # Errors
    /// What `out` says.
    pub fn begin(out: W, header: &Header) -> io::Result<Self> {
        let mut writer = Self { out, sum: Sum::default(), entries: 0, line: String::new() };
        writer.write(format_args!("{MAGIC}{VERSION}"))?;
        writer.write(format_args!("service {}", header.service))?;
        writer.write(format_args!("saved {}", header.saved))?;
        writer.write(format_args!("hash-key {}", hex(&header.key.bytes())))?;
        for intent in &header.intent {
            writer.write(format_args!("intent {intent}"))?;
        }
        for server in &header.servers {
            writer.write(format_args!("server {server}"))?;
        }
        Ok(writer)
    }

    /// The entries that follow are of that table.
    ///
    /// # Errors
    /// What `out` says.
    pub fn table(&mut self, label: &str) -> io::Result<()> {
        self.write(format_args!("table {label}"))
    }

    /// An entry.
    ///
    /// # Errors
    /// What `out` says.
    pub fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        self.entries += 1;
        self.line.clear();
        push_hex(&mut self.line, &entry.key);
        let mut number = itoa::Buffer::new();
        for value in [u32::from(entry.server), entry.life] {
            self.line.push(' ');
            self.line.push_str(number.format(value));
        }
        self.line.push_str(match (entry.probation, entry.ambiguous) {
            (false, false) => " -",
            (true, false) => " p",
            (false, true) => " a",
            (true, true) => " pa",
        });
        if let Some(left) = entry.left {
            self.line.push(' ');
            self.line.push_str(number.format(left));
        }
        self.put()
    }

    /// Ends it.
    ///
    /// # Errors
    /// What `out` says.
    pub fn finish(mut self) -> io::Result<W> {
        let (entries, sum) = (self.entries, self.sum.value());
        self.write(format_args!("end {entries} {sum:016x}"))?;
        Ok(self.out)
    }

    fn write(&mut self, line: std::fmt::Arguments<'_>) -> io::Result<()> {
        use std::fmt::Write as _;
        self.line.clear();
        // Writing to a string cannot fail.
        let _ = self.line.write_fmt(line);
        self.put()
    }

    fn put(&mut self) -> io::Result<()> {
        self.line.push('\n');
        self.sum.add(self.line.as_bytes());
        self.out.write_all(self.line.as_bytes())
    }
}

/// Reads a file, and calls `visit` with each entry and the name of its table. All that were visited count for nothing
/// unless the file is found to be whole in the end; who wants to be sure reads it twice.
///
/// # Errors
/// See [`Broken`].
pub fn read(input: impl BufRead, visit: &mut dyn FnMut(&str, Entry)) -> Result<Header, Broken> {
    let mut lines = Lines { input, line: Vec::new(), sum: Sum::default(), number: 0, bytes: 0 };
    let mut header = head(&mut lines)?;
    let (mut table, mut entries) = (None::<String>, 0_u64);
    loop {
        let sum = lines.sum.value();
        let number = lines.number + 1;
        let wrong = || Broken::Line(number);
        let line = lines.next()?;
        let (word, rest) = line.split_once(' ').ok_or_else(wrong)?;
        match (word, &table) {
            ("intent", None) if header.servers.is_empty() && header.intent.len() < MOST_INTENTS => {
                header.intent.push(rest.to_owned());
            }
            ("server", None) if is_name(rest) && header.servers.len() < MOST_SERVERS => {
                header.servers.push(rest.to_owned());
            }
            ("table", _) if is_name(rest) => table = Some(rest.to_owned()),
            ("end", _) => {
                let (count, expected) = rest.split_once(' ').ok_or_else(wrong)?;
                if expected != format!("{sum:016x}") {
                    return Err(Broken::Sum);
                }
                let is_right = count.parse() == Ok(entries) && lines.is_at_end()?;
                return if is_right { Ok(header) } else { Err(wrong()) };
            }
            (_, Some(table)) => {
                let entry = entry(line, header.servers.len()).ok_or_else(wrong)?;
                entries += 1;
                visit(table, entry);
            }
            _ => return Err(wrong()),
        }
    }
}

fn head(lines: &mut Lines<impl BufRead>) -> Result<Header, Broken> {
    // Whatever is wrong with the first line: it is not ours.
    let first = match lines.next() {
        Ok(line) => line.strip_prefix(MAGIC),
        Err(Broken::Unreadable(error)) => return Err(Broken::Unreadable(error)),
        Err(_) => None,
    };
    match first {
        Some(VERSION) => {}
        Some(other) => return Err(Broken::Version(other.chars().take(32).collect())),
        None => return Err(Broken::Unknown),
    }
    let service = lines.field("service ", |text| is_name(text).then(|| text.to_owned()))?;
    let saved = lines.field("saved ", number)?;
    let key = lines.field("hash-key ", |text| unhex(text.as_bytes()).map(HashKey::from_bytes))?;
    Ok(Header { service, saved, key, intent: Vec::new(), servers: Vec::new() })
}

/// One line that is an entry; there are so many servers.
fn entry(line: &str, servers: usize) -> Option<Entry> {
    let mut words = line.split(' ');
    let key = unhex(words.next()?.as_bytes())?;
    let server = |text| number::<u16>(text).filter(|server| usize::from(*server) < servers);
    let (of, life) = (server(words.next()?)?, number(words.next()?)?);
    let (probation, ambiguous) = match words.next()? {
        "-" => (false, false),
        "p" => (true, false),
        "a" => (false, true),
        "pa" => (true, true),
        _ => return None,
    };
    let left = match words.next() {
        Some(text) => Some(server(text)?),
        None => None,
    };
    words.next().is_none().then_some(Entry { key, server: of, life, probation, ambiguous, left })
}

/// Digits, and nothing that a parser may be generous about.
fn number<N: std::str::FromStr>(text: &str) -> Option<N> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// What a flag can have as a name.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

struct Lines<R> {
    input: R,
    line: Vec<u8>,
    sum: Sum,
    number: u64,
    bytes: u64,
}

impl<R: BufRead> Lines<R> {
    /// The next line without its end.
    fn next(&mut self) -> Result<&str, Broken> {
        self.line.clear();
        loop {
            let piece = match self.input.fill_buf() {
                Ok(piece) => piece,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Broken::Unreadable(error)),
            };
            if piece.is_empty() {
                return Err(Broken::Short(self.number));
            }
            let end = memchr::memchr(b'\n', piece);
            let taken = end.map_or(piece.len(), |end| end + 1);
            if self.line.len() + taken > LONGEST_LINE || self.bytes + taken as u64 > MOST_BYTES {
                return Err(Broken::Line(self.number + 1));
            }
            self.line.extend_from_slice(&piece[..taken]);
            self.bytes += taken as u64;
            self.input.consume(taken);
            if end.is_some() {
                break;
            }
        }
        self.number += 1;
        self.sum.add(&self.line);
        let line = &self.line[..self.line.len() - 1];
        std::str::from_utf8(line).map_err(|_| Broken::Line(self.number))
    }

    fn field<T>(&mut self, name: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, Broken> {
        let number = self.number + 1;
        self.next()?.strip_prefix(name).and_then(parse).ok_or(Broken::Line(number))
    }

    fn is_at_end(&mut self) -> Result<bool, Broken> {
        self.input.fill_buf().map(<[u8]>::is_empty).map_err(Broken::Unreadable)
    }
}

/// XXH64, which is made for finding damage, not for finding forgers: who can write the file can write anything into it.
struct Sum(Xxh64);

impl std::fmt::Debug for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sum({:x})", self.value())
    }
}

impl Default for Sum {
    fn default() -> Self {
        Self(Xxh64::new(0))
    }
}

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn value(&self) -> u64 {
        self.0.digest()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header() -> Header {
        Header {
            service: "web".into(),
            saved: 1_767_225_600,
            key: HashKey::from_bytes(std::array::from_fn(|n| n as u8)),
            intent: vec!["s1 drain".into(), String::new()],
            servers: vec!["s1".into(), "s2".into()],
        }
    }

    fn some_entry(n: u8) -> Entry {
        Entry {
            key: [n; 16],
            server: u16::from(n % 2),
            life: u32::from(n) * 100,
            probation: n.is_multiple_of(3),
            ambiguous: n.is_multiple_of(5),
            left: n.is_multiple_of(7).then_some(1),
        }
    }

    type Read = (Header, Vec<(String, Entry)>);

    fn written(tables: &[(&str, Vec<Entry>)]) -> Vec<u8> {
        let mut writer = Writer::begin(Vec::new(), &header()).expect("memory");
        for (label, entries) in tables {
            writer.table(label).expect("memory");
            entries.iter().for_each(|entry| writer.entry(entry).expect("memory"));
        }
        writer.finish().expect("memory")
    }

    fn example() -> Vec<u8> {
        written(&[("session=JS", (0..20).map(some_entry).collect()), ("source", vec![some_entry(30)])])
    }

    fn read_all(bytes: &[u8]) -> Result<Read, Broken> {
        let mut entries = Vec::new();
        let header = read(bytes, &mut |label, entry| entries.push((label.to_owned(), entry)))?;
        Ok((header, entries))
    }

    /// With the sum put right.
    fn resummed(text: &str) -> Vec<u8> {
        let end = text.rfind("end ").unwrap_or(text.len());
        let count = text[end..].split(' ').nth(1).unwrap_or("0").trim();
        let mut sum = Sum::default();
        sum.add(&text.as_bytes()[..end]);
        format!("{}end {count} {:016x}\n", &text[..end], sum.value()).into_bytes()
    }

    #[test]
    fn it_is_read_as_it_was_written() {
        let (read, entries) = read_all(&example()).expect("whole");
        assert_eq!(read, header());
        assert_eq!(entries.len(), 21);
        assert_eq!(entries[7], ("session=JS".into(), some_entry(7)));
        assert_eq!(entries[20], ("source".into(), some_entry(30)));
        assert!(read_all(&written(&[])).expect("whole").1.is_empty());
    }

    #[test]
    fn what_is_wrong_is_said() {
        let text = String::from_utf8(example()).expect("text");
        let told = |bytes: &[u8]| read_all(bytes).expect_err("broken").to_string();
        assert_eq!(told(b""), "it is no state file of balancer");
        assert_eq!(told(b"\x7fELF\0\0\0"), "it is no state file of balancer");
        assert_eq!(told(&vec![b'x'; 1 << 20]), "it is no state file of balancer");
        assert_eq!(told(b"balancer-state 2\n"), "it is of version \"2\", this build reads 1");
        let lines = text.lines().count() as u64;
        let without_end = &text[..text.rfind("end ").expect("an end")];
        assert_eq!(told(without_end.as_bytes()), format!("it is cut short after {} lines", lines - 1));
        assert_eq!(told(text.replace(" 700 ", " 701 ").as_bytes()), "it is damaged: its checksum is wrong");
        assert_eq!(
            told(format!("{text}more\n").as_bytes()),
            format!("its line {lines} cannot be understood")
        );
    }

    #[test]
    fn every_field_is_looked_at_though_the_sum_is_right() {
        let text = String::from_utf8(example()).expect("text");
        assert!(read_all(&resummed(&text)).is_ok());
        let key = "07".repeat(16);
        let line = format!("{key} 1 700 - 1\n");
        assert!(text.contains(&line));
        for wrong in [
            format!("{key} 2 700 - 1\n"),
            format!("{key} 1 700 - 2\n"),
            format!("{key} 1 4294967296 - 1\n"),
            format!("{key} 1 -1 - 1\n"),
            format!("{key} 1 +1 - 1\n"),
            format!("{key} 1  - 1\n"),
            format!("{key} 1 700 x 1\n"),
            format!("{key} 1 700 - 1 1\n"),
            format!("{key} 1 700\n"),
            format!("{}0 1 700 - 1\n", &key[1..]).replace("07", "0G"),
            format!("{key}0 1 700 - 1\n"),
            "\n".into(),
            format!("{}\n", "x".repeat(LONGEST_LINE)),
            "table \n".into(),
            "server s3\n".into(),
            "intent late\n".into(),
        ] {
            let broken = read_all(&resummed(&text.replace(&line, &wrong)));
            assert!(matches!(broken, Err(Broken::Line(_))), "{wrong}: {broken:?}");
        }
        for (right, wrong) in [
            ("saved 1767225600", "saved soon"),
            ("hash-key 00", "hash-key 0"),
            ("service web", "service "),
            ("server s1", "server s\u{1}1"),
            ("table source", "table so urce"),
            ("end 21", "end 20"),
        ] {
            let broken = read_all(&resummed(&text.replace(right, wrong)));
            assert!(matches!(broken, Err(Broken::Line(_))), "{wrong}: {broken:?}");
        }
    }

    proptest! {
        #[test]
        fn a_byte_that_was_changed_is_noticed(place in any::<prop::sample::Index>(), bit in 0_u8..8) {
            let mut bytes = example();
            let place = place.index(bytes.len());
            bytes[place] ^= 1 << bit;
            prop_assert!(read_all(&bytes).is_err());
        }

        #[test]
        fn an_end_that_is_missing_is_noticed(place in any::<prop::sample::Index>()) {
            let bytes = example();
            prop_assert!(read_all(&bytes[..place.index(bytes.len())]).is_err());
        }

        #[test]
        fn nothing_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert!(read_all(&bytes).is_err());
            let mut ours = b"balancer-state 1\nservice web\nsaved 1\nhash-key 000102030405060708090a0b0c0d0e0f\n".to_vec();
            ours.extend(bytes);
            prop_assert!(read_all(&ours).is_err());
        }

        /// Lines that could stand in such a file, in any order, with a sum that is right.
        #[test]
        fn entries_are_never_nonsense(
            picks in prop::collection::vec((0_usize..7, 0_u32..5, 0_u32..2000), 0..30),
        ) {
            let mut text = String::from("balancer-state 1\nservice web\nsaved 1\nhash-key 000102030405060708090a0b0c0d0e0f\n");
            let mut count = 0;
            for (kind, server, life) in picks {
                let key = hex(&[life as u8; 16]);
                text += &match kind {
                    0 => format!("server s{server}\n"),
                    1 => format!("table t{server}\n"),
                    2 => format!("intent {life}\n"),
                    3 => format!("{key} {server} {life} -\n"),
                    4 => format!("{key} {server} {life} pa {server}\n"),
                    5 => format!("{key} 0 {life} p\n"),
                    _ => format!("{key} {server} -\n"),
                };
                count += u32::from(matches!(kind, 3..=5));
            }
            text += &format!("end {count} 0\n");
            if let Ok((header, entries)) = read_all(&resummed(&text)) {
                for (_, entry) in entries {
                    prop_assert!(usize::from(entry.server) < header.servers.len());
                    prop_assert!(entry.left.is_none_or(|left| usize::from(left) < header.servers.len()));
                }
            }
        }
    }
}
