//! The chunked coding (RFC 9112 §7.1), decoded strictly and incrementally.
//!
//! A relay passes the bytes on as they came, but only after this machine has seen that they mean the same to
//! everyone: sizes are plain hexadecimal, lines end in CR LF, extensions and trailers hold no control bytes, and no
//! trailer is a field that a recipient who merges trailers into the head (RFC 9110 §6.5.1) would be misled by.

use super::fault::Fault;
use super::fields::is_tchar;

/// Bytes of chunk extensions in one message: nobody uses them, and Go's and Node's decoders were once kept busy by them.
pub const EXTENSION_LIMIT: u32 = 16 * 1024;

/// Bytes of the trailer section of one message, line ends not counted.
pub const TRAILER_LIMIT: u32 = 16 * 1024;

/// Bytes of a trailer's name that are looked at: the longest of [`FORBIDDEN`].
const NAME_LENGTH: usize = 19;

/// Fields that say how a message is framed, routed, authenticated or processed, and by whom it was sent: all of them
/// were acted on when the head was read (RFC 9110 §6.5.1). Besides these everything that starts with
/// [`FORBIDDEN_PREFIXES`].
const FORBIDDEN: [&str; 25] = [
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "www-authenticate",
    "x-real-ip",
];

/// Conditions, and what proxies say about the client.
const FORBIDDEN_PREFIXES: [&str; 2] = ["if-", "x-forwarded-"];

/// Where in the coding the next byte stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// In a chunk's size, of which this many digits have come.
    Size(u8),
    /// In the space after it, which only an extension may follow.
    SizeSpace,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// At the start of a trailer line, or of the empty line that ends the message.
    Trailer,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    Done,
}

/// Follows a chunked body through any split of its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Decoder {
    state: State,
    /// Of the chunk at hand: the size while it is read, then the bytes that are still to come.
    remaining: u64,
    extensions: u32,
    trailers: u32,
    name: TrailerName,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { state: State::Size(0), remaining: 0, extensions: 0, trailers: 0, name: TrailerName::default() }
    }
}

impl Decoder {
    /// The message is complete.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The bytes that are missing from the chunk at hand.
    pub fn announced(&self) -> u64 {
        if self.state == State::Data { self.remaining } else { 0 }
    }

    /// How many bytes of `input` belong to the message: all of them, unless it ends within. `data` is given the
    /// content without the coding, in pieces.
    ///
    /// # Errors
    /// When the coding is violated; the decoder is of no use afterwards.
    pub fn accept(&mut self, input: &[u8], mut data: impl FnMut(&[u8])) -> Result<usize, Fault> {
        let mut at = 0;
        while at < input.len() && self.state != State::Done {
            if self.state == State::Data {
                let here = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(input.len() - at);
                data(&input[at..at + here]);
                at += here;
                self.remaining -= here as u64;
                if self.remaining == 0 {
                    self.state = State::DataCr;
                }
            } else {
                self.state = self.step(input[at])?;
                at += 1;
            }
        }
        Ok(at)
    }

    fn step(&mut self, byte: u8) -> Result<State, Fault> {
        Ok(match (self.state, byte) {
            (State::Size(digits), _) if byte.is_ascii_hexdigit() => self.size_digit(digits, byte)?,
            (State::Size(1..) | State::SizeSpace, b' ' | b'\t') => self.extension_byte(State::SizeSpace)?,
            (State::Size(1..) | State::SizeSpace, b';') => self.extension_byte(State::Extension)?,
            (State::Size(1..) | State::Extension, b'\r') => State::SizeLf,
            (State::Extension, _) if is_text(byte) => self.extension_byte(State::Extension)?,
            (State::SizeLf, b'\n') if self.remaining == 0 => State::Trailer,
            (State::SizeLf, b'\n') => State::Data,
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size(0),
            (State::Trailer, b'\r') => State::EndLf,
            (State::Trailer, _) if is_tchar(byte) => {
                self.name = TrailerName::default();
                self.name_byte(byte)?
            }
            (State::TrailerName, _) if is_tchar(byte) => self.name_byte(byte)?,
            (State::TrailerName, b':') if self.name.is_forbidden() => return Err(Fault::Trailer),
            (State::TrailerName, b':') => self.trailer_byte(State::TrailerValue)?,
            (State::TrailerValue, b'\r') => State::TrailerLf,
            (State::TrailerValue, _) if is_text(byte) => self.trailer_byte(State::TrailerValue)?,
            (State::TrailerLf, b'\n') => State::Trailer,
            (State::EndLf, b'\n') => State::Done,
            _ => return Err(Fault::Chunk),
        })
    }

