//! Questions to the kernel about interfaces, routes and neighbours of this network namespace, or of another one.
//!
//! | module | what it does |
//! |---|---|
//! | [`link`] | an interface: state, MTU, kind, the program on it |
//! | [`ethtool`] | its offloads and channels |
//! | [`route`] | how an address is reached |
//! | [`around`] | the interfaces that a service needs |
//! | [`namespaces`] | where the other end of a veth pair lives |
//!
//! A library for these few questions would be more to read than this. sysfs is not asked: what it shows depends on who
//! has mounted it, not on who reads it.

pub mod around;
pub mod ethtool;
pub mod link;
pub mod namespaces;
pub mod route;

use std::io;
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
pub(crate) const NLMSG_ERROR: u16 = 2;
/// Marks an attribute that holds attributes; the newer families insist on it.
const NLA_F_NESTED: u16 = 0x8000;
/// The bits of an attribute's type that are its type.
const NLA_TYPE_MASK: u16 = 0x3fff;
/// Bytes of a `struct nlmsghdr`.
const HEADER: usize = 16;
/// Bytes of a `struct genlmsghdr`.
const GENERIC: usize = 4;

/// The attributes of a request.
#[derive(Debug, Default)]
pub(crate) struct Attributes(Vec<u8>);

impl Attributes {
    /// Adds one.
    pub(crate) fn with(mut self, kind: u16, value: &[u8]) -> Self {
        self.0.extend(((4 + value.len()) as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Adds one that holds others.
    pub(crate) fn nest(self, kind: u16, inner: &Self) -> Self {
        self.with(kind | NLA_F_NESTED, &inner.0)
    }
}

/// One request to a generic family that is known by its name; the attributes of the answer.
pub(crate) fn generic(family: &str, command: u8, attributes: &Attributes) -> io::Result<Vec<u8>> {
    let name = Attributes::default().with(CTRL_ATTR_FAMILY_NAME, format!("{family}\0").as_bytes());
    let about = generic_to(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, &name)?;
    let id = attribute(&about, CTRL_ATTR_FAMILY_ID).and_then(|id| id.get(..2)?.try_into().ok());
    let id = id.map(u16::from_ne_bytes).ok_or_else(short)?;
    generic_to(id, command, attributes)
}

fn generic_to(family: u16, command: u8, attributes: &Attributes) -> io::Result<Vec<u8>> {
    let body = [&[command, 1, 0, 0], &attributes.0[..]].concat();
    let mut answer = exchange(SockProtocol::NetlinkGeneric, family, &body)?;
    if answer.len() < GENERIC {
        return Err(short());
    }
    Ok(answer.split_off(GENERIC))
}

/// One request about links, routes or neighbours: what stands before the attributes, and these. The answer is what
/// stands before its attributes, `fixed` bytes, and these.
pub(crate) fn network(
    kind: u16,
    head: &[u8],
    attributes: &Attributes,
    fixed: usize,
) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let body = [head, &attributes.0[..]].concat();
    let mut answer = exchange(SockProtocol::NetlinkRoute, kind, &body)?;
    if answer.len() < fixed {
        return Err(short());
    }
    let rest = answer.split_off(fixed);
    Ok((answer, rest))
}

/// One message out, one back, both without the netlink header.
fn exchange(protocol: SockProtocol, kind: u16, body: &[u8]) -> io::Result<Vec<u8>> {
    let (kind, answer) = talk(protocol, kind, 0, body)?;
    match (kind == NLMSG_ERROR, integer(&answer)) {
        (false, _) => Ok(answer),
        // The number of an error, negative.
        (true, Some(error)) => Err(io::Error::from_raw_os_error(error.cast_signed().saturating_neg())),
        (true, None) => Err(short()),
    }
}

/// The same with what the answer is, which may be [`NLMSG_ERROR`]: an error is for who cannot ask at all.
pub(crate) fn talk(protocol: SockProtocol, kind: u16, flags: u16, body: &[u8]) -> io::Result<(u16, Vec<u8>)> {
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    let mut request = Vec::with_capacity(HEADER + body.len());
    request.extend(((HEADER + body.len()) as u32).to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    request.extend([0; 8]);
    request.extend(body);
    sendto(socket.as_raw_fd(), &request, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut answer = vec![0; 32 * 1024];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    answer.truncate(length);
    if length < HEADER {
        return Err(short());
    }
    let kind = u16::from_ne_bytes([answer[4], answer[5]]);
    Ok((kind, answer.split_off(HEADER)))
}

/// The value of the first attribute of that kind.
pub(crate) fn attribute(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    walk(attributes).find_map(|(found, value)| (found == kind).then_some(value))
}

/// The attributes one after the other, up to where they make no sense any more.
pub(crate) fn walk(mut attributes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(attributes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(attributes.get(2..4)?.try_into().ok()?) & NLA_TYPE_MASK;
        let value = attributes.get(4..length)?;
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The number at the beginning of a value.
pub(crate) fn integer(value: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(value.get(..4)?.try_into().ok()?))
}

/// The text of a value, without the NUL that ends it.
pub(crate) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

fn short() -> io::Error {
    io::Error::other("the kernel's answer is too short")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walks_attributes_and_survives_nonsense() {
        let attributes = [5, 0, 1, 0, 9, 0, 0, 0, 6, 0, 2, 0, 7, 8, 0, 0];
        assert_eq!(attribute(&attributes, 2), Some(&[7, 8][..]));
        assert_eq!(attribute(&attributes, 3), None);
        assert_eq!(attribute(&[0, 0, 1, 0, 0], 1), None);
        assert_eq!(attribute(&[255, 255, 1, 0], 1), None);
        assert_eq!(attribute(&[5, 0, 1, 0, 9], 1), Some(&[9][..]), "the last one need not be padded");
    }

    #[test]
    fn what_is_written_is_read() {
        let inner = Attributes::default().with(1, b"eth0\0").with(2, &7_u32.to_ne_bytes());
        let outer = Attributes::default().nest(3, &inner);
        let nested = attribute(&outer.0, 3).expect("there");
        assert_eq!(attribute(nested, 1).map(text).as_deref(), Some("eth0"));
        assert_eq!(attribute(nested, 2).and_then(integer), Some(7));
    }

    #[test]
    fn the_kernel_says_why_it_refuses() {
        let error = link::by_index(0x7fff_fff0).expect_err("no such interface");
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    }
}
