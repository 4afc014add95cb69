//! SipHash-1-3 (Aumasson & Bernstein, "SipHash: a fast short-input PRF", 2012) over a few words.
//!
//! Sampling and port choice must not be steerable by a client, so they are keyed; they must be the same for a
//! repeated SYN, so nothing in them is random.

/// The hash of `WORDS` little-endian words.
#[inline(always)]
pub const fn siphash13<const WORDS: usize>(key: [u64; 2], words: [u64; WORDS]) -> u64 {
    let mut v = [
        key[0] ^ 0x736f_6d65_7073_6575,
        key[1] ^ 0x646f_7261_6e64_6f6d,
        key[0] ^ 0x6c79_6765_6e65_7261,
        key[1] ^ 0x7465_6462_7974_6573,
    ];
    let mut word = 0;
    while word < WORDS {
        v = absorb(v, words[word]);
        word += 1;
    }
    v = absorb(v, (WORDS as u64 * 8) << 56);
    v[2] ^= 0xff;
    v = round(round(round(v)));
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

#[inline(always)]
const fn absorb(mut v: [u64; 4], word: u64) -> [u64; 4] {
    v[3] ^= word;
    v = round(v);
    v[0] ^= word;
    v
}

#[inline(always)]
const fn round([mut v0, mut v1, mut v2, mut v3]: [u64; 4]) -> [u64; 4] {
    v0 = v0.wrapping_add(v1);
    v1 = v1.rotate_left(13) ^ v0;
    v0 = v0.rotate_left(32);
    v2 = v2.wrapping_add(v3);
    v3 = v3.rotate_left(16) ^ v2;
    v0 = v0.wrapping_add(v3);
    v3 = v3.rotate_left(21) ^ v0;
    v2 = v2.wrapping_add(v1);
    v1 = v1.rotate_left(17) ^ v2;
    v2 = v2.rotate_left(32);
    [v0, v1, v2, v3]
}

#[cfg(test)]
mod tests {
    use std::hash::Hasher;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        // The standard library's hasher is SipHash-1-3 with a key of zeros.
        #[test]
        fn agrees_with_the_standard_library(words in any::<[u64; 5]>()) {
            let mut theirs = std::collections::hash_map::DefaultHasher::new();
            for word in words {
                theirs.write(&word.to_le_bytes());
            }
            prop_assert_eq!(siphash13([0, 0], words), theirs.finish());
            let mut theirs = std::collections::hash_map::DefaultHasher::new();
            theirs.write(&words[0].to_le_bytes());
            prop_assert_eq!(siphash13([0, 0], [words[0]]), theirs.finish());
        }

        #[test]
        fn the_key_matters(key in any::<[u64; 2]>(), words in any::<[u64; 5]>()) {
            prop_assume!(key != [0, 0]);
            prop_assert_ne!(siphash13(key, words), siphash13([0, 0], words));
        }
    }
}