    /// At most what an `i64` holds: others would take more for a negative number. Leading zeros beyond sixteen digits are
    /// nothing but a way to be slow.
    fn size_digit(&mut self, digits: u8, byte: u8) -> Result<State, Fault> {
        let digit = char::from(byte).to_digit(16).map(u64::from).ok_or(Fault::Chunk)?;
        if digits >= 16 || self.remaining > i64::MAX as u64 >> 4 {
            return Err(Fault::Chunk);
        }
        self.remaining = self.remaining << 4 | digit;
        Ok(State::Size(digits + 1))
    }

    fn extension_byte(&mut self, next: State) -> Result<State, Fault> {
        self.extensions += 1;
        if self.extensions > EXTENSION_LIMIT { Err(Fault::ChunkOverhead) } else { Ok(next) }
    }

    fn name_byte(&mut self, byte: u8) -> Result<State, Fault> {
        self.name.push(byte);
        self.trailer_byte(State::TrailerName)
    }

    fn trailer_byte(&mut self, next: State) -> Result<State, Fault> {
        self.trailers += 1;
        if self.trailers > TRAILER_LIMIT { Err(Fault::ChunkOverhead) } else { Ok(next) }
    }
}

/// The name of the trailer at hand, lower case, as far as it matters.
#[derive(Clone, Copy, Debug, Default)]
struct TrailerName {
    bytes: [u8; NAME_LENGTH],
    length: usize,
}

impl TrailerName {
    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.length) {
            *place = byte.to_ascii_lowercase();
        }
        self.length += 1;
    }

    fn is_forbidden(&self) -> bool {
        let known = &self.bytes[..self.length.min(NAME_LENGTH)];
        FORBIDDEN_PREFIXES.iter().any(|prefix| known.starts_with(prefix.as_bytes()))
            || self.length <= NAME_LENGTH && FORBIDDEN.iter().any(|name| name.as_bytes() == known)
    }
}

