//! The host and the protocol of the original request, as `Forwarded` states them (RFC 7239).

use http::header::{FORWARDED, HeaderMap};

/// What the first hop states in `Forwarded` of the host and the protocol that the client requested,
/// in a normal form: `host="a.test";proto=https`. None if it states neither.
#[must_use]
pub fn original_request(headers: &HeaderMap) -> Option<String> {
    let line = headers.get(FORWARDED)?.to_str().ok()?;
    let (mut host, mut proto) = (String::new(), String::new());
    for pair in first_element(line) {
        let (name, value) = pair.split_once('=')?;
        let value = value.trim().trim_matches('"');
        match name.trim().to_ascii_lowercase().as_str() {
            "host" => value.clone_into(&mut host),
            "proto" => value.clone_into(&mut proto),
            _ => {}
        }
    }
    let pairs = original_pairs(&host, "", &proto);
    (!pairs.is_empty()).then_some(pairs)
}

/// Host and protocol as pairs of `Forwarded`, lower-case. What is no host or no protocol is left
/// out. `port` is that of the host if it has none of its own.
#[must_use]
pub fn original_pairs(host: &str, port: &str, proto: &str) -> String {
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-_~:[]".contains(&byte);
    let mut pairs = Vec::new();
    if !host.is_empty() && host.bytes().all(is_host) {
        let mut host = host.to_ascii_lowercase();
        let usual = match proto {
            "https" => "443",
            _ => "80",
        };
        let has_port = host.rsplit_once(':').is_some_and(|(_, rest)| !rest.contains(']'));
        let is_port = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        if is_port && !has_port && port != usual {
            host = format!("{host}:{port}");
        }
        pairs.push(format!("host=\"{host}\""));
    }
    if !proto.is_empty() && proto.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        pairs.push(format!("proto={}", proto.to_ascii_lowercase()));
    }
    pairs.join(";")
}

/// The pairs of the first element. Commas and semicolons in quotes do not count.
fn first_element(line: &str) -> Vec<&str> {
    let (mut pairs, mut start, mut quoted) = (Vec::new(), 0, false);
    for (at, byte) in line.bytes().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            b';' if !quoted => {
                pairs.push(&line[start..at]);
                start = at + 1;
            }
            b',' if !quoted => {
                pairs.push(&line[start..at]);
                return pairs;
            }
            _ => {}
        }
    }
    pairs.push(&line[start..]);
    pairs
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_first_hop_states_host_and_protocol() {
        let of = |line: &'static str| {
            let headers = HeaderMap::from_iter([(FORWARDED, HeaderValue::from_static(line))]);
            original_request(&headers).unwrap_or_default()
        };
        assert_eq!(
            of("for=9.9.9.9;Proto=HTTPS;host=\"Public.example:8443\", for=1.1.1.1;host=other"),
            "host=\"public.example:8443\";proto=https"
        );
        assert_eq!(of("for=\"[2001:db8::1]:80\";proto=https"), "proto=https");
        assert_eq!(of("for=\"a,b;host=c\";host=d"), "host=\"d\"");
        assert_eq!((of("for=1.1.1.1"), of("host=\"a b\";proto=h-t"), of("")), <_>::default());
    }

    #[test]
    fn a_port_of_its_own_is_part_of_the_host() {
        assert_eq!(original_pairs("a.test", "8443", "https"), "host=\"a.test:8443\";proto=https");
        assert_eq!(original_pairs("a.test:1", "8443", "https"), "host=\"a.test:1\";proto=https");
        assert_eq!(original_pairs("a.test", "443", "https"), "host=\"a.test\";proto=https");
        assert_eq!(original_pairs("[::1]", "81", "http"), "host=\"[::1]:81\";proto=http");
        assert_eq!(original_pairs("", "", ""), "");
    }
}
