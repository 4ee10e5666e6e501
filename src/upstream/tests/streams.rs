//! Tests of what flows: large bodies, tunnels, trailers, TLS.

use http::header::{CONNECTION, UPGRADE};
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;

use super::*;

const CHUNK: usize = 64 * 1024;
const CHUNKS: usize = 1024;

/// 64 MiB that are made as they are asked for, and the number made so far.
fn big() -> (Body, Arc<AtomicUsize>) {
    let made = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&made);
    let chunk = Bytes::from(vec![b'x'; CHUNK]);
    let frames = futures_util::stream::unfold(0, move |sent| {
        let (count, chunk) = (Arc::clone(&count), chunk.clone());
        async move {
            (sent < CHUNKS).then(|| {
                count.fetch_add(1, Ordering::SeqCst);
                (Ok(Frame::data(chunk)), sent + 1)
            })
        }
    });
    (stream(frames), made)
}

#[tokio::test]
async fn a_big_body_flows_up_and_down_with_backpressure() {
    // Echoes the chunked body as it comes, answering before it has read any of it.
    let address = app(|mut conn, _| async move {
        conn.head().await;
        conn.say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        let early = std::mem::take(&mut conn.buffer);
        conn.socket.write_all(&early).await.unwrap();
        let (mut from, mut to) = conn.socket.split();
        drop(tokio::io::copy(&mut from, &mut to).await);
    })
    .await;
    let (upstream, counters) = client(settings(address));
    let (body, made) = big();
    let mut down = upstream
        .send(&ConnectionChoice::Pooled, request(Method::POST, body))
        .await
        .unwrap()
        .into_body();
    // Nobody reads: the upload fills the buffers on the way and stops.
    let mut before = usize::MAX;
    while before != made.load(Ordering::SeqCst) {
        before = made.load(Ordering::SeqCst);
        // That it has stopped shows only in time.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(before < CHUNKS, "all {CHUNKS} chunks were taken while nobody read");
    let mut got = 0;
    while let Some(frame) = down.frame().await {
        got += frame.unwrap().into_data().unwrap().len();
    }
    assert_eq!(got, CHUNK * CHUNKS);
    drop(down);
    while counters.open.load(Ordering::Relaxed) > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_big_upload_keeps_its_connection() {
    let address = app(|mut conn, _| async move {
        while conn.head().await.is_some() {
            let mut left = CHUNK * CHUNKS - std::mem::take(&mut conn.buffer).len();
            let mut buffer = vec![0; CHUNK];
            while left > 0 {
                left -= conn.socket.read(&mut buffer).await.unwrap();
            }
            conn.say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let (upstream, counters) = client(settings(address));
    for _ in 0..2 {
        let mut upload = request(Method::PUT, big().0);
        upload.headers_mut().insert("content-length", (CHUNK * CHUNKS).into());
        assert_eq!(
            text(upstream.send(&ConnectionChoice::Pooled, upload).await.unwrap()).await,
            "ok"
        );
    }
    assert_eq!((counters.connects.get(), counters.idle.load(Ordering::Relaxed)), (1, 1));
}

#[tokio::test]
async fn an_app_that_refuses_an_upload_early_is_heard() {
    let address = app(|mut conn, _| async move {
        conn.head().await;
        conn.say(
            "HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\nconnection: close\r\n\r\nbig",
        )
        .await;
        // Closes with the upload unread, which resets the connection.
    })
    .await;
    let (upstream, _) = client(settings(address));
    for _ in 0..20 {
        let response =
            upstream.send(&ConnectionChoice::Pooled, request(Method::POST, big().0)).await.unwrap();
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(text(response).await, "big");
    }
}

#[tokio::test]
async fn trailers_pass_but_not_those_that_decide() {
    let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: \
        x-sum\r\n\r\n2\r\nok\r\n0\r\nx-sum: 1\r\nset-cookie: a=b\r\n\r\n";
    let (upstream, counters) = client(settings(steady(answer).await));
    for _ in 0..2 {
        let body = upstream
            .send(&ConnectionChoice::Pooled, get())
            .await
            .unwrap()
            .into_body()
            .collect()
            .await
            .unwrap();
        let trailers = body.trailers().unwrap();
        assert_eq!((trailers.len(), &trailers["x-sum"]), (1, &HeaderValue::from_static("1")));
    }
    assert_eq!(counters.connects.get(), 1);
}

#[tokio::test]
async fn https_is_spoken_to_an_app_whose_authority_is_trusted() {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), cert.pem()).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_no_client_auth()
    .with_single_cert(vec![cert.der().clone()], key)
    .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let address = app(move |conn, _| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut tls) = acceptor.accept(conn.socket).await else { return };
            assert_eq!(tls.get_ref().1.server_name(), Some("localhost"));
            let mut buffer = [0; 4096];
            while matches!(tls.read(&mut buffer).await, Ok(1..)) {
                tls.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            }
        }
    })
    .await;
    let target = Target {
        address: UpstreamAddress::Tcp { tls: true, host: "localhost".into(), port: address.port() },
        authority: "localhost".into(),
    };
    let trusting = UpstreamSettings {
        target: target.clone(),
        ca_file: Some(file.path().to_owned()),
        ..settings(address)
    };
    let (upstream, counters) = client(trusting);
    for _ in 0..3 {
        assert_eq!(
            text(upstream.send(&ConnectionChoice::Pooled, get()).await.unwrap()).await,
            "ok"
        );
    }
    assert_eq!(counters.connects.get(), 1);

    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(file.path(), other.cert.pem()).unwrap();
    let (upstream, _) = client(UpstreamSettings {
        target,
        ca_file: Some(file.path().to_owned()),
        ..settings(address)
    });
    let error = upstream.send(&ConnectionChoice::Pooled, get()).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Connect(_)), "{error}");
}

