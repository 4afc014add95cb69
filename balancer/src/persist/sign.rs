//! `sign-key=`: the value of a cookie is followed by a code that only who knows the key can make, so a client can
//! neither choose its server nor forge dates.
//!
//! `VALUE.MAC`, MAC = base64url (RFC 4648 §5) of the first 12 bytes of HMAC-SHA-256 (RFC 2104) over the service's name,
//! NUL, the cookie's name, NUL, VALUE.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::log;

/// Bytes of a code: 96 bits, as RFC 4868 has for such a use.
const CODE: usize = 12;
/// Its characters.
const CHARACTERS: usize = 16;

/// Keys that are still good beside the first: enough for any rotation.
const MOST_KEYS: usize = 16;
const LARGEST_FILE: u64 = 64 * 1024;

/// The keys, ready for use.
#[derive(Clone)]
pub struct Signer {
    /// Keyed, and fed with everything that comes before the value. The first one signs, all verify.
    keys: Vec<Hmac<Sha256>>,
    /// To compare settings by, never shown.
    texts: Vec<Vec<u8>>,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signer({} keys)", self.keys.len())
    }
}

impl PartialEq for Signer {
    fn eq(&self, other: &Self) -> bool {
        self.texts == other.texts
    }
}

impl Eq for Signer {}

impl Signer {
    /// The keys in the file at `path`, one a line, for a cookie of a service.
    ///
    /// # Errors
    /// What is wrong with the file: the rest of a sentence.
    pub fn read(path: &str, service: &str, cookie: &str) -> Result<Self, String> {
        use std::io::Read as _;
        let mut bytes = Vec::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(LARGEST_FILE + 1).read_to_end(&mut bytes))
            .map_err(|error| format!("cannot be read: {}", log::reason(&error)))?;
        if bytes.len() as u64 > LARGEST_FILE {
            return Err("is larger than 64k".into());
        }
        let lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        let texts: Vec<Vec<u8>> = lines.filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect();
        match texts.len() {
            0 => Err("has no key".into()),
            1..=MOST_KEYS => Ok(Self::new(texts, service, cookie)),
            _ => Err(format!("has more than {MOST_KEYS} keys")),
        }
    }

    fn new(texts: Vec<Vec<u8>>, service: &str, cookie: &str) -> Self {
        let keyed = |key: &Vec<u8>| {
            // A key may have any length.
            let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
            [service.as_bytes(), b"\0", cookie.as_bytes(), b"\0"]
                .into_iter()
                .for_each(|part| mac.update(part));
            Some(mac)
        };
        Self { keys: texts.iter().filter_map(keyed).collect(), texts }
    }

    /// Whether the value has the form of one with a code, which costs nothing to see.
    pub fn is_signed(value: &[u8]) -> bool {
        value.len() > CHARACTERS && value[value.len() - CHARACTERS - 1] == b'.'
    }

    /// The value that was signed; `None`: the code is missing or wrong. Takes the same time wherever it is wrong.
    pub fn verify<'a>(&self, signed: &'a [u8]) -> Option<&'a [u8]> {
        let (rest, code) = signed.split_at_checked(signed.len().checked_sub(CHARACTERS)?)?;
        let value = rest.strip_suffix(b".")?;
        let mut decoded = [0; CODE];
        let length = URL_SAFE_NO_PAD.decode_slice(code, &mut decoded).ok()?;
        let is_ours =
            |key: &Hmac<Sha256>| key.clone().chain_update(value).verify_truncated_left(&decoded).is_ok();
        (length == CODE && self.keys.iter().any(is_ours)).then_some(value)
    }

    /// Appends the code to what `out` has from `start` on.
    pub fn sign(&self, out: &mut Vec<u8>, start: usize) {
        let Some(key) = self.keys.first() else { return };
        let code = key.clone().chain_update(&out[start..]).finalize().into_bytes();
        let mut text = [0; CHARACTERS];
        out.push(b'.');
        // It fits: twelve bytes are sixteen characters.
        if URL_SAFE_NO_PAD.encode_slice(&code[..CODE], &mut text).is_ok() {
            out.extend_from_slice(&text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer(keys: &[&str]) -> Signer {
        Signer::new(keys.iter().map(|key| key.as_bytes().to_vec()).collect(), "web", "SRV")
    }

    fn signed(signer: &Signer, value: &str) -> Vec<u8> {
        let mut out = value.as_bytes().to_vec();
        signer.sign(&mut out, 0);
        out
    }

    #[test]
    fn what_is_signed_verifies_and_nothing_else() {
        let ours = signer(&["new", "old"]);
        let value = signed(&ours, "s1|AAAAA");
        assert_eq!(ours.verify(&value), Some(&b"s1|AAAAA"[..]));
        assert_eq!(
            ours.verify(&signed(&signer(&["old"]), "s1")),
            Some(&b"s1"[..]),
            "a key that was replaced"
        );
        assert_eq!(ours.verify(&signed(&signer(&["other"]), "s1")), None);
        let of = |service, cookie| Signer::new(vec![b"new".to_vec()], service, cookie);
        assert_eq!(ours.verify(&signed(&of("shop", "SRV"), "s1")), None, "of another service");
        assert_eq!(ours.verify(&signed(&of("web", "SR"), "s1")), None, "of another cookie");
        for n in 0..value.len() {
            let mut forged = value.clone();
            forged[n] ^= 1;
            assert_eq!(ours.verify(&forged), None, "byte {n}");
        }
        for short in ["", ".", "s1", "s1.", "s1.AAAA", ".AAAAAAAAAAAAAAAA"] {
            assert_eq!(ours.verify(short.as_bytes()), None, "{short}");
        }
    }

    #[test]
    fn the_code_is_what_the_format_says() {
        // printf 'web\0SRV\0s1' | openssl dgst -sha256 -hmac key -binary | head -c 12 | basenc --base64url
        assert_eq!(signed(&signer(&["key"]), "s1"), b"s1.4Ea0u1GXqtEn8u86");
    }

    #[test]
    fn a_file_has_one_key_a_line() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("keys");
        let read = |text: &str| {
            std::fs::write(&path, text).expect("written");
            Signer::read(path.to_str().expect("UTF-8"), "web", "SRV")
        };
        assert_eq!(read("a\n\n  b \n").expect("keys").keys.len(), 2);
        assert_eq!(read("\n \n"), Err("has no key".into()));
        assert!(read(&"k\n".repeat(17)).expect_err("too many").contains("more than 16"));
        assert!(Signer::read("/nonexistent", "web", "SRV").expect_err("none").contains("cannot be read"));
    }
}
