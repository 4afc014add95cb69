//! Header fields: what requests and responses have in common.

use std::mem::MaybeUninit;

use httparse::Header;
use memchr::memchr_iter;

use super::fault::Fault;

/// Most header lines that a head can have, whatever `--max-headers` says: room for them is set aside on the stack.
pub const MAX_HEADERS: usize = 256;

/// Room for the parsed header lines of one head.
#[derive(Debug)]
pub struct Slots<'b>([MaybeUninit<Header<'b>>; MAX_HEADERS]);

impl Default for Slots<'_> {
    fn default() -> Self {
        Self([const { MaybeUninit::uninit() }; MAX_HEADERS])
    }
}

impl<'b> Slots<'b> {
    pub(super) fn limited(&mut self, headers: usize) -> &mut [MaybeUninit<Header<'b>>] {
        &mut self.0[..headers.min(MAX_HEADERS)]
    }
}

/// What asks for a WebSocket, and what grants one.
pub(super) const UPGRADE: &[u8] = b"Connection: Upgrade\r\nUpgrade: websocket\r\n";

/// The fields that the proxy itself has to understand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Name {
    Host,
    ContentLength,
    TransferEncoding,
    Connection,
    Upgrade,
    Te,
    /// Hop-by-hop whether `Connection` names it or not, and of no use here: Keep-Alive, Proxy-Connection.
    HopByHop,
    Cookie,
    SetCookie,
    Expect,
    /// Authorization, Proxy-Authorization.
    Credentials,
    /// WWW-Authenticate, Proxy-Authenticate.
    Challenge,
    Accept,
    /// Left by a proxy before us: Via, Forwarded, X-Forwarded-For.
    Proxied,
    Other,
}

impl Name {
    /// Names compare without case (RFC 9110 §5.1). The length decides nearly always.
    pub(super) fn of(name: &str) -> Self {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        match name.len() {
            2 if is("te") => Self::Te,
            3 if is("via") => Self::Proxied,
            4 if is("host") => Self::Host,
            6 if is("cookie") => Self::Cookie,
            6 if is("expect") => Self::Expect,
            6 if is("accept") => Self::Accept,
            7 if is("upgrade") => Self::Upgrade,
            9 if is("forwarded") => Self::Proxied,
            10 if is("connection") => Self::Connection,
            10 if is("keep-alive") => Self::HopByHop,
            10 if is("set-cookie") => Self::SetCookie,
            13 if is("authorization") => Self::Credentials,
            14 if is("content-length") => Self::ContentLength,
            15 if is("x-forwarded-for") => Self::Proxied,
            16 if is("proxy-connection") => Self::HopByHop,
            16 if is("www-authenticate") => Self::Challenge,
            17 if is("transfer-encoding") => Self::TransferEncoding,
            18 if is("proxy-authenticate") => Self::Challenge,
            19 if is("proxy-authorization") => Self::Credentials,
            _ => Self::Other,
        }
    }

    /// Never passed on as it came: what is said about framing and this hop is said anew.
    pub(super) fn is_rewritten(self) -> bool {
        matches!(
            self,
            Self::Connection
                | Self::Upgrade
                | Self::Te
                | Self::HopByHop
                | Self::ContentLength
                | Self::TransferEncoding
        )
    }
}

/// What `Upgrade` asks for, over all of its lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Upgrade {
    #[default]
    Nothing,
    /// `websocket`, and nothing beside it.
    WebSocket,
    /// Something that is not tunnelled: h2c, TLS, a choice of several.
    Other,
}

/// What the framing and connection fields of a head say together.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Survey {
    pub(super) content_length: Option<u64>,
    pub(super) chunked: bool,
    /// `Connection: close`
    pub(super) close: bool,
    /// `Connection: keep-alive`
    pub(super) keep_alive: bool,
    /// `Connection: upgrade`, without which `Upgrade` means nothing (RFC 9110 §7.8).
    pub(super) wants_upgrade: bool,
    pub(super) upgrade: Upgrade,
    /// `TE: trailers`
    pub(super) takes_trailers: bool,
    /// NTLM or Negotiate: these authenticate a connection, not a request.
    pub(super) binds_connection: bool,
    /// `Connection` names fields that are for this hop only.
    pub(super) names_fields: bool,
}

