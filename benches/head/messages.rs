//! What is parsed: messages of the kinds that proxies see most.

use std::fmt::Write;

/// From a load generator.
pub(super) const SMALL_REQUEST: &[u8] =
    b"GET /quiet HTTP/1.1\r\nHost: 10.20.0.1:8001\r\nCookie: SRV=s1\r\n\r\n";

/// As nginx answers it.
pub(super) const SMALL_RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\n\
    Date: Sun, 22 Nov 2026 10:11:12 GMT\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\
    Connection: keep-alive\r\nX-Server: s1\r\n\r\nHello, world!";

/// An application's page: caching, security and session headers.
pub(super) const APPLICATION_RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\n\
    Date: Sun, 22 Nov 2026 10:11:12 GMT\r\nContent-Type: text/html; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\
    Connection: keep-alive\r\nVary: Accept-Encoding, Cookie\r\nCache-Control: private, no-cache, no-store\r\n\
    Expires: Thu, 19 Nov 1981 08:52:00 GMT\r\nX-Frame-Options: SAMEORIGIN\r\nX-Content-Type-Options: nosniff\r\n\
    Strict-Transport-Security: max-age=31536000; includeSubDomains\r\n\
    Set-Cookie: PHPSESSID=q7s3k1m2n4b5v6c7x8z9l0k1j2; path=/; HttpOnly; SameSite=Lax\r\n\
    Set-Cookie: lang=en; path=/; expires=Mon, 22 Nov 2027 10:11:12 GMT\r\nContent-Encoding: gzip\r\n\r\n";

/// About 600 bytes of cookies, ours in their midst.
pub(super) fn cookies() -> String {
    let mut list = String::from("_ga=GA1.2.1234567890.1700000000; _gid=GA1.2.987654321.1700000000");
    for n in 0..7 {
        // Writing to a string does not fail.
        let _ = write!(list, "; preference_{n}=value-{n}-0123456789abcdef");
    }
    list.push_str("; SRV=s1; PHPSESSID=q7s3k1m2n4b5v6c7x8z9l0k1j2");
    for n in 0..6 {
        let _ = write!(list, "; track_{n}=0123456789abcdef0123");
    }
    list
}

/// As browsers send it: 15 header lines.
pub(super) fn browser_request() -> Vec<u8> {
    let cookies = cookies();
    format!(
        "GET /catalogue/items?page=3&sort=price&q=blue+shoes HTTP/1.1\r\n\
         Host: www.example.com\r\n\
         Connection: keep-alive\r\n\
         Cache-Control: max-age=0\r\n\
         sec-ch-ua: \"Chromium\";v=\"128\", \"Not;A=Brand\";v=\"24\", \"Google Chrome\";v=\"128\"\r\n\
         sec-ch-ua-mobile: ?0\r\n\
         sec-ch-ua-platform: \"Linux\"\r\n\
         Upgrade-Insecure-Requests: 1\r\n\
         User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/128.0.0.0 \
         Safari/537.36\r\n\
         Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
         Sec-Fetch-Site: same-origin\r\n\
         Sec-Fetch-Mode: navigate\r\n\
         Referer: https://www.example.com/catalogue/items?page=2&sort=price&q=blue+shoes\r\n\
         Accept-Encoding: gzip, deflate, br, zstd\r\n\
         Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n\
         Cookie: {cookies}\r\n\r\n"
    )
    .into_bytes()
}

/// 16 KiB of content in chunks of `size`.
pub(super) fn chunks(size: usize) -> Vec<u8> {
    let mut body = Vec::new();
    for piece in vec![b'x'; 16 * 1024].chunks(size) {
        body.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        body.extend_from_slice(piece);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"0\r\n\r\n");
    body
}
