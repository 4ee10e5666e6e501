//! Tests of targets with characters that no URI has, and that clients send nevertheless.

use super::*;

/// What the service is given for this target, sent whole and in two packets.
async fn served(server: &Server, target: &[u8]) -> String {
    let head = [b"GET ", target, b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"].concat();
    let whole = server.exchange(&head).await;
    assert!(whole.starts_with("HTTP/1.1 200 "), "{target:?}: {whole}");
    let first = server.app.targets.lock().pop().unwrap();
    for split in 4..4 + target.len() {
        let mut stream = server.connect().await;
        stream.write_all(&head[..split]).await.unwrap();
        // In two packets.
        tokio::time::sleep(Duration::from_millis(1)).await;
        stream.write_all(&head[split..]).await.unwrap();
        let answer = rest(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{target:?} at {split}: {answer}");
        assert_eq!(server.app.targets.lock().pop().as_ref(), Some(&first), "split at {split}");
    }
    first
}

#[tokio::test]
async fn raw_characters_are_carried_and_escaped_only_where_they_must_be() {
    let server = start(settings());
    for (sent, got) in [
        (&b"/a?q=\"x\""[..], "/a?q=%22x%22"),
        (b"/\"a\"/{b}|c^d\\e", "/\"a\"/{b}|c^d\\e"),
        (b"/<a>`b`?<c>`d`", "/%3Ca%3E%60b%60?%3Cc%3E`d`"),
        ("/ü?q=東京".as_bytes(), "/ü?q=東京"),
        (b"/\xfc?q=\xe2\x82", "/%FC?q=%E2%82"),
        (b"/\xc3\xbc\xc3/\xf0\x9f\x98\x80\xf0\x9f", "/ü%C3/😀%F0%9F"),
        (b"http://b/<?\"", "http://b/%3C?%22"),
    ] {
        assert_eq!(served(&server, sent).await, got, "{:?}", String::from_utf8_lossy(sent));
    }
    assert_eq!(server.counters.head_errors.get(), 0);
}

#[tokio::test]
async fn bodies_and_what_follows_them_are_untouched() {
    struct Echo;
    impl Service for Echo {
        type Client = ();
        type Found = ();
        fn connect(&self, _: ClientPeer, _: &Arc<Departure>) {}
        async fn call(
            self: &Arc<Self>,
            request: Request<Body>,
            (): &(),
            _: Option<BadRequest>,
            (): (),
        ) -> Response<Body> {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let mut text = format!("[{}]", head.uri).into_bytes();
            text.extend_from_slice(&body);
            Response::new(Body::full(text))
        }
        fn reject(&self, _: &UnreadHead, (): &()) -> Response<Body> {
            Response::new(Body::full("rejected"))
        }
        fn refuse(&self, _: StatusCode, _: &'static str) -> Response<Body> {
            Response::new(Body::full("refused"))
        }
    }
    let listener = bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = listener.local_addr().unwrap();
    let (counters, signals) = (ServerCounters::default(), DrainSignals::default());
    let (listener, app) = (listener.into(), Arc::new(Echo));
    tokio::spawn(run(listener, settings(), app, counters, Clock::system(), signals));
    let body = b"GET /\"<\xff> HTTP/1.1\r\n\r\n";
    let first = [
        format!("PUT /<1> HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len())
            .as_bytes(),
        body,
    ]
    .concat();
    let second = [
        b"PUT /<2> HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        format!("{:x}\r\n", body.len()).as_bytes(),
        body,
        b"\r\n0\r\n\r\n",
    ]
    .concat();
    let third = b"GET /<3>?\xff HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let all = [&first[..], &second, third].concat();
    for split in 0..all.len() {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&all[..split]).await.unwrap();
        // In two packets.
        tokio::time::sleep(Duration::from_millis(1)).await;
        stream.write_all(&all[split..]).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let mut left = &answer[..];
        for wanted in [
            [b"[/%3C1%3E]", &body[..]].concat(),
            [b"[/%3C2%3E]", &body[..]].concat(),
            b"[/%3C3%3E?%FF]".to_vec(),
        ] {
            let at = memchr::memmem::find(left, &wanted).unwrap_or_else(|| {
                panic!("split at {split}: {}", String::from_utf8_lossy(&answer))
            });
            left = &left[at + wanted.len()..];
        }
    }
}

#[tokio::test]
async fn bytes_behind_a_request_for_a_tunnel_are_never_escaped() {
    let server = start(settings());
    let mut stream = server.connect().await;
    let early = "GET /<ü\" HTTP/1.1\r\nHost: a\r\n\r\n";
    let bytes = format!("GET /x HTTP/1.1\r\nHost: a\r\nUpgrade: echo\r\n\r\n{early}");
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.ends_with(BadRequest::Target.as_str()), "as hyper has it: {answer}");
}
