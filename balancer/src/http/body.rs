//! Which of the bytes after a head belong to its message (RFC 9112 §6.3).

use super::chunked::Decoder;
use super::fault::Fault;

/// How the end of a body is found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// There is no body.
    None,
    /// This many bytes.
    Length(u64),
    /// Chunks, the last one empty.
    Chunked,
    /// Everything until the connection ends; responses only.
    UntilClose,
}

/// A body on its way.
#[derive(Clone, Copy, Debug)]
pub enum Body {
    /// This many bytes are still to come; 0: complete.
    Length(u64),
    /// In the middle of the chunked coding.
    Chunked(Decoder),
    /// Until the connection ends.
    UntilClose,
}

impl Body {
    /// A body of which nothing has come yet.
    pub fn new(framing: Framing) -> Self {
        match framing {
            Framing::None => Self::Length(0),
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Decoder::default()),
            Framing::UntilClose => Self::UntilClose,
        }
    }

    /// Nothing more is to come. Never true of [`Body::UntilClose`].
    pub fn is_done(&self) -> bool {
        match self {
            Self::Length(remaining) => *remaining == 0,
            Self::Chunked(decoder) => decoder.is_done(),
            Self::UntilClose => false,
        }
    }

    /// At least as many bytes are to come, as far as can be told.
    pub fn announced(&self) -> u64 {
        match self {
            Self::Length(remaining) => *remaining,
            Self::Chunked(decoder) => decoder.announced(),
            Self::UntilClose => u64::MAX,
        }
    }

    /// How many bytes of `input` belong to the body; they may be passed on as they are.
    ///
    /// # Errors
    /// When the chunked coding is violated: nothing of `input` is to be passed on.
    pub fn accept(&mut self, input: &[u8]) -> Result<usize, Fault> {
        self.accept_content(input, |_| {})
    }

    /// The same, and gives the content without its coding to `data`, in pieces.
    ///
    /// # Errors
    /// As [`Body::accept`].
    pub fn accept_content(&mut self, input: &[u8], mut data: impl FnMut(&[u8])) -> Result<usize, Fault> {
        match self {
            Self::Chunked(decoder) => decoder.accept(input, data),
            Self::UntilClose => {
                data(input);
                Ok(input.len())
            }
            Self::Length(remaining) => {
                let here = usize::try_from(*remaining).unwrap_or(usize::MAX).min(input.len());
                data(&input[..here]);
                *remaining -= here as u64;
                Ok(here)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_takes_its_bytes_and_leaves_the_next_message() {
        let mut body = Body::new(Framing::Length(5));
        assert_eq!(body.accept(b"abc"), Ok(3));
        assert!(!body.is_done());
        assert_eq!(body.accept(b"deGET /"), Ok(2));
        assert!(body.is_done());
        assert_eq!(body.accept(b"GET /"), Ok(0));
    }

    #[test]
    fn no_body_is_done_at_once_and_an_endless_one_never() {
        assert!(Body::new(Framing::None).is_done());
        let mut endless = Body::new(Framing::UntilClose);
        assert_eq!(endless.accept(b"abc"), Ok(3));
        assert!(!endless.is_done());
    }

    #[test]
    fn chunks_can_be_passed_on_or_taken_out_of_their_coding() {
        let mut content = Vec::new();
        let mut body = Body::new(Framing::Chunked);
        let used = body.accept_content(b"3\r\nabc\r\n0\r\n\r\nrest", |data| content.extend_from_slice(data));
        assert_eq!((used, content.as_slice(), body.is_done()), (Ok(13), b"abc".as_slice(), true));
    }
}
