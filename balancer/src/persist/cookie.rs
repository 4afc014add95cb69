//! Cookies in requests and answers: finding them, taking them out, changing them (RFC 6265 §4.2, with the leniency of §5.4's
//! real senders: spaces around `=`, one pair of quotes, `$`-attributes of RFC 2965 skipped).

use memchr::memchr;

/// One `name=value` of a Cookie header, as byte ranges into it.
struct Crumb<'a> {
    /// The whole crumb without the separators around it.
    raw: &'a [u8],
    name: &'a [u8],
    value: &'a [u8],
}

/// The values of the cookie `name` in one Cookie header, in order. `name` has neither `=` nor spaces in it, and no `$` at
/// its beginning.
pub fn values<'a>(header: &'a [u8], name: &str) -> impl Iterator<Item = &'a [u8]> {
    // Most crumbs are somebody else's: they are told by their first bytes, without looking for where their name ends.
    raw_crumbs(header).filter_map(move |raw| {
        let value = raw.strip_prefix(name.as_bytes())?.trim_ascii_start().strip_prefix(b"=")?;
        Some(unquote(value.trim_ascii_start()))
    })
}

/// Names and values of the cookies in one Cookie header, in order; the name of what is no cookie is empty.
pub fn pairs(header: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    crumbs(header).map(|crumb| (crumb.name, unquote(crumb.value)))
}

/// Writes the header without the cookie `name` to `out`; false if nothing is left of it.
/// Untouched crumbs are copied byte for byte, joined by `; `; a header without our cookie is copied as it is.
pub fn write_without(header: &[u8], name: &str, out: &mut Vec<u8>) -> bool {
    write_changed(header, name, out, |_, _| Change::Drop)
}

/// What becomes of a cookie in a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change<'a> {
    /// It stays as it is, byte for byte.
    Keep,
    /// It is not there any more.
    Drop,
    /// It has this value.
    Value(&'a [u8]),
    /// It has this value behind a quote; the closing one is in it.
    Quoted(&'a [u8]),
}

/// The same, with what `change` makes of each value of `name`; it is also told the value as it stands there, quotes and
/// all.
pub fn write_changed<'a>(
    header: &'a [u8],
    name: &str,
    out: &mut Vec<u8>,
    change: impl Fn(&'a [u8], &'a [u8]) -> Change<'a>,
) -> bool {
    let start = out.len();
    let mut has_ours = false;
    for crumb in crumbs(header) {
        let change = if crumb.name == name.as_bytes() {
            change(unquote(crumb.value), crumb.value)
        } else {
            Change::Keep
        };
        has_ours |= change != Change::Keep;
        if change == Change::Drop || crumb.raw.is_empty() {
            continue;
        }
        if out.len() > start {
            out.extend_from_slice(b"; ");
        }
        match change {
            Change::Value(value) => {
                [crumb.name, b"=", value].into_iter().for_each(|part| out.extend_from_slice(part));
            }
            Change::Quoted(value) => {
                [crumb.name, b"=\"", value].into_iter().for_each(|part| out.extend_from_slice(part));
            }
            Change::Keep | Change::Drop => out.extend_from_slice(crumb.raw),
        }
    }
    if !has_ours {
        // Written over rather than looked for first: that would read every header twice.
        out.truncate(start);
        out.extend_from_slice(header);
    }
    out.len() > start || !has_ours
}

/// The name that a Set-Cookie header sets.
pub fn set_cookie_name(header: &[u8]) -> &[u8] {
    set_pair(header).map_or(&[], |(name, _)| name)
}

/// The name and the value that a Set-Cookie header sets, a pair of quotes taken off (RFC 6265 §5.2).
pub fn set_pair(header: &[u8]) -> Option<(&[u8], &[u8])> {
    let pair = memchr(b';', header).map_or(header, |end| &header[..end]);
    let equals = memchr(b'=', pair)?;
    Some((pair[..equals].trim_ascii(), unquote(pair[equals + 1..].trim_ascii())))
}

/// The value that a Set-Cookie header sets, as it stands there, quotes and all.
pub fn set_value(header: &[u8]) -> &[u8] {
    let pair = memchr(b';', header).map_or(header, |end| &header[..end]);
    memchr(b'=', pair).map_or(&[], |equals| pair[equals + 1..].trim_ascii())
}

/// The value of the last attribute of that name in a Set-Cookie header, which is the one that counts; empty where it has
/// none.
pub fn attribute<'a>(header: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let attributes = header.split(|byte| *byte == b';').skip(1);
    let of_name = |attribute: &'a [u8]| {
        let (found, value) = match memchr(b'=', attribute) {
            Some(equals) => (&attribute[..equals], &attribute[equals + 1..]),
            None => (attribute, &attribute[..0]),
        };
        found.trim_ascii().eq_ignore_ascii_case(name.as_bytes()).then(|| value.trim_ascii())
    };
    attributes.filter_map(of_name).last()
}

