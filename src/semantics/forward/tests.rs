//! Tests of the fields that a proxy removes and adds.

use std::net::IpAddr;

use http::{Method, StatusCode, Uri};

use super::check::BadRequest;
use super::*;
use crate::semantics::request_fields::RequestFields;

fn map(lines: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_str(value).unwrap(),
        );
    }
    headers
}

fn check(
    method: &str,
    uri: &str,
    version: Version,
    lines: &[(&str, &str)],
) -> Result<(), BadRequest> {
    check_request(
        &Method::from_bytes(method.as_bytes()).unwrap(),
        &uri.parse::<Uri>().unwrap(),
        version,
        of(&map(lines)),
    )
    .map(drop)
}

/// Headers with the fields that they have.
fn of(headers: &HeaderMap) -> (&HeaderMap, RequestFields) {
    (headers, RequestFields::of(headers))
}

fn check11(lines: &[(&str, &str)]) -> Result<(), BadRequest> {
    check("GET", "/", Version::HTTP_11, lines)
}

const STRANGER: ClientPeer = ClientPeer {
    addr: PeerAddress::Ip(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7))),
    trusted: false,
};
const PROXY: ClientPeer = ClientPeer { trusted: true, ..STRANGER };

#[test]
fn ordinary_requests_pass() {
    for host in ["a", "a.example:8080", "A_b-c.example", "[::1]:80", "[fe80::1]", "127.0.0.1", "a:"]
    {
        assert_eq!(check11(&[("host", host)]), Ok(()), "{host}");
    }
    let lines = [
        ("host", "a"),
        ("connection", "keep-alive, Upgrade, TE"),
        ("expect", "100-Continue"),
        ("transfer-encoding", "Chunked"),
    ];
    assert_eq!(check("POST", "/x?y", Version::HTTP_11, &lines), Ok(()));
    assert_eq!(
        check("GET", "http://A.example/x", Version::HTTP_11, &[("host", "a.example")]),
        Ok(())
    );
    assert_eq!(check("OPTIONS", "*", Version::HTTP_11, &[("host", "a")]), Ok(()));
    assert_eq!(check("GET", "http://a/x", Version::HTTP_2, &[]), Ok(()));
    assert_eq!(check("GET", "//x/../y", Version::HTTP_11, &[("host", "a")]), Ok(()));
}

#[test]
fn hosts_that_have_two_readings_are_refused() {
    assert_eq!(check11(&[]), Err(BadRequest::HostMissing));
    assert_eq!(check("GET", "/", Version::HTTP_10, &[]), Ok(()), "RFC 9112 3.2 asks 1.1 alone");
    assert_eq!(check("GET", "http://a/", Version::HTTP_11, &[]), Err(BadRequest::HostMissing));
    assert_eq!(check11(&[("host", "a"), ("host", "a")]), Err(BadRequest::HostRepeated));
    for host in [
        "", "a b", "a, b", "a,b", "u@a", "a/../c", "[::1", "[]", "a:b", "a:123456", ":80", "a%2eb",
        "[::1]x", "a:1:2", "a;b",
    ] {
        assert_eq!(check11(&[("host", host)]), Err(BadRequest::HostMalformed), "{host}");
    }
    for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
        for lines in [&[][..], &[("host", "a")]] {
            assert_eq!(check("GET", "http://u@a/", version, lines), Err(BadRequest::HostMalformed));
        }
    }
    assert_eq!(
        check("GET", "http://evil/", Version::HTTP_2, &[("host", "a")]),
        Err(BadRequest::HostMismatch)
    );
    for lines in [[("host", "a"), ("host", "b")], [("host", "a b"), ("x", "y")]] {
        assert!(check("GET", "http://b/", Version::HTTP_11, &lines).is_err(), "{lines:?}");
    }
}

