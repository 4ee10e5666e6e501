//! Tests of apps that break off, stall, or are not there.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_get_fails_when_the_app_closes_connections_as_they_are_reused() {
    let address = app(|mut conn, number| async move {
        let mut turn = number as u64;
        while conn.head().await.is_some() {
            conn.say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            turn = turn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // Spun, not slept: the timer's millisecond is too coarse to meet the next request.
            for _ in 0..(turn >> 33) % 400 {
                tokio::task::yield_now().await;
            }
            if turn >> 63 == 0 {
                return;
            }
        }
    })
    .await;
    let (upstream, counters) = client(settings(address));
    for turn in 0..1000 {
        let response = upstream
            .send(&ConnectionChoice::Pooled, get())
            .await
            .unwrap_or_else(|error| panic!("{turn}: {error}"));
        assert_eq!(text(response).await, "ok");
        for _ in 0..(turn * 7) % 40 {
            tokio::task::yield_now().await;
        }
    }
    assert!(counters.retries.get() > 0, "the test met no closing connection");
}

#[tokio::test]
async fn a_post_that_may_have_been_read_is_not_sent_twice() {
    static POSTS: AtomicUsize = AtomicUsize::new(0);
    let address = app(|mut conn, _| async move {
        while let Some(head) = conn.head().await {
            if head.starts_with("POST") {
                POSTS.fetch_add(1, Ordering::SeqCst);
                return conn.reset();
            }
            conn.say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let (upstream, counters) = client(settings(address));
    text(upstream.send(&ConnectionChoice::Pooled, get()).await.unwrap()).await;
    let error = upstream
        .send(&ConnectionChoice::Pooled, request(Method::POST, Body::full("x")))
        .await
        .unwrap_err();
    assert!(matches!(error, UpstreamError::Broken(_)), "{error}");
    assert_eq!(
        (error.reason(), error.may_have_reached_origin()),
        (Reason::UpstreamProtocolError, true)
    );
    assert_eq!(
        (POSTS.load(Ordering::SeqCst), counters.reused.get(), counters.retries.get()),
        (1, 1, 0)
    );
}

#[tokio::test]
async fn a_get_is_sent_twice_at_most() {
    static GETS: AtomicUsize = AtomicUsize::new(0);
    let address = app(|mut conn, number| async move {
        conn.head().await;
        GETS.fetch_add(1, Ordering::SeqCst);
        if number == 0 {
            conn.say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            conn.head().await;
            GETS.fetch_add(1, Ordering::SeqCst);
        }
    })
    .await;
    let (upstream, counters) = client(settings(address));
    upstream.send(&ConnectionChoice::Pooled, get()).await.unwrap();
    let error = upstream.send(&ConnectionChoice::Pooled, get()).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Broken(_)), "{error}");
    assert_eq!(
        (GETS.load(Ordering::SeqCst), counters.retries.get(), counters.broken.get()),
        (3, 1, 1)
    );
}

#[tokio::test]
async fn an_app_that_is_not_there_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let (upstream, counters) = client(settings(address));
    let error = upstream.send(&ConnectionChoice::Pooled, get()).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Connect(_)), "{error}");
    assert_eq!(
        (error.reason(), error.may_have_reached_origin()),
        (Reason::UpstreamUnreachable, false)
    );
    assert_eq!((counters.unreachable.get(), counters.open.load(Ordering::Relaxed)), (1, 0));
}

#[tokio::test]
async fn an_app_that_does_not_answer_is_timed_out_and_not_asked_again() {
    static GETS: AtomicUsize = AtomicUsize::new(0);
    let address = app(|mut conn, _| async move {
        conn.head().await;
        conn.say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        while conn.head().await.is_some() {
            GETS.fetch_add(1, Ordering::SeqCst);
        }
    })
    .await;
    let (upstream, counters) = client(UpstreamSettings {
        first_byte_timeout: Duration::from_millis(80),
        ..settings(address)
    });
    upstream.send(&ConnectionChoice::Pooled, get()).await.unwrap();
    let error = upstream.send(&ConnectionChoice::Pooled, get()).await.unwrap_err();
    assert!(matches!(error, UpstreamError::FirstByteTimeout), "{error}");
    assert_eq!(
        (
            GETS.load(Ordering::SeqCst),
            counters.timeouts.get(),
            counters.open.load(Ordering::Relaxed)
        ),
        (1, 1, 0)
    );
}

#[tokio::test]
async fn an_upload_that_makes_progress_is_not_timed_out() {
    let address = app(|mut conn, _| async move {
        conn.head().await;
        while !conn.buffer.ends_with(b"0\r\n\r\n") {
            conn.socket.read_buf(&mut conn.buffer).await.unwrap();
        }
        conn.say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    })
    .await;
    let (upstream, _) = client(UpstreamSettings {
        first_byte_timeout: Duration::from_millis(150),
        ..settings(address)
    });
    let slow = futures_util::stream::unfold(0, |sent| async move {
        // The pace of the upload: shorter than the limit, and longer than it in all.
        tokio::time::sleep(Duration::from_millis(50)).await;
        (sent < 8).then(|| (Ok(Frame::data(Bytes::from_static(b"x"))), sent + 1))
    });
    assert_eq!(
        text(
            upstream
                .send(&ConnectionChoice::Pooled, request(Method::POST, stream(slow)))
                .await
                .unwrap()
        )
        .await,
        "ok"
    );
}

