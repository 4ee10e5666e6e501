//! Tests of what becomes of a connection after an exchange: who may be next on it.

use std::io::{Read as _, Write as _};

use super::*;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const EMPTY: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// What has arrived by now, without a chance for the runtime to report it.
#[tokio::test]
async fn bytes_that_nobody_has_reported_yet_are_seen_as_well() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (go, waits) = std::sync::mpsc::channel::<()>();
    let (said, sent) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        let read_head = |socket: &mut std::net::TcpStream| {
            let (mut bytes, mut byte) = (Vec::new(), [0]);
            while !bytes.ends_with(b"\r\n\r\n") {
                socket.read_exact(&mut byte).unwrap();
                bytes.extend(byte);
            }
        };
        let (mut first, _) = listener.accept().unwrap();
        read_head(&mut first);
        first.write_all(OK.as_bytes()).unwrap();
        waits.recv().unwrap();
        first.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nunasked").unwrap();
        said.send(()).unwrap();
        let (mut second, _) = listener.accept().unwrap();
        read_head(&mut second);
        second.write_all(OK.as_bytes()).unwrap();
        let _ = second.read(&mut [0]);
    });
    let (upstream, counters) = client(settings(address));
    let choice = ConnectionChoice::Pooled;
    assert_eq!(text(upstream.send(&choice, get()).await.unwrap()).await, "ok");
    go.send(()).unwrap();
    // This thread, which is the runtime's only one, learns of it in no other way.
    sent.recv().unwrap();
    assert_eq!(text(upstream.send(&choice, get()).await.unwrap()).await, "ok");
    assert_eq!((counters.connects.get(), counters.reused.get()), (2, 0));
}

#[tokio::test]
async fn a_connection_is_used_again_after_a_body_only_where_bodies_are_read() {
    let post = |body: &'static str| request(Method::POST, Body::full(body));
    let refusing = "HTTP/1.1 413 No\r\ncontent-length: 0\r\n\r\n";
    for (request, answer, reuse_after_body, again) in [
        (post("x"), EMPTY, true, true),
        (post("x"), OK, true, true),
        (request(Method::PATCH, Body::full("x")), OK, true, true),
        (request(Method::PUT, stream(futures_util::stream::empty())), OK, true, true),
        (post(""), OK, false, true),
        (post("x"), OK, false, false),
        (post("x"), refusing, true, false),
        (post(""), refusing, true, true),
        (request(Method::GET, Body::full("x")), OK, true, false),
        (request(Method::DELETE, stream(futures_util::stream::empty())), EMPTY, true, false),
        (request(Method::OPTIONS, Body::full("x")), EMPTY, true, false),
        (request(Method::from_bytes(b"SEARCH").unwrap(), Body::full("x")), OK, true, false),
    ] {
        let case = format!("{} {answer:?} {reuse_after_body}", request.method());
        let address = app(move |mut conn, _| async move {
            while let Some(head) = conn.head().await {
                let body = usize::from(head.contains("content-length: 1"));
                let chunked = if head.contains("chunked") { 5 } else { 0 };
                while conn.buffer.len() < body + chunked {
                    if conn.socket.read_buf(&mut conn.buffer).await.unwrap() == 0 {
                        return;
                    }
                }
                conn.buffer.drain(..body + chunked);
                conn.say(answer).await;
            }
        })
        .await;
        let (upstream, counters) =
            client(UpstreamSettings { reuse_after_body, ..settings(address) });
        for request in [request, get()] {
            text(upstream.send(&ConnectionChoice::Pooled, request).await.unwrap()).await;
        }
        assert_eq!(counters.reused.get(), u64::from(again), "{case}");
    }
}

/// Django under waitress sends the body with a HEAD. Where it came late, it was the response to
/// whoever was next on the connection: a 502, or what the body says.
#[tokio::test]
async fn a_connection_is_not_used_again_after_a_head() {
    let body = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nother";
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
    let address = app(move |mut conn, _| {
        let head = head.clone();
        async move {
            let mut late = "";
            while let Some(request) = conn.head().await {
                if request.starts_with("HEAD ") {
                    conn.say(&head).await;
                    late = body;
                } else {
                    conn.say(late).await;
                    conn.say(OK).await;
                }
            }
        }
    })
    .await;
    let (upstream, counters) = client(settings(address));
    let choice = ConnectionChoice::Pooled;
    for _ in 0..2 {
        let head = request(Method::HEAD, Body::full(""));
        assert_eq!(text(upstream.send(&choice, head).await.unwrap()).await, "");
        assert_eq!(text(upstream.send(&choice, get()).await.unwrap()).await, "ok");
    }
    // The second HEAD takes the connection of the first GET.
    assert_eq!((counters.connects.get(), counters.reused.get()), (3, 1));
}