fn crumbs(header: &[u8]) -> impl Iterator<Item = Crumb<'_>> {
    raw_crumbs(header).map(|raw| {
        let (name, value) = match memchr(b'=', raw) {
            Some(equals) => (raw[..equals].trim_ascii_end(), raw[equals + 1..].trim_ascii_start()),
            // A crumb without `=` names no cookie of ours; it is carried along.
            None => (&raw[..0], raw),
        };
        let name = if name.first() == Some(&b'$') { &name[..0] } else { name };
        Crumb { raw, name, value }
    })
}

/// What stands between the semicolons.
fn raw_crumbs(header: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(header);
    std::iter::from_fn(move || {
        let text = rest?;
        let (raw, after) = match memchr(b';', text) {
            Some(end) => (&text[..end], Some(&text[end + 1..])),
            None => (text, None),
        };
        rest = after;
        Some(raw.trim_ascii())
    })
}

/// The value without the pair of quotes around it.
pub fn unquote(value: &[u8]) -> &[u8] {
    match value {
        [b'"', inner @ .., b'"'] => inner,
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(header: &str) -> Vec<String> {
        values(header.as_bytes(), "SRV").map(|v| String::from_utf8_lossy(v).into_owned()).collect()
    }

    fn stripped(header: &str) -> Option<String> {
        let mut out = Vec::new();
        write_without(header.as_bytes(), "SRV", &mut out)
            .then(|| String::from_utf8(out).expect("utf-8 in, utf-8 out"))
    }

    #[test]
    fn finds_values_in_order_and_compares_names_exactly() {
        assert_eq!(found("a=1; SRV=s2; b=2"), ["s2"]);
        assert_eq!(found("SRV=s2; SRV=zz"), ["s2", "zz"]);
        assert_eq!(found("srv=s2; XSRV=s1; SRVX=s1"), [""; 0]);
        assert_eq!(found("SRV="), [""]);
        assert_eq!(found("SRV=a=b"), ["a=b"]);
        assert_eq!(found("SRV"), [""; 0]);
    }

    #[test]
    fn accepts_quotes_spaces_and_skips_attributes() {
        assert_eq!(found(r#"SRV="s2""#), ["s2"]);
        assert_eq!(found("SRV = s2 ;a=b"), ["s2"]);
        assert_eq!(found("$Version=1; SRV=s2; $Path=/"), ["s2"]);
        assert_eq!(found(r#"SRV=""#), ["\""]);
    }

    #[test]
    fn takes_the_cookie_out_and_leaves_the_others_as_they_were() {
        assert_eq!(stripped("a=1; SRV=s2; b=2").as_deref(), Some("a=1; b=2"));
        assert_eq!(stripped("SRV=s2"), None);
        assert_eq!(stripped("SRV=s2; SRV=s1;"), None);
        assert_eq!(stripped("SRV=s2;a = \"x\"").as_deref(), Some("a = \"x\""));
        assert_eq!(stripped("a=1;b=2;;c=3;").as_deref(), Some("a=1;b=2;;c=3;"));
        assert_eq!(stripped("").as_deref(), Some(""));
    }

    #[test]
    fn reads_the_name_a_server_sets() {
        assert_eq!(set_cookie_name(b"SRV=x; Path=/"), b"SRV");
        assert_eq!(set_cookie_name(b" SRV = x"), b"SRV");
        assert_eq!(set_cookie_name(b"nothing; SRV=x"), b"");
    }

    proptest! {
        #[test]
        fn agrees_with_the_cookie_crate(pairs in proptest::collection::vec(("[a-zS][A-Z]{0,3}", "[!#-+.-:<-~]{0,8}"), 0..8)) {
            let header = pairs.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join("; ");
            let theirs: Vec<String> = cookie::Cookie::split_parse(&header)
                .filter_map(Result::ok).filter(|c| c.name() == "SRV").map(|c| c.value().to_owned()).collect();
            prop_assert_eq!(found(&header), theirs);
        }

        /// One way looks for names, the other takes every crumb apart.
        #[test]
        fn both_ways_to_a_value_lead_there(header in "[SRVX=;\" \t$a]{0,40}") {
            let apart = pairs(header.as_bytes()).filter(|(name, _)| *name == b"SRV").map(|(_, value)| value);
            prop_assert!(values(header.as_bytes(), "SRV").eq(apart), "{}", header);
        }

        #[test]
        fn never_panics_and_leaves_no_cookie_of_ours(header in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut out = Vec::new();
            write_without(&header, "SRV", &mut out);
            prop_assert_eq!(values(&out, "SRV").count(), 0);
        }
    }
}
