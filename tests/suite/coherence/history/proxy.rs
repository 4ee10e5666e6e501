//! The fault proxy does what it is told to: otherwise a fault that was never staged would pass for
//! one that was withstood.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::support::{Fault, FaultProxy};

/// What would come has come by then, on any machine.
const LONG: Duration = Duration::from_secs(10);
/// What is held does not come, however long one waits; a short wait finds what is not held nearly
/// always.
const SHORT: Duration = Duration::from_millis(200);

/// A target that answers each byte by the same byte, and tells which it got.
async fn echo() -> (u16, mpsc::UnboundedReceiver<u8>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("the loopback has a free port");
    let port = listener.local_addr().expect("a bound listener has an address").port();
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let tell = tell.clone();
            tokio::spawn(async move {
                while let Ok(byte) = stream.read_u8().await {
                    let _ = tell.send(byte);
                    let _ = stream.write_all(&[byte]).await;
                }
            });
        }
    });
    (port, told)
}

async fn stage() -> (FaultProxy, mpsc::UnboundedReceiver<u8>) {
    let (port, told) = echo().await;
    (FaultProxy::start(port).await, told)
}

/// A connection on which a byte has gone round.
async fn connected(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("the proxy accepts connections");
    assert_eq!(round(&mut stream, 0).await.expect("nothing is broken yet"), 0);
    stream
}

async fn round(stream: &mut TcpStream, byte: u8) -> std::io::Result<u8> {
    stream.write_all(&[byte]).await?;
    timeout(LONG, stream.read_u8()).await.expect("what passes comes back")
}

#[tokio::test]
async fn bytes_pass_both_ways_and_so_does_the_end() {
    let (proxy, mut told) = stage().await;
    let mut stream = connected(proxy.address).await;
    assert_eq!(round(&mut stream, 7).await.unwrap(), 7);
    assert_eq!((told.recv().await, told.recv().await), (Some(0), Some(7)));
    stream.shutdown().await.unwrap();
    let end = timeout(LONG, stream.read_u8()).await.expect("the target closes when its client has");
    assert_eq!(end.unwrap_err().kind(), ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn a_frozen_proxy_holds_the_bytes_and_keeps_the_connections() {
    let (proxy, mut told) = stage().await;
    let mut old = connected(proxy.address).await;
    told.recv().await;
    proxy.set(Fault::Freeze);
    let mut new = TcpStream::connect(proxy.address).await.expect("new connections are accepted");
    for stream in [&mut old, &mut new] {
        stream.write_all(&[1]).await.unwrap();
        assert!(
            timeout(SHORT, stream.read_u8()).await.is_err(),
            "nothing comes back, and nothing ends"
        );
    }
    assert!(told.try_recv().is_err(), "nothing reached the target");
    proxy.set(Fault::None);
    for stream in [&mut old, &mut new] {
        assert_eq!(timeout(LONG, stream.read_u8()).await.expect("what was held comes").unwrap(), 1);
    }
}

#[tokio::test]
async fn answers_that_are_frozen_are_held_while_requests_pass() {
    let (proxy, mut told) = stage().await;
    let mut stream = connected(proxy.address).await;
    told.recv().await;
    proxy.set(Fault::FreezeAnswers);
    stream.write_all(&[3]).await.unwrap();
    assert_eq!(timeout(LONG, told.recv()).await.expect("the request passes"), Some(3));
    assert!(timeout(SHORT, stream.read_u8()).await.is_err(), "the answer is held");
    proxy.set(Fault::None);
    assert_eq!(timeout(LONG, stream.read_u8()).await.expect("the answer comes").unwrap(), 3);
}

#[tokio::test]
async fn a_cut_resets_all_connections_and_the_new_ones_too() {
    let (proxy, _told) = stage().await;
    let mut old = connected(proxy.address).await;
    proxy.set(Fault::Cut);
    let broken = timeout(LONG, old.read_u8()).await.expect("the connection ends");
    assert_eq!(broken.unwrap_err().kind(), ErrorKind::ConnectionReset);
    // Whether the reset is seen at the first write or at the read after it is a matter of time.
    let mut new = TcpStream::connect(proxy.address).await.unwrap();
    let _ = new.write_all(&[1]).await;
    let broken = timeout(LONG, new.read_u8()).await.expect("the connection ends");
    assert!(broken.is_err(), "nothing is answered");
    proxy.set(Fault::None);
    connected(proxy.address).await;
}

#[tokio::test]
async fn a_cut_ends_what_was_held_by_a_freeze() {
    let (proxy, mut told) = stage().await;
    let mut stream = connected(proxy.address).await;
    told.recv().await;
    proxy.set(Fault::Freeze);
    stream.write_all(&[1]).await.unwrap();
    proxy.set(Fault::Cut);
    let broken = timeout(LONG, stream.read_u8()).await.expect("the connection ends");
    assert!(broken.is_err() && told.try_recv().is_err(), "what was held is lost");
}

#[tokio::test]
async fn delayed_bytes_take_their_time_each_way() {
    let (proxy, _told) = stage().await;
    let mut stream = connected(proxy.address).await;
    proxy.set(Fault::Delay(SHORT));
    let start = Instant::now();
    assert_eq!(round(&mut stream, 5).await.unwrap(), 5);
    assert!(start.elapsed() >= SHORT * 2, "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_target_that_is_gone_resets_its_clients() {
    let proxy = FaultProxy::start(crate::support::process::free_port()).await;
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    let broken = timeout(LONG, stream.read_u8()).await.expect("the connection ends");
    assert!(broken.is_err(), "nobody is there to answer");
}
