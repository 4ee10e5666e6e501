//! Tests of requests with two lengths.

use super::*;

const PAIR: [&str; 2] = ["Content-Length: 6\r\n", "Transfer-Encoding: chunked\r\n"];

#[tokio::test]
async fn length_and_coding_together_are_refused_however_they_arrive() {
    let server = start(settings());
    for [first, second] in [PAIR, [PAIR[1], PAIR[0]]] {
        let message = format!("POST /a HTTP/1.1\r\nHost: a\r\n{first}{second}\r\n0\r\n\r\nX");
        for split in 0..message.len() {
            let mut stream = server.connect().await;
            stream.write_all(&message.as_bytes()[..split]).await.unwrap();
            // In two packets.
            tokio::time::sleep(Duration::from_millis(2)).await;
            stream.write_all(&message.as_bytes()[split..]).await.unwrap();
            let answer = rest(&mut stream).await;
            assert!(
                answer.starts_with("HTTP/1.1 400 ") && answer.contains("connection: close"),
                "split at {split}: {answer}"
            );
            assert_eq!(
                answer.matches("HTTP/1.1").count(),
                1,
                "what stands behind is not a request"
            );
        }
    }
    assert_eq!(server.calls(), 0);
    assert!(server.counters.framing_errors.get() > 100);
}

#[tokio::test]
async fn a_pipelined_message_with_both_is_refused_and_the_one_before_it_answered() {
    let server = start(settings());
    for before in [
        "GET /first HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /first HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n\r\nabc",
        "GET /first HTTP/1.1\nHost: a\n\n",
    ] {
        let message =
            format!("{before}POST /b HTTP/1.1\r\nHost: a\r\n{}{}\r\n0\r\n\r\n", PAIR[0], PAIR[1]);
        let answer = server.exchange(message.as_bytes()).await;
        assert!(
            answer.contains("/first ")
                && answer.contains("HTTP/1.1 400 ")
                && !answer.contains("/b "),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn behind_a_chunked_body_the_next_message_is_watched_again() {
    let server = start(settings());
    let mut stream = server.connect().await;
    stream
        .write_all(
            b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \
        chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        )
        .await
        .unwrap();
    until(&mut stream, "/a 3").await;
    stream
        .write_all(
            format!("POST /b HTTP/1.1\r\nHost: a\r\n{}{}\r\n0\r\n\r\n", PAIR[1], PAIR[0])
                .as_bytes(),
        )
        .await
        .unwrap();
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 400 "));
    assert_eq!(server.calls(), 1);
}

#[tokio::test]
async fn pipelined_behind_a_chunked_body_it_is_at_least_the_last_message() {
    let server = start(settings());
    let answer = server
        .exchange(
            b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nPOST /b \
                HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: \
                chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        )
        .await;
    assert!(!answer.contains("/smuggled"), "{answer}");
}

#[tokio::test]
async fn a_refused_client_that_keeps_sending_still_reads_its_answer() {
    let server = start(settings());
    let mut stream = server.connect().await;
    stream
        .write_all(format!("POST /a HTTP/1.1\r\nHost: a\r\n{}{}\r\n", PAIR[0], PAIR[1]).as_bytes())
        .await
        .unwrap();
    for _ in 0..20 {
        stream.write_all(&[b'x'; 1000]).await.unwrap();
        // The pace of a client that does not look.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 400 "));
}

#[tokio::test]
async fn chunked_alone_and_length_alone_are_fine() {
    let server = start(settings());
    let mut stream = server.connect().await;
    for round in 0..3 {
        stream
            .write_all(
                b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \
            chunked\r\n\r\n3\r\nabc\r\n4\r\n",
            )
            .await
            .unwrap();
        // In one packet, or in two.
        tokio::time::sleep(Duration::from_millis(round)).await;
        stream.write_all(b"defg\r\n0\r\n\r\n").await.unwrap();
        until(&mut stream, "/c 7").await;
        stream
            .write_all(b"POST /l HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel")
            .await
            .unwrap();
        // In one packet, or in two.
        tokio::time::sleep(Duration::from_millis(round)).await;
        stream.write_all(b"lo").await.unwrap();
        until(&mut stream, "/l 5").await;
    }
    assert_eq!(server.counters.framing_errors.get(), 0);
}

#[tokio::test]
async fn what_hyper_refuses_by_itself_stays_refused() {
    let server = start(settings());
    for fields in [
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: +5",
        "Transfer-Encoding: xchunked",
        "A : b",
        "A: b\r\n c",
        "A: \0",
    ] {
        let answer = server
            .exchange(format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n").as_bytes())
            .await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{fields:?}: {answer}");
    }
    assert_eq!(server.calls(), 0);
    while server.counters.head_errors.get() < 6 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
