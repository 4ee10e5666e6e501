//! A TCP proxy that fails as a network does: it holds bytes, delays them, or cuts every connection,
//! when a test tells it to.
//!
//! It listens on a port of its own in front of one target, and knows nothing of what it carries.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use rand::Rng as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// How many pieces of up to 16 KiB are held for one direction of a connection; after that its
/// sender is no longer read from.
const HELD: usize = 64;

/// What happens to bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// They pass.
    None,
    /// They are held in both directions. Connections stay, and new ones are accepted and held.
    Freeze,
    /// Those towards the target pass; what it answers is held.
    FreezeAnswers,
    /// All connections are reset, and new ones as soon as they are accepted.
    Cut,
    /// They arrive this much later, each way.
    Delay(Duration),
    /// They arrive up to `most` later, each way, and one piece in fifty up to `tail`.
    Jitter {
        /// For most pieces.
        most: Duration,
        /// For a few.
        tail: Duration,
    },
}

impl Fault {
    const fn holds(self, way: Way) -> bool {
        matches!((self, way), (Self::Freeze, _) | (Self::FreezeAnswers, Way::Back))
    }

    fn delay(self) -> Duration {
        match self {
            Self::Delay(delay) => delay,
            Self::Jitter { most, tail } => {
                let mut random = rand::thread_rng();
                let bound = if random.gen_ratio(1, 50) { tail } else { most };
                bound.mul_f64(random.r#gen())
            }
            _ => Duration::ZERO,
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    There,
    Back,
}

/// The proxy. Dropping it ends its connections.
pub struct FaultProxy {
    /// Where it listens.
    pub address: SocketAddr,
    fault: watch::Sender<Fault>,
    task: JoinHandle<()>,
}

impl FaultProxy {
    /// A proxy in front of a port of the loopback, through which all passes.
    pub async fn start(target: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("the loopback has a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let (fault, watched) = watch::channel(Fault::None);
        let task = tokio::spawn(accept(listener, target, watched));
        Self { address, fault, task }
    }

    /// From now on bytes fare so, on connections that are open too.
    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        // The connections end with the sender, which they watch.
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, target: u16, fault: watch::Receiver<Fault>) {
    while let Ok((client, _)) = listener.accept().await {
        tokio::spawn(carry(client, target, fault.clone()));
    }
}

async fn carry(mut client: TcpStream, target: u16, fault: watch::Receiver<Fault>) {
    let (mut held, mut cut) = (fault.clone(), fault.clone());
    let connected = async {
        // Held from its first byte on: the target does not see a connection before something may
        // pass on it.
        released(&mut held, Way::There).await?;
        TcpStream::connect((Ipv4Addr::LOCALHOST, target)).await
    };
    let target = tokio::select! {
        target = connected => target,
        () = ended(&mut cut) => Err(io::ErrorKind::ConnectionReset.into()),
    };
    let Ok(mut target) = target else {
        let _ = client.set_zero_linger();
        return;
    };
    let _ = (client.set_nodelay(true), target.set_nodelay(true));
    let closed = {
        let ((from_client, to_client), (from_target, to_target)) = (client.split(), target.split());
        tokio::select! {
            closed = pump(from_client, to_target, fault.clone(), Way::There) => closed.is_ok(),
            closed = pump(from_target, to_client, fault, Way::Back) => closed.is_ok(),
            () = ended(&mut cut) => false,
        }
    };
    if !closed {
        let _ = (client.set_zero_linger(), target.set_zero_linger());
    }
}

/// Carries bytes one way until their sender closes, which is an `Ok`, or the connection fails. Both
/// are told when no fault holds them.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut fault: watch::Receiver<Fault>,
    way: Way,
) -> io::Result<()> {
    let (pieces, mut queue) = mpsc::channel::<(Instant, io::Result<Vec<u8>>)>(HELD);
    let reading = async move {
        loop {
            let mut piece = vec![0; 16 * 1024];
            let read = from.read(&mut piece).await;
            let over = !matches!(read, Ok(1..));
            let read = read.map(|length| piece[..length].to_vec());
            if pieces.send((Instant::now(), read)).await.is_err() || over {
                return;
            }
        }
    };
    let writing = async move {
        while let Some((came, piece)) = queue.recv().await {
            released(&mut fault, way).await?;
            let delay = fault.borrow().delay();
            sleep_until(came + delay).await;
            let piece = piece?;
            if piece.is_empty() {
                return to.shutdown().await;
            }
            to.write_all(&piece).await?;
        }
        Ok(())
    };
    tokio::join!(reading, writing).1
}

/// Returns when bytes may go this way.
async fn released(fault: &mut watch::Receiver<Fault>, way: Way) -> io::Result<()> {
    let passes = fault.wait_for(|fault| !fault.holds(way)).await;
    passes.map(drop).map_err(|_| io::ErrorKind::ConnectionReset.into())
}

/// Returns when the connection is to be reset: the proxy cuts, or is gone.
async fn ended(fault: &mut watch::Receiver<Fault>) {
    let _ = fault.wait_for(|fault| *fault == Fault::Cut).await;
}
