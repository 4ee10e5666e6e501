//! Tests of what clients may do: pipelining, HTTP/2, upgrades, half-closing.

use hyper_util::rt::{TokioExecutor, TokioIo};

use super::*;

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let server = start(settings());
    let answer = server
        .exchange(
            b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: \
                3\r\n\r\nabcGET /3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        )
        .await;
    let places: Vec<_> = ["/1 0", "/2 3", "/3 0"].iter().map(|body| answer.find(body)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{answer}");
}

#[tokio::test]
async fn a_client_that_closes_its_half_still_gets_its_answer() {
    let server = start(settings());
    for request in [
        "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
    ] {
        let mut stream = server.connect().await;
        let called = server.calls();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        server.until_called(called + 1).await;
        // Until the server has seen the end of what it reads, which shows nowhere.
        tokio::time::sleep(Duration::from_millis(20)).await;
        server.app.go.add_permits(1);
        assert!(rest(&mut stream).await.ends_with("slow"));
    }
}

#[tokio::test]
async fn a_client_that_resets_ends_its_request() {
    let server = start(settings());
    let mut stream = server.connect().await;
    stream.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    server.until_called(1).await;
    stream.set_zero_linger().unwrap();
    drop(stream);
    let gone = async {
        while server.counters.open.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(8), gone)
        .await
        .expect("the patrol did not find the reset");
}

#[tokio::test]
async fn a_body_cut_short_is_an_error_and_not_an_end() {
    let server = start(settings());
    let mut stream = server.connect().await;
    stream
        .write_all(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc")
        .await
        .unwrap();
    stream.shutdown().await.unwrap();
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 400 "));
}

#[tokio::test]
async fn http2_with_prior_knowledge_carries_trailers() {
    let server = start(settings());
    let io = TokioIo::new(server.connect().await);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let response = sender
        .send_request(Request::get("http://a/trailers").body(Body::empty()).unwrap())
        .await
        .unwrap();
    assert_eq!(response.version(), http::Version::HTTP_2);
    let all = response.into_body().collect().await.unwrap();
    assert_eq!(all.trailers().unwrap()["x-end"], "yes");
    assert_eq!(all.to_bytes(), "data");
    let upload = Request::post("http://a/up").body(Body::full(vec![b'x'; 5 << 20])).unwrap();
    let response = sender.send_request(upload).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "/up 5242880");
    let mut crowded = Request::get("http://a/x").body(Body::empty()).unwrap();
    for _ in 0..101 {
        crowded.headers_mut().append("x", "y".parse().unwrap());
    }
    assert_eq!(sender.send_request(crowded).await.unwrap().status(), 431);
}

#[tokio::test]
async fn http_1_0_is_told_whether_its_connection_stays_open() {
    let server = start(settings());
    let head = |path| {
        format!("GET {path} HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n").into_bytes()
    };
    let two = [head("/x"), b"GET /x HTTP/1.0\r\n\r\n".to_vec()].concat();
    let answer = server.exchange(&two).await.to_lowercase();
    assert_eq!(answer.matches("http/1.0 200 ").count(), 2, "{answer}");
    assert_eq!(answer.matches("connection: keep-alive").count(), 1, "{answer}");
    for path in ["/trailers", "/x#fragment"] {
        let answer = server.exchange(&head(path)).await.to_lowercase();
        assert!(answer.starts_with("http/1.0 "), "{answer}");
        assert!(answer.contains("connection: close"), "{answer}");
        assert!(!answer.contains("keep-alive") && !answer.contains("transfer-encoding"));
    }
}

#[tokio::test]
async fn a_panic_is_an_answer_and_the_next_request_is_served() {
    let server = start(settings());
    let mut stream = server.connect().await;
    stream.write_all(b"GET /panic HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let answer = until(&mut stream, "the service panicked").await;
    assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
    stream.write_all(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    until(&mut stream, "/x 0").await;
    assert_eq!(server.counters.panics.get(), 1);
}

#[tokio::test]
async fn the_peer_is_the_socket_and_trusted_when_the_settings_say_so() {
    const GET: &[u8] = b"GET /peer HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let server = start(settings());
    assert!(server.exchange(GET).await.ends_with("127.0.0.1 false"));
    let trusting =
        ServerSettings { trusted_proxies: vec!["127.0.0.1".parse().unwrap()].into(), ..settings() };
    assert!(start(trusting.clone()).exchange(GET).await.ends_with("127.0.0.1 true"));
    // An IPv4 client of an IPv6 listener is the same client.
    let Ok(listener) = bind("[::]:0".parse().unwrap()) else { return };
    drop(listener);
    let mut server = start(ServerSettings {
        address: "[::]:0".parse::<SocketAddr>().unwrap().into(),
        ..trusting
    });
    server.address = SocketAddr::from(([127, 0, 0, 1], server.address.port()));
    assert!(server.exchange(GET).await.ends_with("127.0.0.1 true"));
}

#[tokio::test]
async fn a_large_response_arrives_whole() {
    let server = start(settings());
    let answer =
        server.exchange(b"GET /big HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(answer.len() > 32 << 20 && answer.ends_with('x'));
}

#[tokio::test]
async fn an_upgraded_connection_is_left_alone() {
    struct Tunnel;
    impl Service for Tunnel {
        type Client = ();
        type Found = ();
        fn connect(&self, _: ClientPeer, _: &Arc<Departure>) {}
        async fn call(
            self: &Arc<Self>,
            mut request: Request<Body>,
            (): &(),
            _: Option<BadRequest>,
            (): (),
        ) -> Response<Body> {
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut io = TokioIo::new(upgrade.await.unwrap());
                let (mut read, mut write) = tokio::io::split(&mut io);
                tokio::io::copy(&mut read, &mut write).await.unwrap();
            });
            let mut response = self.refuse(StatusCode::SWITCHING_PROTOCOLS, "");
            response.headers_mut().insert("upgrade", "echo".parse().unwrap());
            response
        }
        fn reject(&self, head: &UnreadHead, (): &()) -> Response<Body> {
            self.refuse(head.why.status(), "")
        }
        fn refuse(&self, status: StatusCode, _: &'static str) -> Response<Body> {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = status;
            response
        }
    }
    let short = Duration::from_millis(100);
    let limits = ServerSettings {
        header_timeout: short,
        idle_timeout: short,
        write_timeout: short,
        ..settings()
    };
    let listener = bind(limits.address.tcp().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let (counters, stop) = (ServerCounters::default(), DrainSignals::default());
    tokio::spawn(run(
        listener.into(),
        limits,
        Arc::new(Tunnel),
        counters.clone(),
        Clock::system(),
        stop.clone(),
    ));
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nearly",
        )
        .await
        .unwrap();
    until(&mut stream, "\r\n\r\nearly").await;
    for _ in 0..3 {
        // Silent for longer than any limit.
        tokio::time::sleep(short * 2).await;
        stream.write_all(b"x\r\ncontent-length: 1\r\ntransfer-encoding: x\r\n\r\n").await.unwrap();
        until(&mut stream, "\r\n\r\n").await;
    }
    assert_eq!(counters.open.load(Ordering::SeqCst), 1, "a tunnel counts as a connection");
    stream.shutdown().await.unwrap();
    rest(&mut stream).await;
    assert_eq!(counters.open.load(Ordering::SeqCst), 0);
}