#[tokio::test]
async fn a_response_before_the_end_of_the_request_ends_the_connection() {
    // Larger than what the kernel takes in for an origin that does not read.
    let length: usize = 32 << 20;
    for streamed in [false, true] {
        // The whole response comes early, or its end comes when the origin has read everything.
        for (answer, end) in [(EMPTY, ""), (OK, ""), (OK.strip_suffix('k').unwrap(), "k")] {
            let address = app(move |mut conn, number| async move {
                conn.head().await;
                conn.say(if number == 0 { answer } else { OK }).await;
                let mut left = length.saturating_sub(conn.buffer.len());
                while number == 0 && left > 0 {
                    conn.buffer.clear();
                    match conn.socket.read_buf(&mut conn.buffer).await {
                        Ok(read) if read > 0 => left -= read.min(left),
                        _ => return,
                    }
                }
                conn.say(if number == 0 { end } else { "" }).await;
                while conn.head().await.is_some() {
                    conn.say(OK).await;
                }
            })
            .await;
            // On a machine with other work it takes long.
            let patience = Duration::from_mins(1);
            let (upstream, counters) = client(UpstreamSettings {
                first_byte_timeout: patience,
                idle_timeout: patience,
                ..settings(address)
            });
            let body = if streamed {
                let piece = Bytes::from(vec![b'x'; 1 << 20]);
                let pieces = std::iter::repeat_n(piece, length >> 20);
                stream(futures_util::stream::iter(pieces.map(|piece| Ok(Frame::data(piece)))))
            } else {
                Body::full(vec![b'x'; length])
            };
            let post = request(Method::POST, body);
            text(upstream.send(&ConnectionChoice::Pooled, post).await.unwrap()).await;
            text(upstream.send(&ConnectionChoice::Pooled, get()).await.unwrap()).await;
            assert_eq!(
                (counters.connects.get(), counters.reused.get()),
                (2, 0),
                "{streamed} {answer:?} {end}"
            );
        }
    }
}

#[tokio::test]
async fn a_connection_that_is_pinned_serves_its_client_alone() {
    let (upstream, counters) = client(UpstreamSettings {
        keep_alive: Duration::from_millis(100),
        reuse_after_body: false,
        ..settings(steady(OK).await)
    });
    let (pinned, open) =
        (|| counters.pinned.load(Ordering::Relaxed), || counters.open.load(Ordering::Relaxed));
    let choice = ConnectionChoice::Pinned(upstream.pin());
    for request in
        [get(), request(Method::POST, Body::full("x")), request(Method::GET, Body::full("x"))]
    {
        text(upstream.send(&choice, request).await.unwrap()).await;
        // Longer than others may be idle.
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    // What the origin does not read of a body is its client's own trouble.
    assert_eq!((pinned(), open(), counters.idle.load(Ordering::Relaxed)), (1, 1, 0));
    text(upstream.send(&ConnectionChoice::Pooled, get()).await.unwrap()).await;
    assert_eq!(counters.connects.get(), 2, "another client has another connection");
    drop(choice);
    assert_eq!(pinned(), 0, "it ends with its client");
}

#[tokio::test]
async fn clients_take_at_most_half_of_the_connections() {
    let (upstream, counters) =
        client(UpstreamSettings { max_connections: 2, ..settings(steady(OK).await) });
    let choices: Vec<_> = (0..3).map(|_| ConnectionChoice::Pinned(upstream.pin())).collect();
    for choice in &choices {
        text(upstream.send(choice, get()).await.unwrap()).await;
    }
    assert_eq!((counters.pins_rejected.get(), counters.pinned.load(Ordering::Relaxed)), (2, 1));
    for _ in 0..5 {
        text(upstream.send(&ConnectionChoice::Pooled, get()).await.unwrap()).await;
    }
    assert_eq!(counters.busy.get(), 0);
}