#[test]
fn the_target_names_the_host_and_the_default_port_goes_without_saying() {
    let settled = |uri: &str, version: Version, lines: &[(&str, &str)]| {
        let (uri, mut headers) = (uri.parse::<Uri>().unwrap(), map(lines));
        let method = Method::GET;
        check_request(&method, &uri, version, of(&headers)).unwrap();
        let fallback = || HeaderValue::from_static("fallback");
        let lacks = settle_host(&mut headers, &uri, version, fallback);
        let lines: Vec<_> = headers.get_all(HOST).iter().collect();
        assert!(lines.len() <= 1);
        (lines.first().map(|host| host.to_str().unwrap().to_owned()), lacks)
    };
    let of = |host: &str| (Some(host.to_owned()), false);
    assert_eq!(settled("http://b/x", Version::HTTP_11, &[("host", "a")]), of("b"));
    assert_eq!(settled("http://B:80/x", Version::HTTP_11, &[("host", "b")]), of("B:80"));
    assert_eq!(settled("http://b/x", Version::HTTP_10, &[]), of("b"));
    assert_eq!(settled("/x", Version::HTTP_11, &[("host", "a:80")]), of("a:80"));
    assert_eq!(settled("/x", Version::HTTP_10, &[]), (Some("fallback".to_owned()), true));
    assert_eq!(settled("http://a/x", Version::HTTP_2, &[]), (None, false));
    assert_eq!(settled("http://a:80/x", Version::HTTP_2, &[("host", "A")]), of("A"));
    for (authority, uri, short) in [
        ("a:80", "/", "a"),
        ("a:", "/", "a"),
        ("a:443", "/", "a:443"),
        ("a:8080", "/", "a:8080"),
        ("a:443", "https://a:443/", "a"),
        ("a:80", "https://a:80/", "a:80"),
        ("[::1]:80", "/", "[::1]"),
        ("[::80]", "/", "[::80]"),
    ] {
        assert_eq!(without_default_port(authority, &uri.parse().unwrap()), short);
    }
}

