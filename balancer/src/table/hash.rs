//! Keys of any length → keys of tables: SipHash-2-4 with 128 bits, under a key of the host's own.
//!
//! So ids are not stored, long ones do not collide, and nobody outside can make two that do.

use std::fs::File;
use std::io::{self, Read};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use siphasher::sip128::SipHasher24;

use super::Key;

/// The key of the hashes. Entries of a table are found by the key that they were written with and no other.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct HashKey([u8; 16]);

impl HashKey {
    /// A new one.
    ///
    /// # Errors
    /// When the host gives no random bytes.
    pub fn random() -> io::Result<Self> {
        let mut bytes = [0; 16];
        File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// One that was kept.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// To be kept where only we can read.
    pub const fn bytes(&self) -> [u8; 16] {
        self.0
    }

    /// The hash of `bytes`.
    pub fn hash(&self, bytes: &[u8]) -> Key {
        SipHasher24::new_with_key(&self.0).hash(bytes).as_bytes()
    }
}

impl std::fmt::Debug for HashKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HashKey(secret)")
    }
}

impl Serialize for HashKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex(&self.0))
    }
}

impl<'de> Deserialize<'de> for HashKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&str>::deserialize(deserializer)?;
        unhex(text.as_bytes()).map(Self).ok_or_else(|| de::Error::custom("32 hex digits are a key"))
    }
}

/// Sixteen bytes as lower-case hex digits.
pub fn hex(bytes: &[u8; 16]) -> String {
    let mut text = String::with_capacity(32);
    push_hex(&mut text, bytes);
    text
}

/// The same at the end of `text`.
pub fn push_hex(text: &mut String, bytes: &[u8; 16]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

/// What [`hex`] has written; `None` for anything else.
pub fn unhex(text: &[u8]) -> Option<[u8; 16]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, []) = text.as_chunks::<2>() else { return None };
    let pairs: &[[u8; 2]; 16] = pairs.try_into().ok()?;
    let mut bytes = [0; 16];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_papers_authors() {
        // vectors.h of github.com/veorq/SipHash, SipHash-2-4-128: key 00 01 … 0f, message 00 01 … of growing length.
        let key = HashKey::from_bytes(std::array::from_fn(|n| n as u8));
        let message: [u8; 64] = std::array::from_fn(|n| n as u8);
        assert_eq!(hex(&key.hash(&[])), "a3817f04ba25a8e66df67214c7550293");
        assert_eq!(hex(&key.hash(&message[..1])), "da87c1d86b99af44347659119b22fc45");
    }

    #[test]
    fn ids_that_share_their_first_64_characters_are_two() {
        let key = HashKey::random().expect("random bytes");
        let (one, other) = (format!("{}a", "x".repeat(64)), format!("{}b", "x".repeat(64)));
        assert_ne!(key.hash(one.as_bytes()), key.hash(other.as_bytes()));
        assert_ne!(key, HashKey::random().expect("random bytes"));
    }

    #[test]
    fn hex_digits_come_back_and_nothing_else_does() {
        let bytes = std::array::from_fn(|n| (n * 17) as u8);
        assert_eq!(unhex(hex(&bytes).as_bytes()), Some(bytes));
        for text in ["", "00", "0g", &"0".repeat(31), &"0".repeat(33), &"A".repeat(32), &"é".repeat(16)] {
            assert_eq!(unhex(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_key_is_not_shown_in_messages() {
        let key = HashKey::from_bytes([0xab; 16]);
        assert!(!format!("{key:?}").contains("ab, ") && !format!("{key:?}").contains("171"));
        let text = serde_json::to_string(&key).expect("text");
        assert_eq!(serde_json::from_str::<HashKey>(&text).expect("a key"), key);
    }
}
