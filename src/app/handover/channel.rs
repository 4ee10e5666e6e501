//! The connection between the two processes of a hand-over: short lines, some with descriptors.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

/// The first word and the version of what the taker says.
pub(super) const HELLO: &str = "take-over 1";
pub(super) const OFFER: &str = "offer 1";
pub(super) const READY: &str = "ready";
pub(super) const GO: &str = "go";
pub(super) const SERVING: &str = "serving";
pub(super) const REFUSED: &str = "refused";

/// The longest line.
const MAX_LINE: usize = 1024;
/// The most descriptors with one line.
pub(super) const MAX_SOCKETS: usize = 3;

/// macOS has none of these flags. The standard library ignores SIGPIPE on all systems.
#[cfg(not(target_vendor = "apple"))]
const FLAGS: (SendFlags, RecvFlags) = (SendFlags::NOSIGNAL, RecvFlags::CMSG_CLOEXEC);
#[cfg(target_vendor = "apple")]
const FLAGS: (SendFlags, RecvFlags) = (SendFlags::empty(), RecvFlags::empty());

/// One side of the connection.
#[derive(Debug)]
pub(super) struct HandoverChannel {
    stream: UnixStream,
    /// What has come and was not read yet.
    bytes: Vec<u8>,
    sockets: Vec<OwnedFd>,
}

impl HandoverChannel {
    pub(super) const fn new(stream: UnixStream) -> Self {
        Self { stream, bytes: Vec::new(), sockets: Vec::new() }
    }

    /// Sends a line.
    pub(super) async fn send(&self, line: &str) -> Result<(), String> {
        self.send_with(line, &[]).await
    }

    /// Sends a line with descriptors, of which the other side gets copies.
    pub(super) async fn send_with(
        &self,
        line: &str,
        sockets: &[BorrowedFd<'_>],
    ) -> Result<(), String> {
        let bytes = format!("{line}\n").into_bytes();
        let mut sent = 0;
        while sent < bytes.len() {
            let write = || {
                let mut space =
                    [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
                let mut rights = SendAncillaryBuffer::new(&mut space);
                if sent == 0 && !sockets.is_empty() {
                    rights.push(SendAncillaryMessage::ScmRights(sockets));
                }
                let slices = [IoSlice::new(&bytes[sent..])];
                Ok(sendmsg(&self.stream, &slices, &mut rights, FLAGS.0)?)
            };
            let result = self.stream.async_io(Interest::WRITABLE, write).await;
            sent += result.map_err(|error: io::Error| error.to_string())?;
        }
        Ok(())
    }

    /// The next line; none at the end of the connection.
    pub(super) async fn receive(&mut self) -> Result<Option<String>, String> {
        loop {
            if let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.bytes.drain(..=end).collect();
                return Ok(Some(String::from_utf8_lossy(&line[..end]).into_owned()));
            }
            if self.bytes.len() > MAX_LINE {
                return Err("it sent a line that is too long".to_owned());
            }
            let mut buffer = [0; 256];
            let mut received = Vec::new();
            let receive = || {
                let mut space =
                    [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
                let mut rights = RecvAncillaryBuffer::new(&mut space);
                let mut slices = [IoSliceMut::new(&mut buffer)];
                let message = recvmsg(&self.stream, &mut slices, &mut rights, FLAGS.1)?;
                for part in rights.drain() {
                    if let RecvAncillaryMessage::ScmRights(sockets) = part {
                        received.extend(sockets);
                    }
                }
                // Where no flag does it: programs that this one starts get none of them.
                for socket in &received {
                    fcntl_setfd(socket, FdFlags::CLOEXEC)?;
                }
                Ok(message.bytes)
            };
            let read = match self.stream.async_io(Interest::READABLE, receive).await {
                // The other process has died with a line of ours unread.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
                result => result.map_err(|error: io::Error| error.to_string())?,
            };
            self.sockets.append(&mut received);
            if read == 0 {
                return Ok(None);
            }
            self.bytes.extend_from_slice(&buffer[..read]);
        }
    }

    /// The same, in this time.
    pub(super) async fn receive_within(
        &mut self,
        within: Duration,
    ) -> Result<Option<String>, String> {
        timeout(within, self.receive()).await.unwrap_or_else(|_| Err("it took too long".to_owned()))
    }

    /// The descriptors that came so far.
    pub(super) fn take_sockets(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.sockets)
    }
}

/// A listener in this process of one that was received.
pub(super) fn unix_listener(socket: OwnedFd) -> io::Result<UnixListener> {
    let listener = std::os::unix::net::UnixListener::from(socket);
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsFd as _;

    use super::*;

    #[tokio::test]
    async fn a_listener_crosses_with_its_line() {
        let (one, two) = UnixStream::pair().expect("a pair");
        let (one, mut two) = (HandoverChannel::new(one), HandoverChannel::new(two));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        one.send_with("offer", &[listener.as_fd()]).await.expect("it is sent");
        one.send("more").await.expect("it is sent");
        drop(listener);
        assert_eq!(two.receive().await, Ok(Some("offer".to_owned())));
        let sockets = two.take_sockets();
        let [socket] = <[OwnedFd; 1]>::try_from(sockets).expect("one descriptor");
        assert_eq!(TcpListener::from(socket).local_addr().ok(), Some(address));
        assert_eq!(two.receive().await, Ok(Some("more".to_owned())));
        drop(one);
        assert_eq!(two.receive().await, Ok(None));
    }

    #[tokio::test]
    async fn a_line_is_bounded_and_a_silent_peer_too() {
        let (one, two) = UnixStream::pair().expect("a pair");
        let (one, mut two) = (HandoverChannel::new(one), HandoverChannel::new(two));
        let late = two.receive_within(Duration::from_millis(10)).await;
        assert_eq!(late, Err("it took too long".to_owned()));
        one.send(&"x".repeat(4 * MAX_LINE)).await.expect("it is sent");
        assert!(two.receive().await.is_err());
    }
}