/// `field-vchar`, space and tab (RFC 9110 §5.5).
fn is_text(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// (bytes of the message, content, complete), or the fault.
    fn decode(input: &[u8]) -> Result<(usize, Vec<u8>, bool), Fault> {
        let (mut decoder, mut content) = (Decoder::default(), Vec::new());
        let used = decoder.accept(input, |data| content.extend_from_slice(data))?;
        Ok((used, content, decoder.is_done()))
    }

    #[test]
    fn finds_the_content_and_the_end() {
        let message = b"4\r\nWiki\r\nA;x=\"y\"\r\n0123456789\r\n0\r\n\r\n";
        let mut followed = message.to_vec();
        followed.extend_from_slice(b"GET /next");
        assert_eq!(decode(&followed), Ok((message.len(), b"Wiki0123456789".to_vec(), true)));
    }

    #[test]
    fn the_largest_chunk_is_one_that_everybody_can_count() {
        assert_eq!(decode(b"7FFFFFFFFFFFFFFF\r\nx"), Ok((19, b"x".to_vec(), false)));
    }

    #[test]
    fn takes_trailers_and_space_before_an_extension() {
        assert!(decode(b"1 ;a\r\nx\r\n0\r\nDigest: abc\r\nX:\r\n\r\n").is_ok_and(|(_, _, done)| done));
    }

    #[test]
    fn refuses_what_others_may_read_differently() {
        let refused: [&[u8]; 24] = [
            b"\r\n",
            b"+5\r\nhello\r\n0\r\n\r\n",
            b"-5\r\n",
            b"0x5\r\n",
            b" 5\r\n",
            b"5 \r\nhello",
            b"5\nhello",
            b"5\r\rhello",
            b"5;a\nhello",
            b"5;a\r\x0bhello",
            b"5;\0\r\n",
            b"g\r\n",
            b"10000000000000000\r\n",
            b"8000000000000000\r\n",
            b"FFFFFFFFFFFFFFFF\r\n",
            b"00000000000000005\r\n",
            b"5\r\nhelloXX",
            b"5\r\nhello\n0\r\n",
            b"5\r\nhello\r0\r\n",
            b"0\r\n\n",
            b"0\r\nX : y\r\n\r\n",
            b"0\r\n folded\r\n\r\n",
            b"0\r\nX: a\nY: b\r\n\r\n",
            b"0\r\n: empty\r\n\r\n",
        ];
        for message in refused {
            assert_eq!(decode(message), Err(Fault::Chunk), "{:?}", String::from_utf8_lossy(message));
        }
    }

    #[test]
    fn trailers_that_belong_into_a_head_are_refused() {
        assert!(FORBIDDEN.iter().all(|name| name.len() <= NAME_LENGTH));
        let of = |name: &str| decode(format!("1\r\na\r\n0\r\nA: b\r\n{name}: x\r\n\r\n").as_bytes());
        for name in FORBIDDEN.into_iter().chain(["If-Match", "X-Forwarded-For", "CONTENT-Length"]) {
            assert_eq!(of(name), Err(Fault::Trailer), "{name}");
            assert_eq!(of(&name.to_uppercase()), Err(Fault::Trailer), "{name}");
        }
        for name in
            ["Content-Digest", "grpc-status", "ETag", "Hosts", "Proxy-Authorization2", "X-Forwarded", "If"]
        {
            assert!(of(name).is_ok_and(|(_, _, done)| done), "{name}");
        }
    }

    #[test]
    fn bytes_around_the_content_are_bounded() {
        let mut extensions = b"1;".to_vec();
        extensions.resize(EXTENSION_LIMIT as usize + 10, b'a');
        assert_eq!(decode(&extensions), Err(Fault::ChunkOverhead));
        let mut trailers = b"0\r\n".to_vec();
        trailers.extend(b"A: b\r\n".repeat(TRAILER_LIMIT as usize / 4 + 1));
        assert_eq!(decode(&trailers), Err(Fault::ChunkOverhead));
    }

    fn chunks() -> impl Strategy<Value = Vec<(Vec<u8>, bool)>> {
        proptest::collection::vec((proptest::collection::vec(any::<u8>(), 1..40), any::<bool>()), 0..6)
    }

    fn encode(chunks: &[(Vec<u8>, bool)]) -> Vec<u8> {
        let mut out = Vec::new();
        for (data, extended) in chunks {
            out.extend(format!("{:X}{}\r\n", data.len(), if *extended { ";a=b" } else { "" }).into_bytes());
            out.extend(data);
            out.extend(b"\r\n");
        }
        out.extend(b"0\r\nT: v\r\n\r\n");
        out
    }

    proptest! {
        #[test]
        fn any_split_of_the_input_gives_the_same_content(chunks in chunks(), cuts in proptest::collection::vec(1_usize..30, 1..20)) {
            let message = encode(&chunks);
            let (mut decoder, mut content, mut used) = (Decoder::default(), Vec::new(), 0);
            let mut cuts = cuts.iter().cycle();
            while used < message.len() {
                let end = (used + cuts.next().copied().unwrap_or(1)).min(message.len());
                let here = decoder.accept(&message[used..end], |data| content.extend_from_slice(data)).expect("well-formed");
                prop_assert_eq!(here, end - used);
                used = end;
            }
            prop_assert!(decoder.is_done());
            let expected: Vec<u8> = chunks.iter().flat_map(|(data, _)| data.clone()).collect();
            prop_assert_eq!(content, expected);
        }

        #[test]
        fn arbitrary_bytes_give_the_same_outcome_in_one_piece_or_many(input in proptest::collection::vec(prop_oneof![
            any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b'0'), Just(b'1'), Just(b';'), Just(b':')], 0..120)) {
            let whole = decode(&input);
            let (mut decoder, mut content, mut used) = (Decoder::default(), Vec::new(), 0);
            let bytewise = input.iter().try_for_each(|byte| {
                used += decoder.accept(std::slice::from_ref(byte), |data| content.extend_from_slice(data))?;
                Ok(())
            });
            prop_assert_eq!(whole, bytewise.map(|()| (used, content, decoder.is_done())));
        }
    }
}
