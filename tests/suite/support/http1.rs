//! HTTP/1.1 as bytes: what the origin and the client both take apart.

use std::time::{Duration, UNIX_EPOCH};

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use sidecache::app::Clock;

/// Where a head ends, if all of it is there.
pub fn head_length(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

/// The first line of a head, and its fields. What is no field is left out.
pub fn head(bytes: &[u8]) -> (String, HeaderMap) {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = bytes.split(|byte| *byte == b'\n').skip(1);
    let mut headers = HeaderMap::new();
    for line in &mut lines {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    (text.lines().next().unwrap_or_default().to_owned(), headers)
}

/// The status of the first response in these bytes; 0 when there is none.
pub fn status(bytes: &[u8]) -> u16 {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    line.split(' ').nth(1).and_then(|status| status.trim().parse().ok()).unwrap_or(0)
}

/// Whether a field names this value.
pub fn names(headers: &HeaderMap, field: &str, value: &str) -> bool {
    let lines = headers.get_all(field).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|word| word.trim().eq_ignore_ascii_case(value))
}

/// A body in chunks: its content and how many bytes it took, or the content so far.
pub fn dechunked(bytes: &[u8]) -> Result<(Vec<u8>, usize), Vec<u8>> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let rest = &bytes[at..];
        let Some(line) = rest.windows(2).position(|window| window == b"\r\n") else {
            return Err(body);
        };
        let text = std::str::from_utf8(&rest[..line]).ok();
        let size = text.and_then(|text| usize::from_str_radix(text, 16).ok());
        let size = size.unwrap_or_else(|| panic!("no size of a chunk: {:?}", &rest[..line]));
        let data = &rest[line + 2..];
        if size == 0 {
            // The end, or trailers and the end.
            let end = if data.starts_with(b"\r\n") { Some(2) } else { head_length(data) };
            return end.map(|end| at + line + 2 + end).map(|used| (body.clone(), used)).ok_or(body);
        }
        if data.len() < size + 2 {
            body.extend_from_slice(&data[..size.min(data.len())]);
            return Err(body);
        }
        body.extend_from_slice(&data[..size]);
        at += line + 2 + size + 2;
    }
}

/// The HTTP-date so many seconds after this clock's now; before it where negative.
pub fn date(clock: &Clock, offset: i64) -> String {
    let now = UNIX_EPOCH + Duration::from_millis(clock.date().0);
    let distance = Duration::from_secs(offset.unsigned_abs());
    httpdate::fmt_http_date(if offset < 0 { now - distance } else { now + distance })
}