impl Survey {
    /// Takes one field into account.
    pub(super) fn note(&mut self, name: Name, value: &[u8]) -> Result<(), Fault> {
        match name {
            // Two equal lengths would be harmless (RFC 9110 §8.6 allows merging them), but nobody honest sends them.
            Name::ContentLength if self.content_length.is_some() => return Err(Fault::ContentLength),
            Name::ContentLength => self.content_length = Some(decimal(value).ok_or(Fault::ContentLength)?),
            Name::TransferEncoding if self.chunked => return Err(Fault::TransferEncoding),
            Name::TransferEncoding => {
                transfer_coding(value)?;
                self.chunked = true;
            }
            Name::Connection => self.note_connection(value),
            Name::Upgrade => {
                let is_first = self.upgrade == Upgrade::Nothing;
                let is_websocket = is_first && value.eq_ignore_ascii_case(b"websocket");
                self.upgrade = if is_websocket { Upgrade::WebSocket } else { Upgrade::Other };
            }
            Name::Te => {
                self.takes_trailers |= options(value).any(|coding| coding.eq_ignore_ascii_case(b"trailers"));
            }
            Name::Credentials => self.binds_connection |= binds_connection(value),
            Name::Challenge => self.binds_connection |= options(value).any(binds_connection),
            _ => {}
        }
        Ok(())
    }

    /// RFC 9112 §6.3: a message with both lengths is an attack or a broken proxy.
    pub(super) fn check(&self) -> Result<(), Fault> {
        if self.chunked && self.content_length.is_some() { Err(Fault::TwoLengths) } else { Ok(()) }
    }

    fn note_connection(&mut self, value: &[u8]) {
        for option in options(value) {
            if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                self.wants_upgrade = true;
            } else if !option.is_empty() && !option.eq_ignore_ascii_case(b"te") {
                self.names_fields = true;
            }
        }
    }
}

/// Whether a field that is not one of ours is to be left out because `Connection` names it.
pub(super) fn is_named_by_connection(name: &str, headers: &[Header<'_>]) -> bool {
    headers
        .iter()
        .filter(|header| Name::of(header.name) == Name::Connection)
        .any(|header| options(header.value).any(|option| option.eq_ignore_ascii_case(name.as_bytes())))
}

/// Every line of a head ends in CR LF: `httparse` takes a bare LF, which others read as part of a value.
/// `bytes` starts with a whole head of `length` bytes.
pub(super) fn check_line_ends(head: &[u8]) -> Result<(), Fault> {
    let strict = memchr_iter(b'\n', head).all(|at| at > 0 && head[at - 1] == b'\r');
    if strict { Ok(()) } else { Err(Fault::LineEnd) }
}

pub(super) fn write_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

pub(super) fn write_framing(out: &mut Vec<u8>, content_length: Option<u64>, chunked: bool) {
    if let Some(length) = content_length {
        write_field(out, "Content-Length", itoa::Buffer::new().format(length).as_bytes());
    }
    if chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
}

/// What tokens, such as names of fields and cookies, are made of (RFC 9110 §5.6.2).
pub fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The parts of a comma-separated list (RFC 9110 §5.6.1).
fn options(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii)
}

/// The scheme of a challenge or of credentials is one that authenticates the connection it is sent on.
fn binds_connection(value: &[u8]) -> bool {
    let scheme = value.split(|&byte| byte == b' ').next().unwrap_or_default();
    scheme.eq_ignore_ascii_case(b"ntlm") || scheme.eq_ignore_ascii_case(b"negotiate")
}

/// Digits and nothing else: no sign, no spaces, no list, at most what an `i64` holds (others would overflow).
fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0_u64, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit).filter(|&sum| i64::try_from(sum).is_ok())
    })
}

