//! When a head that arrives in pieces is worth parsing.

use memchr::memchr_iter;

/// Watches a growing buffer for the end of a head, so that a client that sends a byte at a time does not have the
/// whole buffer parsed for each of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scan {
    scanned: usize,
    parse_at: usize,
}

impl Scan {
    /// Whether to parse `bytes`, which start with the bytes of the calls before.
    ///
    /// True for the first piece, for any piece in which an empty line ends (with or without CR: the parser refuses
    /// what is wrong with it), and whenever the buffer has doubled, so that nonsense is refused early.
    pub fn worth_parsing(&mut self, bytes: &[u8]) -> bool {
        let from = self.scanned.saturating_sub(2).min(bytes.len());
        self.scanned = bytes.len();
        let ended = self.parse_at > 0 && has_empty_line(bytes, from);
        if ended || bytes.len() >= self.parse_at {
            self.parse_at = bytes.len().saturating_mul(2).max(1);
            return true;
        }
        false
    }
}

fn has_empty_line(bytes: &[u8], from: usize) -> bool {
    memchr_iter(b'\n', &bytes[from..])
        .any(|at| matches!(&bytes[..from + at], [.., b'\n'] | [.., b'\n', b'\r']))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// How often `text`, fed a byte at a time, is found worth parsing, and whether the last time was at its end.
    fn attempts(text: &[u8]) -> (usize, bool) {
        let mut scan = Scan::default();
        let tries: Vec<_> = (1..=text.len()).filter(|&end| scan.worth_parsing(&text[..end])).collect();
        (tries.len(), tries.last() == Some(&text.len()))
    }

    #[test]
    fn a_head_sent_byte_by_byte_is_parsed_a_few_times_and_at_its_end() {
        let mut head = b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec();
        head.extend(b"X-Filler: y\r\n".repeat(500));
        head.extend(b"\r\n");
        let (tries, at_end) = attempts(&head);
        assert!(at_end);
        assert!(tries < 20, "{tries}");
    }

    #[test]
    fn bare_line_feeds_are_parsed_too_so_that_they_are_refused() {
        assert!(attempts(b"GET / HTTP/1.1\nHost: a\n\n").1);
    }

    proptest! {
        #[test]
        fn whatever_the_pieces_the_end_is_noticed(cuts in proptest::collection::vec(1_usize..60, 0..6)) {
            let head = b"GET /a HTTP/1.1\r\nHost: example\r\nAccept: */*\r\n\r\n";
            let mut scan = Scan::default();
            let mut ends: Vec<_> = cuts.into_iter().filter(|&cut| cut < head.len()).collect();
            ends.sort_unstable();
            for end in ends {
                scan.worth_parsing(&head[..end]);
            }
            prop_assert!(scan.worth_parsing(head));
        }
    }
}