#[test]
fn targets_that_are_no_paths_are_refused() {
    for (method, target) in [
        ("GET", "*"),
        ("GET", "a"),
        ("GET", "a:80"),
        ("OPTIONS", "ftp://a/"),
        ("GET", "http://a?x"),
    ] {
        assert_eq!(
            check(method, target, Version::HTTP_11, &[("host", "a")]),
            Err(BadRequest::Target),
            "{method} {target}"
        );
    }
    assert_eq!(
        check("CONNECT", "a:80", Version::HTTP_11, &[("host", "a:80")]),
        Err(BadRequest::Connect)
    );
    assert_eq!(BadRequest::Connect.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[test]
fn framing_that_smuggles_is_refused() {
    for value in
        [",chunked", "gzip, chunked", "chunked, identity", "identity", "\"chunked\"", "chunked,"]
    {
        let lines = [("host", "a"), ("transfer-encoding", value)];
        assert_eq!(
            check("POST", "/", Version::HTTP_11, &lines),
            Err(BadRequest::TransferEncoding),
            "{value}"
        );
    }
    let twice = [("host", "a"), ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")];
    assert_eq!(check11(&twice), Err(BadRequest::TransferEncoding));
    assert_eq!(
        check("POST", "/", Version::HTTP_10, &twice[..2]),
        Err(BadRequest::TransferEncoding)
    );
    assert_eq!(check("POST", "/", Version::HTTP_2, &twice[..2]), Err(BadRequest::TransferEncoding));
    assert_eq!(
        check11(&[("host", "a"), ("transfer-encoding", "chunked"), ("content-length", "5")]),
        Err(BadRequest::TwoLengths)
    );
}

#[test]
fn other_expectations_are_417() {
    for value in ["x", "y 100-continue", "100-continue, x"] {
        assert_eq!(
            check11(&[("host", "a"), ("expect", value)]),
            Err(BadRequest::Expect),
            "{value}"
        );
    }
    assert_eq!(
        check11(&[("host", "a"), ("expect", "100-continue"), ("expect", "100-continue")]),
        Err(BadRequest::Expect)
    );
    assert_eq!(BadRequest::Expect.status(), StatusCode::EXPECTATION_FAILED);
}

#[test]
fn connection_cannot_name_end_to_end_headers() {
    for value in [
        "Host",
        "close, Content-Length",
        "TRANSFER-encoding",
        "cookie",
        ",,authorization,",
        "cache-control",
        "x-forwarded-proto",
    ] {
        assert_eq!(
            check11(&[("host", "a"), ("connection", value)]),
            Err(BadRequest::ConnectionOption),
            "{value}"
        );
    }
    assert_eq!(
        check11(&[("host", "a"), ("connection", "close"), ("connection", "Cookie")]),
        Err(BadRequest::ConnectionOption)
    );
    assert_eq!(
        check11(&[
            ("host", "a"),
            ("connection", "x-forwarded, http2-settings, proxy-authorization")
        ]),
        Ok(())
    );
}

#[test]
fn hop_by_hop_headers_and_what_connection_names_go() {
    let mut headers = map(&[
        ("connection", "X-One, keep-alive"),
        ("connection", "x-two,te"),
        ("x-one", "1"),
        ("x-two", "2"),
        ("x-three", "3"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("proxy-authorization", "x"),
        ("te", "gzip, trailers;q=0.5"),
        ("transfer-encoding", "chunked"),
        ("trailer", "x-sum"),
        ("upgrade", "h2c"),
        ("http2-settings", "x"),
    ]);
    strip_hop_by_hop(&mut headers);
    assert_eq!(headers, map(&[("x-three", "3"), ("te", "trailers"), ("trailer", "x-sum")]));

    let mut headers = map(&[("te", "gzip"), ("x-three", "3")]);
    strip_hop_by_hop(&mut headers);
    assert_eq!(headers, map(&[("x-three", "3")]));
}

#[test]
fn a_response_cannot_lose_its_no_store_to_connection() {
    let mut headers = map(&[
        ("connection", "cache-control, set-cookie"),
        ("cache-control", "no-store"),
        ("set-cookie", "a=b"),
    ]);
    prepare_response(&mut headers, Version::HTTP_11);
    assert_eq!(headers, map(&[("cache-control", "no-store"), ("via", "1.1 sidecache")]));
}

#[test]
fn a_strangers_word_about_itself_is_replaced() {
    let sent = [
        ("host", "a"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-forwarded-for", "10.0.0.2"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "b"),
        ("forwarded", "for=10.0.0.1"),
        ("x-real-ip", "10.0.0.1"),
        ("via", "1.1 first"),
    ];
    let host = HeaderValue::from_static("a");
    let mut headers = map(&sent);
    prepare_request(&mut headers, Version::HTTP_11, &host, &STRANGER, None, true);
    let expected = [
        ("host", "a"),
        ("x-forwarded-for", "192.0.2.7"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "a"),
        ("via", "1.1 first"),
        ("via", "1.1 sidecache"),
    ];
    assert_eq!(headers, map(&expected));

    let mut headers = map(&sent);
    prepare_request(&mut headers, Version::HTTP_10, &host, &PROXY, None, true);
    assert_eq!(headers["x-forwarded-for"], "10.0.0.1, 10.0.0.2, 192.0.2.7");
    assert_eq!(
        (&headers["x-forwarded-proto"], &headers["x-forwarded-host"]),
        (&HeaderValue::from_static("https"), &HeaderValue::from_static("b"))
    );
    assert!(headers.contains_key("forwarded") && headers.contains_key("x-real-ip"));
    assert_eq!(headers.get_all("via").iter().next_back().unwrap(), "1.0 sidecache");
}

#[test]
fn the_peer_of_a_socket_has_no_address_to_add() {
    let host = HeaderValue::from_static("a");
    let of = |trusted: bool, sent: &[(&str, &str)]| {
        let peer = ClientPeer { addr: PeerAddress::Unix, trusted };
        let mut headers = map(sent);
        prepare_request(&mut headers, Version::HTTP_11, &host, &peer, None, false);
        headers["x-forwarded-for"].to_str().unwrap().to_owned()
    };
    let chain = [("x-forwarded-for", "192.0.2.9, 10.0.0.2")];
    assert_eq!(of(true, &chain), "192.0.2.9, 10.0.0.2", "the proxy's word, and nothing else");
    for sent in [&[("x-forwarded-for", "127.0.0.1")][..], &[]] {
        assert_eq!(of(false, sent), NOBODYS_ADDRESS, "neither forged nor the sidecar's own");
    }
    for sent in [&[("x-forwarded-for", " ")][..], &[]] {
        assert_eq!(of(true, sent), NOBODYS_ADDRESS);
    }
}

#[test]
fn http2_requests_become_http1() {
    let mut headers = map(&[("cookie", "a=1"), ("cookie", "b=2"), ("te", "trailers")]);
    prepare_request(
        &mut headers,
        Version::HTTP_2,
        &HeaderValue::from_static("h:1"),
        &STRANGER,
        None,
        false,
    );
    assert_eq!(headers["cookie"], "a=1; b=2");
    assert_eq!(headers.get_all("cookie").iter().count(), 1);
    assert_eq!(
        (&headers["host"], &headers["te"]),
        (&HeaderValue::from_static("h:1"), &HeaderValue::from_static("trailers"))
    );
    assert!(!headers.contains_key("via"), "only where it is wanted");
}

#[test]
fn upgrades_are_seen_and_kept() {
    let websocket = map(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")]);
    let wanted = |headers: &HeaderMap, version| {
        let mut left = headers.clone();
        let offered = take_upgrade(&mut left, version, &Upgrades::default());
        assert_eq!(left.contains_key("upgrade"), offered.is_some(), "one that is refused is gone");
        offered
    };
    let protocol = wanted(&websocket, Version::HTTP_11).unwrap();
    assert_eq!(protocol, "websocket");
    let mut headers = websocket.clone();
    prepare_request(
        &mut headers,
        Version::HTTP_11,
        &HeaderValue::from_static("a"),
        &STRANGER,
        Some(&protocol),
        false,
    );
    assert_eq!(
        (&headers["connection"], &headers["upgrade"]),
        (&HeaderValue::from_static("upgrade"), &protocol)
    );

    assert_eq!(wanted(&websocket, Version::HTTP_10), None);
    assert_eq!(wanted(&websocket, Version::HTTP_2), None);
    assert_eq!(wanted(&map(&[("upgrade", "websocket")]), Version::HTTP_11), None);
    for refused in ["h2c", "H2C", "websocket, h2c", "TLS/1.0", "", ",", "spice", "websocket2"] {
        let headers = map(&[("connection", "upgrade"), ("upgrade", refused)]);
        assert_eq!(wanted(&headers, Version::HTTP_11), None, "{refused}");
    }
    let twice = [("connection", "upgrade"), ("upgrade", "websocket"), ("upgrade", "websocket")];
    assert_eq!(wanted(&map(&twice), Version::HTTP_11), None);
}

#[test]
fn the_operator_names_the_protocols_but_never_http_itself() {
    let allowed = Upgrades::new(["WebSocket", "spice/1", "h2c", "tls"]);
    let offered = |protocols: &str| {
        let headers = map(&[("connection", "upgrade"), ("upgrade", protocols)]);
        offered_upgrade(&headers, Version::HTTP_11, &allowed).is_some()
    };
    for protocols in ["websocket", "WEBSOCKET/13", "Spice/1", "spice/1 , websocket"] {
        assert!(offered(protocols), "{protocols}");
    }
    for protocols in ["spice", "spice/2", "h2c", "H2C", "TLS/1.3", "websocket, HTTP/2.0"] {
        assert!(!offered(protocols), "{protocols}");
    }
}

#[test]
fn a_connection_changes_to_what_was_offered_alone() {
    let offered = HeaderValue::from_static("websocket, spice/1");
    for (chosen, accepted) in [
        (&["WebSocket"][..], true),
        (&["spice/1"], true),
        (&["spice"], false),
        (&["h2c"], false),
        (&["websocket, h2c"], false),
        (&["websocket", "h2c"], false),
        (&[], false),
    ] {
        let lines: Vec<_> = chosen.iter().map(|line| ("upgrade", *line)).collect();
        assert_eq!(accepts_upgrade(&offered, &map(&lines)), accepted, "{chosen:?}");
    }
}

#[test]
fn ntlm_and_negotiate_log_in_a_connection() {
    for value in ["NTLM TlRMTVNTUAAB", "ntlm x", "Negotiate YII", "NEGOTIATE", "NTLM\tx", "NTLM,x"]
    {
        assert!(logs_in_connection(&map(&[("authorization", value)])), "{value}");
    }
    for value in ["Basic NTLM", "Bearer NTLM x", "Digest username=\"NTLM x\"", "NTLMx y", "", "x"] {
        assert!(!logs_in_connection(&map(&[("authorization", value)])), "{value}");
    }
    assert!(logs_in_connection(&map(&[("authorization", "Basic x"), ("authorization", "NTLM x")])));
    assert!(!logs_in_connection(&map(&[
        ("proxy-authorization", "NTLM x"),
        ("www-authenticate", "NTLM")
    ])));
}

#[test]
fn a_target_that_begins_with_its_query_gets_its_path() {
    for (target, whole) in [
        ("http://a.test?x", "http://a.test/?x"),
        ("http://a.test", "http://a.test/"),
        ("http://a.test/b?x", "http://a.test/b?x"),
        ("/b?x", "/b?x"),
        ("*", "*"),
    ] {
        let mut uri: Uri = target.parse().unwrap();
        complete_target(&mut uri);
        assert_eq!(uri.to_string(), whole, "{target}");
        assert!(uri.path_and_query().unwrap().as_str().starts_with(['/', '*']), "{target}");
    }
}

#[test]
fn trailers_cannot_carry_what_decides() {
    for name in [
        "content-length",
        "set-cookie",
        "x-forwarded-for",
        "www-authenticate",
        "age",
        "host",
        "vary",
    ] {
        assert!(is_forbidden_trailer(&HeaderName::from_static(name)), "{name}");
    }
    for name in ["grpc-status", "server-timing", "x-sum", "digest"] {
        assert!(!is_forbidden_trailer(&HeaderName::from_static(name)), "{name}");
    }
}

#[test]
fn networks_contain_their_addresses() {
    let within = |network: &str, addr: &str| {
        network.parse::<Network>().unwrap().contains(addr.parse().unwrap())
    };
    assert!(within("10.0.0.0/8", "10.255.0.1"));
    assert!(within("10.0.0.0/8", "::ffff:10.255.0.1"));
    assert!(within("::ffff:10.0.0.0/104", "10.255.0.1"));
    assert!(within("0.0.0.0/0", "192.0.2.1"));
    assert!(within("::/0", "2001:db8::1"));
    assert!(within("127.0.0.1", "127.0.0.1"));
    assert!(within("2001:db8::/32", "2001:db8:1::1"));
    assert!(!within("10.0.0.0/8", "11.0.0.0"));
    assert!(!within("127.0.0.1", "127.0.0.2"));
    assert!(!within("::/0", "192.0.2.1"));
    assert!(!within("2001:db8::/32", "2001:db9::1"));
}

#[test]
fn bad_networks_say_what_is_wrong() {
    let wrong = |text: &str| text.parse::<Network>().unwrap_err().to_string();
    assert_eq!(
        wrong("10.0.0.1/8"),
        "the address has bits set beyond its prefix; write `10.0.0.0/8` for the whole network"
    );
    assert_eq!(wrong("10.0.0.0/33"), "`/33` is not a prefix length; allowed is 0 to 32");
    assert_eq!(wrong("::/+8"), "`/+8` is not a prefix length; allowed is 0 to 128");
    assert!(wrong("localhost").starts_with("`localhost` is not an IP address"));
}

#[test]
fn one_look_finds_each_field_that_is_removed() {
    for name in HOP_BY_HOP.iter().chain([&CONNECTION, &TE, &EXPECT, &FORWARDED, &X_REAL_IP]) {
        let found = RemovedFields::in_head(&map(&[(name.as_str(), "a"), ("accept", "*/*")]));
        let is_found = match name.as_str() {
            "connection" => found.connection,
            "te" => found.te,
            "expect" => found.expect,
            "forwarded" | "x-real-ip" => found.address,
            _ => found.hop_by_hop,
        };
        assert!(is_found, "{name}");
    }
}
