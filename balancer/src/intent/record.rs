//! An intent as bytes of a fixed length, as kernel maps want them: a version, a length, JSON; and as a line of text, for
//! files. A later build may add fields without another version.

use super::Intent;

/// Room for the longest `--server` there can be.
pub const LENGTH: usize = 1024;

const VERSION: u8 = 1;
const HEADER: usize = 3;

/// What is on record is not understood.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("what is on record is not understood")]
pub struct Broken;

/// What is wanted does not fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("it does not fit into {LENGTH} bytes")]
pub struct TooLong;

/// The bytes of it.
///
/// # Errors
/// See [`TooLong`].
pub fn encode(intent: &Intent) -> Result<[u8; LENGTH], TooLong> {
    // The struct cannot fail: it has no maps and no serializers of its own.
    let text = serde_json::to_vec(intent).unwrap_or_default();
    let mut record = [0; LENGTH];
    record.get_mut(HEADER..HEADER + text.len()).ok_or(TooLong)?.copy_from_slice(&text);
    record[0] = VERSION;
    record[1..HEADER].copy_from_slice(&(text.len() as u16).to_be_bytes());
    Ok(record)
}

/// The intent in them.
///
/// # Errors
/// See [`Broken`].
pub fn decode(record: &[u8; LENGTH]) -> Result<Intent, Broken> {
    let length = usize::from(u16::from_be_bytes([record[1], record[2]]));
    let text = record.get(HEADER..HEADER + length).filter(|_| record[0] == VERSION).ok_or(Broken)?;
    serde_json::from_slice(text).map_err(|_| Broken)
}

/// What is wanted of `server`, in a line.
pub fn line(server: &str, intent: &Intent) -> String {
    // As above.
    format!("{server} {}", serde_json::to_string(intent).unwrap_or_default())
}

/// The server and what is wanted of it.
///
/// # Errors
/// See [`Broken`].
pub fn from_line(line: &str) -> Result<(String, Intent), Broken> {
    let (server, text) = line.split_once(' ').filter(|(server, _)| !server.is_empty()).ok_or(Broken)?;
    Ok((server.to_owned(), serde_json::from_str(text).map_err(|_| Broken)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intent::{Added, Weight};
    use crate::server::Operator;

    fn intent(text: &str) -> Intent {
        Intent {
            wish: Some(Operator::Drain),
            weight: Some(Weight { weight: 256, location: "x".repeat(253), initial: 256 }),
            deleted: None,
            added: Some(Added { text: text.to_owned(), at: u64::MAX, flag: None }),
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let longest =
            format!("{}={}:65535,id={},weight=256,backup", "n".repeat(63), "h".repeat(253), "i".repeat(128));
        for intent in [Intent::default(), intent(&longest)] {
            assert_eq!(decode(&encode(&intent).expect("room")), Ok(intent));
        }
        assert_eq!(encode(&intent(&"x".repeat(LENGTH))), Err(TooLong));
    }

    #[test]
    fn fields_of_a_later_build_are_passed_over_and_nonsense_is_refused() {
        let record = |version: u8, length: u16, text: &[u8]| {
            let mut record = [0; LENGTH];
            record[0] = version;
            record[1..3].copy_from_slice(&length.to_be_bytes());
            record[3..3 + text.len()].copy_from_slice(text);
            record
        };
        let later = br#"{"wish":"Maint","colour":"red"}"#;
        let wish = Some(Operator::Maint);
        assert_eq!(decode(&record(1, later.len() as u16, later)), Ok(Intent { wish, ..Intent::default() }));
        for broken in [
            record(0, 0, b""),
            record(2, 2, b"{}"),
            record(1, 0, b""),
            record(1, u16::MAX, b"{}"),
            record(1, 1, b"{}"),
            record(1, 4, b"\xff\xff\xff\xff"),
            record(1, 14, br#"{"wish":"Off"}"#),
            [0xff; LENGTH],
        ] {
            assert_eq!(decode(&broken), Err(Broken));
        }
    }

    #[test]
    fn a_line_says_who_and_what() {
        let intent = intent("s3=10.0.0.3:80,weight=2");
        assert_eq!(from_line(&line("s3", &intent)), Ok(("s3".to_owned(), intent)));
        for broken in ["", "s3", " {}", "s3 drain", "s3 {\"wish\":7}"] {
            assert_eq!(from_line(broken), Err(Broken), "{broken}");
        }
    }
}