/// A server that hands each request to the client under test and makes a tunnel of a 101.
async fn front(
    upstream: Upstream,
    idle: Duration,
    stop: CancellationToken,
) -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<(u64, u64)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (ended, counts) = tokio::sync::mpsc::unbounded_channel();
    let service = hyper::service::service_fn(move |mut request: Request<hyper::body::Incoming>| {
        let (upstream, ended, stop) = (upstream.clone(), ended.clone(), stop.clone());
        async move {
            let from = hyper::upgrade::on(&mut request);
            let mut response =
                upstream.send(&ConnectionChoice::Pooled, request.map(Body::stream)).await?;
            let to = hyper::upgrade::on(&mut response);
            tokio::spawn(async move {
                ended.send(tunnel(from, to, idle, stop).await.unwrap()).unwrap();
            });
            Ok::<_, UpstreamError>(response)
        }
    });
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(socket), service.clone())
                    .with_upgrades(),
            );
        }
    });
    (address, counts)
}

/// An app that changes protocols, greets in the same breath, echoes, and says goodbye after the
/// client's last word.
async fn echo() -> SocketAddr {
    app(|mut conn, _| async move {
        let head = conn.head().await.unwrap();
        assert!(head.contains("upgrade: echo\r\n"), "{head}");
        conn.say(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: \
            echo\r\n\r\nhello ",
        )
        .await;
        let (mut from, mut to) = conn.socket.split();
        tokio::io::copy(&mut from, &mut to).await.unwrap();
        to.write_all(b" bye").await.unwrap();
    })
    .await
}

async fn upgraded(address: SocketAddr) -> Conn {
    let mut conn = Conn { socket: TcpStream::connect(address).await.unwrap(), buffer: Vec::new() };
    conn.say(&format!(
        "GET / HTTP/1.1\r\nhost: a\r\n{CONNECTION}: upgrade\r\n{UPGRADE}: echo\r\n\r\n"
    ))
    .await;
    assert!(conn.head().await.unwrap().starts_with("HTTP/1.1 101 "));
    conn
}

#[tokio::test]
async fn a_tunnel_echoes_and_outlives_the_clients_last_word() {
    let (upstream, counters) =
        client(UpstreamSettings { max_connections: 1, ..settings(echo().await) });
    let (address, mut counts) =
        front(upstream, Duration::from_secs(5), CancellationToken::new()).await;
    let mut conn = upgraded(address).await;
    assert_eq!(
        (counters.open.load(Ordering::Relaxed), counters.idle.load(Ordering::Relaxed)),
        (1, 0)
    );
    let sent = vec![b'y'; 1 << 20];
    let (mut from, mut to) = conn.socket.into_split();
    let writer = tokio::spawn({
        let sent = sent.clone();
        async move {
            to.write_all(&sent).await.unwrap();
            to.shutdown().await.unwrap();
            to
        }
    });
    from.read_to_end(&mut conn.buffer).await.unwrap();
    drop(writer.await.unwrap());
    assert_eq!(conn.buffer, [b"hello ", &sent[..], b" bye"].concat());
    assert_eq!(counts.recv().await.unwrap(), (1 << 20, (1 << 20) + 10));
    assert_eq!(counters.open.load(Ordering::Relaxed), 0);
    // The permit came back with the socket: the only connection there may be can be made again.
    upgraded(address).await;
}

#[tokio::test]
async fn a_silent_tunnel_and_a_stopped_one_are_closed() {
    let stop = CancellationToken::new();
    let (upstream, counters) = client(settings(echo().await));
    for (idle, stops) in [(Duration::from_millis(100), false), (Duration::from_mins(1), true)] {
        let (address, mut counts) = front(upstream.clone(), idle, stop.clone()).await;
        let mut conn = upgraded(address).await;
        conn.say("one").await;
        let mut got = vec![0; 9];
        let early = conn.buffer.len();
        got[..early].copy_from_slice(&conn.buffer);
        conn.socket.read_exact(&mut got[early..]).await.unwrap();
        assert_eq!(got, b"hello one");
        if stops {
            stop.cancel();
        }
        assert_eq!(counts.recv().await.unwrap(), (3, 9));
        assert_eq!(conn.socket.read(&mut got).await.unwrap(), 0);
    }
    assert_eq!(counters.open.load(Ordering::Relaxed), 0);
}
