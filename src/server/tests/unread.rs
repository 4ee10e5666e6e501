//! Tests of heads that hyper refuses: each has an answer that says why, a line and a counter.

use super::*;

const NEVER: &str = "- - ";

/// Sends these bytes, and returns the answer, its body, and what the service logged.
async fn refused(server: &Server, bytes: &[u8]) -> (String, String, String) {
    let answer = server.exchange(bytes).await;
    let (head, body) = answer.rsplit_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    let logged = server.app.rejected.lock().pop().unwrap_or_default();
    (head.to_owned(), body.to_owned(), logged)
}

#[tokio::test]
async fn what_cannot_be_read_is_answered_with_the_rule_that_it_breaks() {
    let server = start(settings());
    let field = |field: &str| format!("PUT /f HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n").into_bytes();
    let cases: Vec<(Vec<u8>, &str, BadRequest)> = vec![
        (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03 a b\n".to_vec(), NEVER, BadRequest::Tls),
        (
            b"PROXY TCP4 192.0.2.7 127.0.0.1 1 2\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
            NEVER,
            BadRequest::ProxyProtocol,
        ),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec(), NEVER, BadRequest::ProxyProtocol),
        (b"PRI * HTTP/2.0\r\n\r\nSMX\r\n\r\n".to_vec(), "PRI * ", BadRequest::Http2Preface),
        (b"G@T /a HTTP/1.1\r\n\r\n".to_vec(), NEVER, BadRequest::MethodMalformed),
        (b"GET /a\x7fb HTTP/1.1\r\n\r\n".to_vec(), "GET /a\x7fb ", BadRequest::Target),
        (b"GET /a\0 HTTP/1.1\r\n\r\n".to_vec(), "GET /a\0 ", BadRequest::Target),
        (b"GET /a b HTTP/1.1\r\n\r\n".to_vec(), "GET /a ", BadRequest::HttpVersion),
        (b"GET /a HTTP/3.0\r\n\r\n".to_vec(), "GET /a ", BadRequest::HttpVersion),
        (b"GET http://[/ HTTP/1.1\r\n\r\n".to_vec(), "GET http://[/ ", BadRequest::Target),
        (field("A : b"), "PUT /f ", BadRequest::FieldMalformed),
        (field("A: b\r\n c"), "PUT /f ", BadRequest::FieldMalformed),
        (field("A: \0"), "PUT /f ", BadRequest::FieldMalformed),
        (field("\u{fc}: a"), "PUT /f ", BadRequest::FieldMalformed),
        (field("Content-Length: +5"), "PUT /f ", BadRequest::LengthMalformed),
        (field("Content-Length: 5\r\nContent-Length: 6"), "PUT /f ", BadRequest::LengthMalformed),
        (field("Transfer-Encoding: xchunked"), "PUT /f ", BadRequest::TransferEncoding),
        (field(&"a: b\r\n".repeat(101)), "PUT /f ", BadRequest::TooManyFields),
        (field(&format!("a: {}", "b".repeat(70_000))), "PUT /f ", BadRequest::HeadTooLarge),
        (
            b"PUT /f HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
            "PUT /f ",
            BadRequest::TransferEncoding,
        ),
    ];
    let mut malformed = 0;
    for (bytes, named, why) in cases {
        let (head, body, logged) = refused(&server, &bytes).await;
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        let status = format!("HTTP/1.1 {} ", why.status().as_u16());
        assert!(head.starts_with(&status), "{shown:?}: {head}");
        assert!(head.contains("connection: close"), "{shown:?}: {head}");
        assert_eq!(body, why.as_str(), "{shown:?}");
        assert_eq!(logged, format!("{named}{}", why.as_str()), "{shown:?}");
        malformed += u64::from(why.status() == StatusCode::BAD_REQUEST);
    }
    assert_eq!(server.calls(), 0);
    assert_eq!(server.counters.head_errors.get(), malformed);
    assert_eq!(server.counters.crowded_heads.get(), 1);
    assert_eq!(server.counters.large_heads.get(), 1);
    let closed = async {
        while server.counters.open.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), closed).await.expect("a place is lost");
}

#[tokio::test]
async fn a_target_that_is_too_long_is_a_414() {
    let server = start(ServerSettings { max_header_bytes: 256 * 1024, ..settings() });
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(66_000));
    let (head, body, logged) = refused(&server, long.as_bytes()).await;
    assert!(head.starts_with("HTTP/1.1 414 "), "{head}");
    assert_eq!(body, BadRequest::TargetTooLong.as_str());
    assert!(logged.len() < 300, "a line is not as long as what a stranger sends");
    assert_eq!(server.counters.large_heads.get(), 1);
}