/// Accepts exactly `chunked`.
fn transfer_coding(value: &[u8]) -> Result<(), Fault> {
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    if is_chunked(value) {
        return Ok(());
    }
    let count = options(value).filter(|coding| is_chunked(coding)).count();
    let last = options(value).last().is_some_and(is_chunked);
    // A well-formed list of codings that we cannot undo is the one case that is not malformed (RFC 9112 §6.1).
    Err(if last && count == 1 { Fault::UnknownCoding } else { Fault::TransferEncoding })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survey(fields: &[(&str, &str)]) -> Result<Survey, Fault> {
        let mut survey = Survey::default();
        for (name, value) in fields {
            survey.note(Name::of(name), value.as_bytes())?;
        }
        survey.check().map(|()| survey)
    }

    #[test]
    fn a_content_length_is_one_plain_number() {
        assert_eq!(survey(&[("Content-Length", "0042")]).map(|s| s.content_length), Ok(Some(42)));
        let too_much = "9223372036854775808";
        for bad in ["", "+5", "-5", "5,5", "5 5", "0x5", "5.", "٣", too_much, "99999999999999999999"] {
            let refused = survey(&[("content-length", bad)]).map(|_| ());
            assert_eq!(refused, Err(Fault::ContentLength), "{bad:?}");
        }
        let twice = survey(&[("Content-Length", "5"), ("CONTENT-LENGTH", "5")]).map(|_| ());
        assert_eq!(twice, Err(Fault::ContentLength));
    }

    #[test]
    fn a_transfer_encoding_is_one_chunked() {
        assert!(survey(&[("Transfer-Encoding", "Chunked")]).is_ok_and(|s| s.chunked));
        for bad in [
            "",
            "identity",
            "chunked, chunked",
            "chunked, gzip",
            "xchunked",
            "\"chunked\"",
            "chunked;a=b",
            "chunked,",
        ] {
            let refused = survey(&[("Transfer-Encoding", bad)]).map(|_| ());
            assert_eq!(refused, Err(Fault::TransferEncoding), "{bad:?}");
        }
        let coded = survey(&[("Transfer-Encoding", "gzip, chunked")]).map(|_| ());
        assert_eq!(coded, Err(Fault::UnknownCoding));
        let twice = survey(&[("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "chunked")]).map(|_| ());
        assert_eq!(twice, Err(Fault::TransferEncoding));
    }

    #[test]
    fn both_lengths_together_are_refused_in_either_order() {
        let (length, coding) = (("Content-Length", "5"), ("Transfer-Encoding", "chunked"));
        assert_eq!(survey(&[length, coding]).map(|_| ()), Err(Fault::TwoLengths));
        assert_eq!(survey(&[coding, length]).map(|_| ()), Err(Fault::TwoLengths));
    }

    #[test]
    fn connection_options_are_a_list_over_several_lines() {
        let found =
            survey(&[("Connection", "x-a, Close"), ("Connection", "Keep-Alive")]).expect("well-formed");
        assert!(found.close && found.keep_alive && found.names_fields);
        for of_ours in ["keep-alive", "Upgrade", "TE, close"] {
            let plain = survey(&[("Connection", of_ours)]).expect("well-formed");
            assert!(!plain.names_fields, "{of_ours}");
        }
    }

    #[test]
    fn an_upgrade_is_to_websocket_alone_or_to_something_else() {
        let upgrade = |fields: &[(&str, &str)]| survey(fields).expect("well-formed").upgrade;
        assert_eq!(upgrade(&[]), Upgrade::Nothing);
        assert_eq!(upgrade(&[("upgrade", "WebSocket")]), Upgrade::WebSocket);
        for other in ["h2c", "TLS/1.0", "websocket, h2c", "websocket/13", ""] {
            assert_eq!(upgrade(&[("Upgrade", other)]), Upgrade::Other, "{other}");
        }
        let websocket = ("Upgrade", "websocket");
        for twice in [("Upgrade", "h2c"), websocket] {
            assert_eq!(upgrade(&[websocket, twice]), Upgrade::Other);
            assert_eq!(upgrade(&[twice, websocket]), Upgrade::Other);
        }
    }

    #[test]
    fn schemes_that_authenticate_connections_are_known_in_any_list() {
        let binds = |name, value| survey(&[(name, value)]).expect("well-formed").binds_connection;
        for value in ["NTLM", "negotiate", "Basic realm=\"a b\", Negotiate", "NTLM TlRMTVNTUAAC"] {
            assert!(binds("WWW-Authenticate", value), "{value}");
            assert!(binds("Proxy-Authenticate", value), "{value}");
        }
        assert!(binds("Authorization", "Negotiate YII") && binds("proxy-authorization", "NTLM TlRM"));
        for value in ["Basic realm=NTLM", "NTLMv9", "Bearer negotiate", ""] {
            assert!(!binds("WWW-Authenticate", value) && !binds("Authorization", value), "{value}");
        }
    }
}
