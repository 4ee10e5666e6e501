//! Tests of what strangers are held to: time, size and number.

use super::*;

const SHORT: Duration = Duration::from_millis(300);
const GET: &[u8] = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn a_head_that_drips_is_cut_off_at_its_limit() {
    let server = start(ServerSettings { header_timeout: SHORT, ..settings() });
    for warm in [false, true] {
        let mut stream = server.connect().await;
        if warm {
            stream.write_all(GET).await.unwrap();
            until(&mut stream, "/x 0").await;
        }
        let began = Clock::system().now();
        for byte in b"GET /y HTTP/1.1\r\nHost: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" {
            if stream.write_all(&[*byte]).await.is_err() {
                break;
            }
            // The head drips.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let _ = stream.read(&mut [0; 10]).await;
        assert!(began.elapsed() > SHORT);
    }
    assert_eq!(server.counters.header_timeouts.get(), 2);
    assert_eq!(server.counters.idle_closed.get(), 0);
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed_and_one_that_waits_for_its_answer_is_not() {
    let server = start(ServerSettings { idle_timeout: SHORT, header_timeout: SHORT, ..settings() });
    let mut silent = server.connect().await;
    let mut used = server.connect().await;
    used.write_all(GET).await.unwrap();
    until(&mut used, "/x 0").await;
    let mut waiting = server.connect().await;
    waiting.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert_eq!(rest(&mut silent).await, "");
    assert_eq!(rest(&mut used).await, "");
    // That it is not closed while it waits shows only in time.
    tokio::time::sleep(SHORT).await;
    server.app.go.add_permits(1);
    until(&mut waiting, "slow").await;
    waiting.write_all(GET).await.unwrap();
    until(&mut waiting, "/x 0").await;
    assert_eq!(rest(&mut waiting).await, "");
    assert_eq!(server.counters.idle_closed.get(), 3);
    assert_eq!(server.counters.open.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_body_that_stalls_is_told_to_the_service() {
    let server = start(ServerSettings { body_timeout: SHORT, ..settings() });
    let mut stream = server.connect().await;
    stream
        .write_all(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc")
        .await
        .unwrap();
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 408 "));
    assert_eq!(server.counters.body_timeouts.get(), 1);
}

#[tokio::test]
async fn a_body_that_drips_within_the_limit_is_read_to_its_end() {
    let server = start(ServerSettings {
        body_timeout: SHORT,
        header_timeout: SHORT,
        idle_timeout: SHORT,
        ..settings()
    });
    let mut stream = server.connect().await;
    stream.write_all(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n").await.unwrap();
    for _ in 0..10 {
        // The body drips.
        tokio::time::sleep(SHORT / 3).await;
        stream.write_all(b"x").await.unwrap();
    }
    until(&mut stream, "/x 10").await;
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_cut_off_and_a_slow_one_is_not() {
    let server =
        start(ServerSettings { write_timeout: SHORT * 2, idle_timeout: SHORT, ..settings() });
    let mut dead = server.connect().await;
    dead.write_all(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut slow = server.connect().await;
    slow.write_all(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let (mut taken, mut buffer) = (0, vec![0; 1 << 20]);
    while taken < 32 << 20 {
        let n = slow.read(&mut buffer).await.unwrap();
        assert!(n > 0, "cut off after {taken}");
        taken += n;
        // A slow reader.
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    assert_eq!(server.counters.write_timeouts.get(), 1);
    drop(dead);
}

#[tokio::test]
async fn too_many_or_too_large_headers_get_431() {
    let server = start(settings());
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "x: y\r\n".repeat(101));
    assert!(server.exchange(many.as_bytes()).await.starts_with("HTTP/1.1 431 "));
    let large = format!("GET / HTTP/1.1\r\nHost: a\r\nx: {}\r\n\r\n", "y".repeat(70_000));
    assert!(server.exchange(large.as_bytes()).await.starts_with("HTTP/1.1 431 "));
    assert_eq!(server.calls(), 0);
    assert_eq!(server.counters.crowded_heads.get(), 1);
    assert_eq!(server.counters.large_heads.get(), 1);
    assert_eq!(server.counters.head_errors.get(), 0);
}

#[tokio::test]
async fn fewer_headers_can_be_allowed() {
    let server = start(ServerSettings { max_headers: 3, ..settings() });
    let head = |n| format!("GET /x HTTP/1.1\r\nConnection: close\r\n{}\r\n", "x: y\r\n".repeat(n));
    assert!(server.exchange(head(2).as_bytes()).await.starts_with("HTTP/1.1 200 "));
    assert!(server.exchange(head(3).as_bytes()).await.starts_with("HTTP/1.1 431 "));
}

#[tokio::test]
async fn a_full_server_says_so_and_takes_the_next_when_one_leaves() {
    let server = start(ServerSettings { max_connections: 2, ..settings() });
    let (mut first, mut second) = (server.connect().await, server.connect().await);
    for stream in [&mut first, &mut second] {
        stream.write_all(GET).await.unwrap();
        until(stream, "/x 0").await;
    }
    let answer = server.exchange(GET).await;
    assert!(
        answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n")
            && answer.contains("connection: close"),
        "{answer}"
    );
    assert!(answer.ends_with("too many connections"));
    assert_eq!(server.counters.refused_full.get(), 1);
    drop(first);
    while server.counters.open.load(Ordering::SeqCst) > 1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut third = server.connect().await;
    third.write_all(GET).await.unwrap();
    until(&mut third, "/x 0").await;
    assert_eq!(server.calls(), 3);
}

#[tokio::test]
async fn an_http2_connection_without_a_request_is_closed() {
    let server = start(ServerSettings { idle_timeout: SHORT, ..settings() });
    let stream = server.connect().await;
    let io = hyper_util::rt::TokioIo::new(stream);
    let (sender, connection) = hyper::client::conn::http2::handshake::<_, _, Body>(
        hyper_util::rt::TokioExecutor::new(),
        io,
    )
    .await
    .unwrap();
    tokio::time::timeout(Duration::from_secs(10), connection)
        .await
        .expect("the server did not close")
        .unwrap();
    assert_eq!(server.counters.idle_closed.get(), 1);
    drop(sender);
}
