//! The application's own session id: where a request carries it, and what an answer sets.

use std::borrow::Cow;

use super::method::{Place, SessionMethod};
use super::{cookie, cookie_date};
use crate::http::request::Request;

/// Ids of one request that are looked at: a client has one. Several mean a mistake, or somebody who tries.
pub const MOST_IDS: usize = 4;

/// What an answer says about a session.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Issued<'a> {
    /// Nothing.
    #[default]
    Nothing,
    /// The client has this id from now on.
    Id(Cow<'a, [u8]>),
    /// The client is to forget its id.
    Deleted,
}

/// Calls `visit` for each id in the request, in the order of the places; the first few only. Empty ones are none.
pub fn ids<'b>(request: &Request<'b, '_>, method: &SessionMethod, mut visit: impl FnMut(Cow<'b, [u8]>)) {
    let mut count = 0;
    let mut note = |id: Cow<'b, [u8]>| {
        if !id.is_empty() && count < MOST_IDS {
            count += 1;
            visit(id);
        }
    };
    for place in &method.places {
        if *place == Place::Cookie && method.is_prefix {
            let pairs = request.cookie_headers().flat_map(cookie::pairs);
            pairs.for_each(|(name, value)| {
                if let Some(id) = with_rest_of_name(name, value, method) {
                    note(id);
                }
            });
        } else {
            values(request, &method.name, *place, &mut |id| note(Cow::Borrowed(id)));
        }
    }
}

/// Calls `visit` for each value called `name` in that place.
pub fn values<'b>(request: &Request<'b, '_>, name: &str, place: Place, visit: &mut dyn FnMut(&'b [u8])) {
    match place {
        Place::Cookie => {
            request.cookie_headers().flat_map(|header| cookie::values(header, name)).for_each(visit);
        }
        Place::Path => {
            for (found, value) in request.path_parameters() {
                if found.eq_ignore_ascii_case(name) {
                    visit(value.as_bytes());
                }
            }
        }
        Place::Query => {
            for (found, value) in request.parameters() {
                if found.eq_ignore_ascii_case(name) {
                    visit(value.as_bytes());
                }
            }
        }
        Place::Header => {
            if let Some(value) = request.header(name) {
                visit(value);
            }
        }
    }
}

/// What the last Set-Cookie of that name among `set_cookies`, the values of such headers, says. `now`: unix seconds.
pub fn issued<'a>(
    set_cookies: impl Iterator<Item = &'a [u8]>,
    method: &SessionMethod,
    now: u64,
) -> Issued<'a> {
    let of_ours = |header: &'a [u8]| {
        let (name, value) = cookie::set_pair(header)?;
        let id = if method.is_prefix {
            with_rest_of_name(name, value, method)?
        } else if name == method.name.as_bytes() {
            Cow::Borrowed(value)
        } else {
            return None;
        };
        Some(if deletes(header, now) { Issued::Deleted } else { Issued::Id(id) })
    };
    set_cookies.filter_map(of_ours).last().unwrap_or_default()
}

/// The value of a Set-Cookie header takes its cookie away: an empty value, `Max-Age` of nothing, or `Expires` in the past.
pub fn deletes(set_cookie: &[u8], now: u64) -> bool {
    if cookie::set_pair(set_cookie).is_none_or(|(_, value)| value.is_empty()) {
        return true;
    }
    // Max-Age counts for more than Expires (RFC 6265 §5.3).
    let age = |text: &[u8]| {
        let digits = text.strip_prefix(b"-").unwrap_or(text);
        let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
        is_number.then(|| text.len() > digits.len() || digits.iter().all(|digit| *digit == b'0'))
    };
    if let Some(is_over) = cookie::attribute(set_cookie, "max-age").and_then(age) {
        return is_over;
    }
    cookie::attribute(set_cookie, "expires").and_then(cookie_date::parse).is_some_and(|date| date <= now)
}

