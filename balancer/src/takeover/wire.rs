//! The conversation of a hot restart as bytes.
//!
//! After the first line of each side everything is a frame: four bytes of length, big-endian, one of kind, and that many
//! bytes. Notes are JSON, in which a later build may add fields; entries of tables are words. Descriptors travel beside
//! the bytes, in the order in which [`Inventory::descriptors`] lists them.
//!
//! Both ends are processes of this program on one host, of the same user or root. What is checked here is what another
//! build may do differently.

use std::net::SocketAddr;

use balancer_ebpf::affinity::Affinity;
use serde::{Deserialize, Serialize};

use crate::intent::Intents;
use crate::server::{Health, Operator};
use crate::stats::Sample;
use crate::table::{HashKey, Key};

/// What both must speak. To be raised with any change that a build with the old number would not understand, the layout
/// of a table's entry included.
pub const PROTOCOL: u32 = 2;

/// Largest frame: notes of thousands of servers.
const LARGEST_FRAME: usize = 16 * 1024 * 1024;
const HEADER: usize = 5;
const NOTE: u8 = 0;
const ENTRIES: u8 = 1;
const DESCRIPTORS: u8 = 2;
/// Bytes before the entries: which table, and whether they are on probation.
const WHERE: usize = 3;
/// Bytes of an entry: key and value.
const ENTRY: usize = 24;

/// Something the two say to each other.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Note {
    /// The predecessor: what there is. The descriptors follow.
    Inventory(Inventory),
    /// The successor: the entries of the learned tables, please.
    WantEntries,
    /// The predecessor: those were all entries.
    NoMoreEntries,
    /// The successor, if that was offered: where the log goes, please.
    WantStreams,
    /// The predecessor: its stdout and stderr follow as descriptors; whether the latter is the journal.
    Streams {
        /// `JOURNAL_STREAM` says so.
        is_journal: bool,
    },
    /// The successor: nothing can go wrong any more.
    Ready(Ready),
    /// The predecessor: from now on it is all yours.
    Yielded(Yielded),
    /// The successor: clients are served. Until this is heard the predecessor keeps its sockets.
    Serving,
}

/// What a predecessor has.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Inventory {
    /// Its process.
    pub pid: u32,
    /// Its build.
    pub version: String,
    /// What the descriptors are that follow.
    pub descriptors: Vec<Descriptor>,
    /// Its servers.
    pub servers: Vec<ServerState>,
    /// What the operator wants of servers, whatever the flags say.
    pub intents: Intents,
    /// Its learned tables, by whose places in this list their entries are sent.
    pub tables: Vec<String>,
    /// Where they are: `kernel` or `memory`; `None`: there are none.
    pub kind: Option<String>,
    /// What ids are hashed with.
    pub hash_key: HashKey,
    /// It understands [`Note::WantStreams`].
    #[serde(default)]
    pub offers_streams: bool,
}

/// What a descriptor is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Descriptor {
    /// The lock of the instance.
    Instance,
    /// The lock of the service in this network namespace.
    Role,
    /// The admin socket.
    Admin,
    /// A listening socket, and what it was asked for.
    Listener(SocketAddr),
}

/// A server as the predecessor sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServerState {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// The name of its host, if that is how its address was found.
    pub host: Option<String>,
    /// Its id in the predecessor's tables.
    pub id: u16,
    /// The operator's wish.
    pub operator: Operator,
    /// What the checks have found.
    pub health: Health,
}

/// The successor can serve.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ready {
    /// Its process.
    pub pid: u32,
    /// Addresses, ports resolved, at which it accepts from the predecessor's sockets.
    pub taken: Vec<SocketAddr>,
    /// It has an XDP program.
    pub is_fast: bool,
    /// It uses the entries that it has asked for.
    pub wants_entries: bool,
}

/// The predecessor lets go.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Yielded {
    /// Its servers at this moment: an operator may have spoken meanwhile.
    pub servers: Vec<ServerState>,
    /// What the charts of its status page show.
    #[serde(default)]
    pub history: Vec<Sample>,
}

