//! Why a message is refused.

/// What is wrong with a message. In a request it is the client's fault and [`Fault::status`] is the answer; in a
/// response it is the server's, and the answer is 502 whatever the fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}", self.as_str())]
pub enum Fault {
    /// A byte that may not stand where it stands.
    Syntax,
    /// A line of the head that does not end in CR LF.
    LineEnd,
    /// Larger than `--max-head`.
    HeadTooLarge,
    /// More header lines than `--max-headers`.
    TooManyHeaders,
    /// Longer than [`super::request::TARGET_LIMIT`].
    TargetTooLong,
    /// A character or a form that a request target does not have.
    Target,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    Version,
    /// CONNECT: this is not a forward proxy.
    Connect,
    /// Missing in 1.1, repeated, or not an authority.
    Host,
    /// Not one plain decimal number.
    ContentLength,
    /// Content-Length beside Transfer-Encoding.
    TwoLengths,
    /// Not a single `chunked`, or not in HTTP/1.1.
    TransferEncoding,
    /// A coding besides the final `chunked`.
    UnknownCoding,
    /// A chunk's size, extension or line end.
    Chunk,
    /// Extensions or trailers beyond their limit.
    ChunkOverhead,
    /// A trailer that would change what has been read already: framing, routing, credentials.
    Trailer,
    /// A status outside 100–999, or 101 to a request that did not ask for what it grants.
    Status,
}

impl Fault {
    /// The status that answers a request with this fault.
    pub fn status(self) -> u16 {
        match self {
            Self::HeadTooLarge | Self::TooManyHeaders => 431,
            Self::TargetTooLong => 414,
            Self::Version => 505,
            Self::Connect => 405,
            Self::UnknownCoding => 501,
            _ => 400,
        }
    }

    /// In words, for the client and the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Syntax => "malformed head",
            Self::LineEnd => "line end is not CR LF",
            Self::HeadTooLarge => "head too large",
            Self::TooManyHeaders => "too many headers",
            Self::TargetTooLong => "request target too long",
            Self::Target => "bad request target",
            Self::Version => "HTTP version not supported",
            Self::Connect => "CONNECT is not available",
            Self::Host => "missing, repeated or malformed Host",
            Self::ContentLength => "malformed Content-Length",
            Self::TwoLengths => "Content-Length with Transfer-Encoding",
            Self::TransferEncoding => "bad Transfer-Encoding",
            Self::UnknownCoding => "transfer coding not implemented",
            Self::Chunk => "malformed chunk",
            Self::ChunkOverhead => "too many bytes around chunks",
            Self::Trailer => "a field that must not stand in trailers",
            Self::Status => "bad status",
        }
    }
}