/// With `prefix-name`: the id is what the name ends in, and the value, since either tells sessions apart.
fn with_rest_of_name<'a>(name: &[u8], value: &'a [u8], method: &SessionMethod) -> Option<Cow<'a, [u8]>> {
    let rest = name.strip_prefix(method.name.as_bytes())?;
    if value.is_empty() || rest.is_empty() {
        return Some(Cow::Borrowed(value));
    }
    Some(Cow::Owned([rest, b"=", value].concat()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;
    use crate::http::fields::Slots;
    use crate::http::request;
    use crate::persist::Method;
    use crate::persist::tests::method;

    const NOW: u64 = 1_700_000_000;

    fn session(options: &str) -> SessionMethod {
        match method(options) {
            Method::Session(session) => session,
            other => panic!("{other:?} is no session"),
        }
    }

    fn found(options: &str, target: &str, headers: &str) -> Vec<String> {
        let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
        let mut slots = Slots::default();
        let request = request::parse(head.as_bytes(), &mut slots, &Limits::default()).expect("well-formed");
        let mut found = Vec::new();
        ids(&request.expect("whole"), &session(options), |id| {
            found.push(String::from_utf8_lossy(&id).into_owned());
        });
        found
    }

    #[test]
    fn ids_are_found_where_they_are_looked_for() {
        let table: [(&str, &str, &str, &[&str]); 12] = [
            ("session=JS", "/", "Cookie: a=b; JS=abc\r\n", &["abc"]),
            ("session=JS", "/", "Cookie: js=abc\r\n", &[]),
            ("session=JS", "/a;js=abc?JS=no", "", &["abc"]),
            ("session=JS", "/a;JS=abc/b;x=y;js=d", "", &["abc", "d"]),
            ("session=JS", "/a?x;JS=abc", "", &[]),
            ("session=JS", "/;JS=path", "Cookie: JS=cookie\r\n", &["cookie", "path"]),
            ("session=JS,in=path+cookie", "/;JS=path", "Cookie: JS=cookie\r\n", &["path", "cookie"]),
            ("session=JS,in=query", "/?a=b&js=abc&JS=", "", &["abc"]),
            ("session=X-Id,in=header", "/", "x-id: abc\r\n", &["abc"]),
            ("session=JS", "/", "Cookie: JS=\r\n", &[]),
            ("session=ASPSESSIONID,prefix-name", "/", "Cookie: ASPSESSIONIDXY=abc\r\n", &["XY=abc"]),
            ("session=JS", "/", "Cookie: JS=1; JS=2; JS=3; JS=4; JS=5\r\n", &["1", "2", "3", "4"]),
        ];
        for (options, target, headers, expected) in table {
            assert_eq!(found(options, target, headers), expected, "{options} {target} {headers}");
        }
    }

    fn said(headers: &[&str]) -> String {
        let headers = headers.iter().map(|header| header.as_bytes());
        match issued(headers, &session("session=JS"), NOW) {
            Issued::Nothing => "nothing".into(),
            Issued::Deleted => "deleted".into(),
            Issued::Id(id) => String::from_utf8_lossy(&id).into_owned(),
        }
    }

    #[test]
    fn the_last_set_cookie_of_that_name_counts() {
        let table: [(&[&str], &str); 13] = [
            (&[], "nothing"),
            (&["a=b"], "nothing"),
            (&["js=abc"], "nothing"),
            (&["JS=abc; Path=/"], "abc"),
            (&["JS=abc", "a=b", "JS=def"], "def"),
            (&["JS=abc", "JS="], "deleted"),
            (&["JS=abc; Max-Age=0"], "deleted"),
            (&["JS=abc; max-age=-1; Expires=Fri, 31 Dec 9999 23:59:59 GMT"], "deleted"),
            (&["JS=abc; Max-Age=60; Expires=Thu, 01 Jan 1970 00:00:00 GMT"], "abc"),
            (&["JS=abc; Max-Age=x; Expires=Thu, 01-Jan-1970 00:00:01 GMT"], "deleted"),
            (&["JS=abc; Expires=Fri, 31 Dec 9999 23:59:59 GMT"], "abc"),
            (&["JS=abc; Expires=whenever"], "abc"),
            (&["JS"], "nothing"),
        ];
        for (headers, expected) in table {
            assert_eq!(said(headers), expected, "{headers:?}");
        }
    }
}