/// One frame.
#[derive(Clone, PartialEq, Debug)]
pub enum Frame {
    /// A note.
    Note(Note),
    /// Some entries of a learned table.
    Entries(Entries),
    /// Some descriptors, which are not among the bytes.
    Descriptors,
}

/// Some entries of a learned table.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Entries {
    /// The table's place in [`Inventory::tables`].
    pub table: u16,
    /// They were used once so far.
    pub probation: bool,
    /// Keys and entries, these as they are: both processes have the same clock.
    pub list: Vec<(Key, Affinity)>,
}

/// What cannot be understood.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("what the other process says is not understood; it is of another build")]
pub struct Malformed;

impl Frame {
    /// The bytes of it.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        bytes[HEADER - 1] = match self {
            Self::Note(note) => {
                // None of the structs can fail: they have no maps and no serializers of their own.
                let _ = serde_json::to_writer(&mut bytes, note);
                NOTE
            }
            Self::Entries(entries) => {
                bytes.extend_from_slice(&entries.table.to_be_bytes());
                bytes.push(u8::from(entries.probation));
                for (key, entry) in &entries.list {
                    bytes.extend_from_slice(key);
                    bytes.extend_from_slice(&entry.0.to_be_bytes());
                }
                ENTRIES
            }
            Self::Descriptors => DESCRIPTORS,
        };
        let length = (bytes.len() - HEADER) as u32;
        bytes[..HEADER - 1].copy_from_slice(&length.to_be_bytes());
        bytes
    }

    /// Takes the first frame off the front of `bytes`; `None`: it is not complete.
    ///
    /// # Errors
    /// See [`Malformed`].
    pub fn take(bytes: &mut Vec<u8>) -> Result<Option<Self>, Malformed> {
        let Some((&[a, b, c, d, kind], rest)) = bytes.split_first_chunk::<HEADER>() else { return Ok(None) };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length > LARGEST_FRAME {
            return Err(Malformed);
        }
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let frame = match kind {
            NOTE => Self::Note(serde_json::from_slice(body).map_err(|_| Malformed)?),
            ENTRIES => Self::Entries(entries(body)?),
            DESCRIPTORS => Self::Descriptors,
            _ => return Err(Malformed),
        };
        bytes.drain(..HEADER + length);
        Ok(Some(frame))
    }
}

fn entries(body: &[u8]) -> Result<Entries, Malformed> {
    let (&[high, low, probation @ (0 | 1)], rest) = body.split_first_chunk::<WHERE>().ok_or(Malformed)?
    else {
        return Err(Malformed);
    };
    let (entries, []) = rest.as_chunks::<ENTRY>() else { return Err(Malformed) };
    let one = |entry: &[u8; ENTRY]| -> Option<(Key, Affinity)> {
        let (key, word) = entry.split_first_chunk::<16>()?;
        Some((*key, Affinity(u64::from_be_bytes(word.try_into().ok()?))))
    };
    let list = entries.iter().map(one).collect::<Option<_>>().ok_or(Malformed)?;
    Ok(Entries { table: u16::from_be_bytes([high, low]), probation: probation == 1, list })
}

/// The line that a successor begins with.
pub fn request(name: &str) -> String {
    format!("{} {PROTOCOL} {name}\n", REQUEST)
}

/// The first word of that line.
pub const REQUEST: &str = "takeover";

/// The line that a predecessor begins with, unless it refuses.
pub const CONSENT: &[u8] = b"takeover\n";

