//! Tests of the end: what is under way finishes, what takes too long is cut.

use super::*;

#[tokio::test]
async fn a_request_under_way_finishes_and_idle_connections_close_soon() {
    let server = start(settings());
    let mut busy = server.connect().await;
    busy.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut idle = server.connect().await;
    idle.write_all(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    until(&mut idle, "/x 0").await;
    let mut silent = server.connect().await;
    server.until_called(2).await;
    while server.counters.open.load(Ordering::SeqCst) < 3 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    server.shutdown.cancel();
    assert_eq!(rest(&mut idle).await, "");
    assert_eq!(rest(&mut silent).await, "");
    assert!(TcpStream::connect(server.address).await.is_err(), "nobody listens any more");
    server.app.go.add_permits(1);
    let answer = rest(&mut busy).await;
    assert!(answer.ends_with("slow") && answer.contains("connection: close"), "{answer}");
    let drained = server.done.await.unwrap();
    assert!(drained.is_clean() && drained.duration < Duration::from_secs(5), "{drained:?}");
}

#[tokio::test]
async fn a_request_that_was_on_its_way_is_answered_and_is_the_last_of_its_connection() {
    let server = start(settings());
    let mut kept = server.connect().await;
    kept.write_all(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    until(&mut kept, "/x 0").await;
    let mut silent = server.connect().await;
    server.shutdown.cancel();
    while TcpStream::connect(server.address).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    kept.write_all(b"POST /y HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    let answer = rest(&mut kept).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"), "{answer}");
    assert_eq!(rest(&mut silent).await, "");
    assert!(server.done.await.unwrap().is_clean());
}

#[tokio::test]
async fn a_half_sent_head_does_not_hold_it() {
    let server = start(settings());
    let mut fresh = server.connect().await;
    fresh.write_all(b"GET /x HTTP/1.1\r\nHo").await.unwrap();
    let mut warm = server.connect().await;
    warm.write_all(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\nGET /x HT").await.unwrap();
    until(&mut warm, "/x 0").await;
    // Half a head that has been read shows nowhere.
    tokio::time::sleep(Duration::from_millis(50)).await;
    server.shutdown.cancel();
    let drained = server.done.await.unwrap();
    assert!(drained.is_clean() && drained.duration < Duration::from_secs(3), "{drained:?}");
}

#[tokio::test]
async fn what_outlasts_the_grace_is_cut_and_counted() {
    let server = start(ServerSettings { drain: Duration::from_millis(200), ..settings() });
    let mut stream = server.connect().await;
    stream.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    server.until_called(1).await;
    server.tasks.spawn(std::future::pending::<()>());
    server.shutdown.cancel();
    let drained = server.done.await.unwrap();
    assert_eq!((drained.connections, drained.tasks), (1, 1));
    assert!(
        drained.duration >= Duration::from_millis(200) && drained.duration < Duration::from_secs(2),
        "{drained:?}"
    );
    assert_eq!(server.counters.aborted.get(), 1);
    assert_eq!(rest(&mut stream).await, "");
}

#[tokio::test]
async fn tasks_are_waited_for_too() {
    let server = start(settings());
    // How long the task takes.
    server.tasks.spawn(tokio::time::sleep(Duration::from_millis(300)));
    server.shutdown.cancel();
    let drained = server.done.await.unwrap();
    assert!(drained.is_clean() && drained.duration >= Duration::from_millis(290), "{drained:?}");
}

#[tokio::test]
async fn an_http2_request_under_way_finishes() {
    let server = start(settings());
    let io = hyper_util::rt::TokioIo::new(server.connect().await);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(hyper_util::rt::TokioExecutor::new(), io)
            .await
            .unwrap();
    tokio::spawn(connection);
    let request = Request::get("http://a/slow").body(Body::empty()).unwrap();
    let response = tokio::spawn(sender.send_request(request));
    server.until_called(1).await;
    server.shutdown.cancel();
    // That the request is not cut off shows only in time.
    tokio::time::sleep(Duration::from_millis(50)).await;
    server.app.go.add_permits(1);
    let body = response.await.unwrap().unwrap().into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "slow");
    assert!(server.done.await.unwrap().is_clean());
}

/// A server whose streams end at once, and its drain after `drain`.
fn ending_streams(drain: Duration) -> Server {
    start(ServerSettings { drain, stream_drain: Duration::from_millis(1500), ..settings() })
}

#[tokio::test]
async fn an_event_stream_ends_as_if_its_origin_had_ended_it() {
    let server = ending_streams(Duration::from_secs(20));
    let mut events = server.connect().await;
    events.write_all(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    until(&mut events, "data: 1\n\n\r\n").await;
    server.shutdown.cancel();
    assert_eq!(rest(&mut events).await, "0\r\n\r\n", "the end of a chunked body");
    let drained = server.done.await.unwrap();
    assert!(drained.is_clean() && drained.duration < Duration::from_secs(10), "{drained:?}");
    assert_eq!((server.counters.streams_ended.get(), server.counters.aborted.get()), (1, 0));
}

#[tokio::test]
async fn a_silent_response_is_broken_off_and_one_that_flows_goes_on() {
    let server = ending_streams(Duration::from_secs(20));
    let mut silent = server.connect().await;
    silent.write_all(b"GET /silent HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut flowing = server.connect().await;
    flowing.write_all(b"GET /flowing HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    until(&mut silent, "data: 1\n\n\r\n").await;
    until(&mut flowing, "data: 1\n\n\r\n").await;
    server.shutdown.cancel();
    assert_eq!(rest(&mut silent).await, "", "nobody takes it for whole");
    let pieces = rest(&mut flowing).await;
    assert!(pieces.ends_with("0\r\n\r\n"), "{pieces}");
    assert_eq!(pieces.matches("data").count(), 59);
    assert!(server.done.await.unwrap().is_clean());
    assert_eq!(server.counters.streams_ended.get(), 1);
}

#[tokio::test]
async fn an_http2_stream_ends_too() {
    let server = ending_streams(Duration::from_secs(20));
    let io = hyper_util::rt::TokioIo::new(server.connect().await);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(hyper_util::rt::TokioExecutor::new(), io)
            .await
            .unwrap();
    tokio::spawn(connection);
    let request = Request::get("http://a/events").body(Body::empty()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    server.shutdown.cancel();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "data: 1\n\n");
    let drained = server.done.await.unwrap();
    assert!(drained.is_clean() && drained.duration < Duration::from_secs(10), "{drained:?}");
}

#[tokio::test]
async fn it_is_settled_once_no_request_can_begin() {
    let server = start(settings());
    let mut busy = server.connect().await;
    busy.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut idle = server.connect().await;
    idle.write_all(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    until(&mut idle, "/x 0").await;
    server.until_called(2).await;
    server.shutdown.cancel();
    let settled = server.signals.settled.cancelled();
    tokio::time::timeout(Duration::from_secs(10), settled).await.expect("it is settled");
    assert!(!server.done.is_finished(), "a request is still in progress");
    assert_eq!(rest(&mut idle).await, "", "another one could have begun here");
    server.app.go.add_permits(1);
    assert!(rest(&mut busy).await.ends_with("slow"));
}