#[tokio::test]
async fn a_request_whose_body_breaks_is_never_completed() {
    let (seen, mut bytes) = tokio::sync::mpsc::unbounded_channel();
    let address = app(move |mut conn, _| {
        let seen = seen.clone();
        async move {
            conn.head().await;
            while matches!(conn.socket.read_buf(&mut conn.buffer).await, Ok(1..)) {}
            seen.send(conn.buffer).unwrap();
        }
    })
    .await;
    let (upstream, _) = client(settings(address));
    let frames: [Result<_, BodyError>; 2] =
        [Ok(Frame::data(Bytes::from_static(b"half"))), Err("the client left".into())];
    let error = upstream
        .send(
            &ConnectionChoice::Pooled,
            request(Method::POST, stream(futures_util::stream::iter(frames))),
        )
        .await
        .unwrap_err();
    assert!(matches!(error, UpstreamError::RequestBody(_)), "{error}");
    assert!(!bytes.recv().await.unwrap().ends_with(b"0\r\n\r\n"));
}

#[tokio::test]
async fn truncated_bodies_end_in_an_error_and_their_connection_is_not_used_again() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\n",
    ] {
        for pause in [0, 20] {
            let address = app(move |mut conn, _| async move {
                conn.head().await;
                let (head, body) = answer.split_once("ok").unwrap();
                conn.say(head).await;
                // In one packet, or in two.
                tokio::time::sleep(Duration::from_millis(pause)).await;
                conn.say(&format!("ok{body}")).await;
            })
            .await;
            let (upstream, counters) = client(settings(address));
            for turn in 1..3 {
                let response = upstream.send(&ConnectionChoice::Pooled, get()).await.unwrap();
                response.into_body().collect().await.unwrap_err();
                assert_eq!((counters.connects.get(), counters.broken.get()), (turn, turn));
            }
            assert_eq!(counters.open.load(Ordering::Relaxed), 0);
        }
    }
}

#[tokio::test]
async fn bytes_after_a_body_never_answer_the_next_request() {
    const EVIL: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
    // In one packet, or in two.
    for in_one in [true, false] {
        let said = Arc::new(tokio::sync::Semaphore::new(0));
        let saying = Arc::clone(&said);
        let address = app(move |mut conn, _| {
            let said = Arc::clone(&saying);
            async move {
                while conn.head().await.is_some() {
                    let more = if in_one { EVIL } else { "" };
                    let ok = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                    conn.say(&format!("{ok}{more}")).await;
                    if !in_one {
                        // The client reads between the two.
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        conn.say(EVIL).await;
                    }
                    said.add_permits(1);
                }
            }
        })
        .await;
        let (upstream, counters) = client(settings(address));
        for turn in 1..4 {
            assert_eq!(
                text(upstream.send(&ConnectionChoice::Pooled, get()).await.unwrap()).await,
                "ok"
            );
            // What was said over loopback is in the socket of the client.
            said.acquire().await.unwrap().forget();
            assert_eq!(counters.connects.get(), turn);
        }
    }
}

#[tokio::test]
async fn responses_with_two_readings_are_refused() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: \
        chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        "not http\r\n\r\n",
    ] {
        let (upstream, counters) = client(settings(steady(answer).await));
        let error = upstream.send(&ConnectionChoice::Pooled, get()).await.unwrap_err();
        assert!(matches!(error, UpstreamError::Broken(_)), "{answer}: {error}");
        assert_eq!(counters.open.load(Ordering::Relaxed), 0);
    }
}

#[tokio::test]
async fn a_body_that_falls_silent_is_broken_off_unless_it_is_an_event_stream() {
    for (kind, breaks) in [
        ("text/plain", true),
        ("text/event-streamer", true),
        ("text/event-stream; charset=utf-8", false),
        ("Text/Event-Stream; charset=utf-8", false),
    ] {
        let address = app(move |mut conn, _| async move {
            conn.head().await;
            conn.say(&format!(
                "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: \
                chunked\r\n\r\n2\r\nok\r\n"
            ))
            .await;
            // Silent for longer than the limit.
            tokio::time::sleep(Duration::from_millis(300)).await;
            conn.say("2\r\nok\r\n0\r\n\r\n").await;
        })
        .await;
        let (upstream, counters) = client(UpstreamSettings {
            idle_timeout: Duration::from_millis(60),
            ..settings(address)
        });
        let body = upstream
            .send(&ConnectionChoice::Pooled, get())
            .await
            .unwrap()
            .into_body()
            .collect()
            .await;
        assert_eq!((body.is_err(), counters.timeouts.get()), (breaks, u64::from(breaks)));
    }
}

#[tokio::test]
async fn the_app_notices_when_a_request_or_a_body_is_given_up() {
    let (left, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let address = app(move |mut conn, number| {
        let left = left.clone();
        async move {
            conn.head().await;
            if number == 0 {
                conn.say("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nok").await;
            }
            assert_eq!(conn.head().await, None);
            left.send(()).unwrap();
        }
    })
    .await;
    let (upstream, counters) = client(settings(address));
    let mut body = upstream.send(&ConnectionChoice::Pooled, get()).await.unwrap().into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "ok");
    drop(body);
    seen.recv().await.unwrap();
    tokio::time::timeout(
        Duration::from_millis(50),
        upstream.send(&ConnectionChoice::Pooled, get()),
    )
    .await
    .unwrap_err();
    seen.recv().await.unwrap();
    assert_eq!(counters.open.load(Ordering::Relaxed), 0);
}