/// Whether a request, without its line's end, can be granted by the instance called `name`.
///
/// # Errors
/// Why not.
pub fn check_request(line: &str, name: &str) -> Result<(), String> {
    let mut words = line.split_whitespace().skip(1);
    match words.next().map(str::parse::<u32>) {
        Some(Ok(PROTOCOL)) => {}
        Some(Ok(other)) => {
            return Err(format!(
                "the running balancer {} hands over by protocol {PROTOCOL}, the new one takes over by {other}; \
                 stop the one and start the other",
                env!("CARGO_PKG_VERSION")
            ));
        }
        _ => return Err("takeover PROTOCOL NAME is what a new process says to take over".to_owned()),
    }
    match words.next() {
        Some(other) if other == name => Ok(()),
        other => Err(format!("this is \"{name}\", not \"{}\"", other.unwrap_or_default())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intent::Intent;

    fn frames() -> Vec<Frame> {
        let server = ServerState {
            name: "s1".into(),
            address: "10.0.0.1:80".parse().expect("address"),
            host: Some("app.example".into()),
            id: 7,
            operator: Operator::Drain,
            health: Health::Down,
        };
        let sample = Sample { at: 1, requests_per_second: 0.2, p99_millis: Some(1.5), ..Sample::default() };
        let listener = Descriptor::Listener("[::1]:0".parse().expect("address"));
        let inventory = Inventory {
            pid: 1,
            version: "0.1.0".into(),
            descriptors: vec![Descriptor::Instance, listener],
            servers: vec![server.clone()],
            intents: Intents::from([(
                "s2".into(),
                Intent { deleted: Some("10.0.0.2:80".into()), ..Intent::default() },
            )]),
            tables: vec!["source".into(), "session=JS".into()],
            kind: Some("memory".into()),
            hash_key: HashKey::from_bytes([9; 16]),
            offers_streams: true,
        };
        vec![
            Frame::Note(Note::Inventory(inventory)),
            Frame::Entries(Entries {
                table: 258,
                probation: true,
                list: (0..1000).map(|n| ([n as u8; 16], Affinity(u64::MAX - n))).collect(),
            }),
            Frame::Entries(Entries::default()),
            Frame::Descriptors,
            Frame::Note(Note::Streams { is_journal: true }),
            Frame::Note(Note::Yielded(Yielded { servers: vec![server], history: vec![sample] })),
        ]
    }

    #[test]
    fn frames_come_out_as_they_went_in_however_they_are_cut() {
        let sent: Vec<u8> = frames().iter().flat_map(Frame::encode).collect();
        for piece in [1, 7, 4096, usize::MAX] {
            let (mut bytes, mut received) = (Vec::new(), Vec::new());
            for piece in sent.chunks(piece.min(sent.len())) {
                bytes.extend_from_slice(piece);
                while let Some(frame) = Frame::take(&mut bytes).expect("ours") {
                    received.push(frame);
                }
            }
            assert!(bytes.is_empty());
            assert_eq!(received, frames());
        }
    }

    #[test]
    fn a_build_without_charts_is_understood() {
        let bytes = br#"{"Yielded":{"servers":[]}}"#;
        let mut frame = vec![0, 0, 0, bytes.len() as u8, NOTE];
        frame.extend_from_slice(bytes);
        let yielded = Yielded { servers: Vec::new(), history: Vec::new() };
        assert_eq!(Frame::take(&mut frame), Ok(Some(Frame::Note(Note::Yielded(yielded)))));
    }

    #[test]
    fn nonsense_is_refused() {
        for bytes in [
            &[255, 0, 0, 0, NOTE][..],
            &[0, 0, 0, 1, NOTE, b'{'],
            &[0, 0, 0, 1, ENTRIES, 0],
            &[0, 0, 0, 3, ENTRIES, 0, 0, 2],
            &[0, 0, 0, 4, ENTRIES, 0, 0, 1, 0],
            &[0, 0, 0, 0, 9],
        ] {
            assert_eq!(Frame::take(&mut bytes.to_vec()), Err(Malformed), "{bytes:?}");
        }
        assert_eq!(Frame::take(&mut vec![0, 0, 0, 9, NOTE, b'{']), Ok(None), "the rest may come");
    }

    #[test]
    fn a_request_names_protocol_and_instance() {
        assert_eq!(check_request(request("web").trim_end(), "web"), Ok(()));
        let refused = |line: &str| check_request(line, "web").expect_err(line);
        assert_eq!(refused("takeover 2 shop"), "this is \"web\", not \"shop\"");
        assert!(refused("takeover 3 web").contains("by protocol 2, the new one takes over by 3"));
        assert!(refused("takeover").contains("PROTOCOL NAME"));
    }
}