#[tokio::test]
async fn behind_other_requests_it_is_answered_as_well_and_nothing_behind_it_is_served() {
    let server = start(settings());
    let bad = "GET /b HTTP/1.1\r\nA : b\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore";
    for (bad, why) in [(bad, BadRequest::FieldMalformed), (preface, BadRequest::Http2Preface)] {
        for first in [
            "GET /first HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST /first HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
            "POST /first HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "HEAD /first HTTP/1.1\r\nHost: a\r\n\r\n",
        ] {
            let called = server.calls();
            // In one packet, and in two.
            let answer = server.exchange(format!("{first}{bad}").as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            assert_eq!(answer.matches("HTTP/1.1 400 ").count(), 1, "{answer}");
            assert!(answer.ends_with(why.as_str()), "{answer}");
            let mut stream = server.connect().await;
            stream.write_all(first.as_bytes()).await.unwrap();
            server.until_called(called + 2).await;
            stream.write_all(bad.as_bytes()).await.unwrap();
            let answer = rest(&mut stream).await;
            assert!(answer.ends_with(why.as_str()) && !answer.contains("smuggled"), "{answer}");
            assert_eq!(server.calls(), called + 2);
        }
    }
    let logged = server.app.rejected.lock().clone();
    assert_eq!(logged.len(), 16);
    assert_eq!(server.counters.head_errors.get(), 16);
    assert!(
        logged.iter().all(|line| line.starts_with("- - ") || !line.contains("smuggled")),
        "the line names the request that was refused, or none: {logged:?}"
    );
}

#[tokio::test]
async fn however_it_arrives_the_answer_is_the_same() {
    let server = start(settings());
    let bytes = b"\r\nGET /path HTTP/1.1\r\nHost: a\r\nBad name: b\r\n\r\n";
    for split in 0..bytes.len() {
        let mut stream = server.connect().await;
        stream.write_all(&bytes[..split]).await.unwrap();
        // In two packets.
        tokio::time::sleep(Duration::from_millis(2)).await;
        // hyper refuses it before its end, so that there may be nobody to write to.
        let _ = stream.write_all(&bytes[split..]).await;
        let answer = rest(&mut stream).await;
        assert!(
            answer.ends_with(BadRequest::FieldMalformed.as_str()),
            "split at {split}: {answer}"
        );
        let logged = server.app.rejected.lock().pop().unwrap();
        assert!(logged.starts_with("GET /path "), "split at {split}: {logged}");
    }
}

#[tokio::test]
async fn a_head_request_gets_no_body_and_a_half_closed_client_its_answer() {
    let server = start(settings());
    let (head, body, _) = refused(&server, b"HEAD /a HTTP/1.1\r\nA : b\r\n\r\n").await;
    let length = BadRequest::FieldMalformed.as_str().len();
    assert!(head.contains(&format!("content-length: {length}")), "{head}");
    assert_eq!(body, "");
    let mut stream = server.connect().await;
    stream.write_all(b"GET / HTTP/9.9\r\n\r\n").await.unwrap();
    stream.shutdown().await.unwrap();
    assert!(rest(&mut stream).await.ends_with(BadRequest::HttpVersion.as_str()));
}

#[tokio::test]
async fn a_client_that_leaves_in_a_head_is_no_bad_request() {
    let server = start(settings());
    for part in [&b""[..], b"GET /a HT", b"GET /a HTTP/1.1\r\nHost: a\r\n"] {
        let mut stream = server.connect().await;
        stream.write_all(part).await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(rest(&mut stream).await, "");
    }
    assert_eq!(server.counters.head_errors.get(), 0);
    assert_eq!(server.app.rejected.lock().len(), 0);
}

#[tokio::test]
async fn too_many_fields_over_http2_are_refused_like_others() {
    let server = start(ServerSettings { max_headers: 5, ..settings() });
    let io = hyper_util::rt::TokioIo::new(server.connect().await);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    tokio::spawn(connection);
    let mut crowded = Request::get("http://a/x").body(Body::empty()).unwrap();
    for _ in 0..6 {
        crowded.headers_mut().append("x", "y".parse().unwrap());
    }
    let response = sender.send_request(crowded).await.unwrap();
    assert_eq!(response.status(), 431);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, BadRequest::TooManyFields.as_str());
    assert_eq!(server.counters.crowded_heads.get(), 1);
}

#[tokio::test]
async fn http2_that_ends_the_connection_is_counted() {
    let server = start(settings());
    let mut stream = server.connect().await;
    // A DATA frame on stream 0.
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    stream.write_all(b"\0\0\0\x04\0\0\0\0\0\0\0\x01\0\0\0\0\0\0x").await.unwrap();
    let mut bytes = Vec::new();
    // The server may reset the connection.
    let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut bytes)).await;
    let counted = async {
        while server.counters.http2_errors.get() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), counted).await.expect("it is not counted");
    assert_eq!(server.counters.head_errors.get(), 0);
}
